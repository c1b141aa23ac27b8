"""What a study may say that trains in buffered rounds, and what cannot be together."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fedstep.common.errors import FieldViolation
from fedstep.common.validation import show

if TYPE_CHECKING:
    from fedstep.common.spec import StudySpec

SELECTORS = ("random", "power_of_choice")
"""Those that can choose a client for a place that became free; the others weigh whole cohorts. The first by default."""

_DEALING = ("fedex", "population")
"""Tuners that deal another configuration to each client, anew every round."""


def with_selector(content: Any) -> Any:
    """A study's tables; where its rounds are buffered and no selector is named, with the one for these."""
    if isinstance(content, Mapping) and "selector" not in content:
        policy = content.get("round")
        mode = policy.get("mode") if isinstance(policy, Mapping) else getattr(policy, "mode", None)
        if mode == "buffered":
            return {**content, "selector": {"name": SELECTORS[0]}}
    return content


def buffer_faults(spec: "StudySpec") -> list[FieldViolation]:
    """What cannot be together."""
    policy = spec.round
    if not policy.buffered:
        fields = type(policy).model_fields
        return [
            FieldViolation(
                f"round.{name}",
                f'is {show(value)}, and only buffered rounds have it: write mode = "buffered", or remove this line.',
            )
            for name, value in (("buffer_size", policy.buffer_size), ("max_staleness", policy.max_staleness))
            if value != fields[name].default
        ]
    faults = []
    tuned = "cohort_size" in spec.hyperparameters or "cohort_size" in spec.space
    if not (policy.buffer_size or policy.cohort_size or tuned):
        said = "is missing: say how many updates end a buffered round, since cohort_size names no number."
        faults.append(FieldViolation("round.buffer_size", said))
    if policy.late_updates == "drop":
        said = 'is "drop", and in buffered rounds most updates are of an earlier model: bound max_staleness instead.'
        faults.append(FieldViolation("round.late_updates", said))
    if spec.selector.name not in SELECTORS:
        said = (
            f"is {show(spec.selector.name)}, which chooses whole cohorts, and buffered rounds replace one client at a "
            f"time: use {' or '.join(map(show, SELECTORS))}."
        )
        faults.append(FieldViolation("selector.name", said))
    if spec.tuner.name in _DEALING:
        said = (
            f"is {show(spec.tuner.name)}, which deals its clients new configurations every round, and a buffer holds "
            'updates of several rounds: use another tuner, or mode = "synchronous".'
        )
        faults.append(FieldViolation("tuner.name", said))
    return faults
