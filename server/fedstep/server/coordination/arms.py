"""Arms as the store keeps them: a trial's record holds all that says how it trains."""

from dataclasses import fields
from typing import Any

from fedstep.server.storage.base import TrialRecord
from fedstep.server.tuning.base import Arm

_OWN = ("number", "hyperparameters")
_DEFAULTS = {field.name: field.default for field in fields(Arm) if field.name not in _OWN}


def details_of(arm: Arm) -> dict[str, Any]:
    """What an arm has that a plain trial has not, as JSON types."""
    settings = {name: getattr(arm, name) for name in _DEFAULTS if getattr(arm, name) != _DEFAULTS[name]}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}


def arm_of(trial: TrialRecord) -> Arm:
    """The arm of a trial."""
    settings = {name: value for name, value in trial.details.items() if name in _DEFAULTS}
    lists = {name: tuple(value) for name, value in settings.items() if isinstance(value, list)}
    return Arm(trial.number, trial.hyperparameters, **{**settings, **lists})
