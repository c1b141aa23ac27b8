"""The final rounds of the best trial: the study delivers the model of the one that measured best, not of the last."""

from dataclasses import replace
from typing import Any

from fedstep.common.spec import StudySpec
from fedstep.server.coordination.outcome import StepOutcome
from fedstep.server.storage.base import BEST_FINAL_ROUND, TrialRecord


def noted(spec: StudySpec, trial: TrialRecord, outcome: StepOutcome) -> dict[str, Any]:
    """The trial's details after one more final round: which was the best so far; of equals the last."""
    best = trial.details.get(BEST_FINAL_ROUND)
    if outcome.value is None or (best and spec.objective.better(best["value"], outcome.value)):
        return trial.details
    best = {
        "rounds": outcome.run.rounds,
        "value": outcome.value,
        "metrics": dict(outcome.metrics),
        "model": outcome.run.model_sha256.hex(),
    }
    return {**trial.details, BEST_FINAL_ROUND: best}


def as_delivered(trial: TrialRecord) -> TrialRecord:
    """The trial with the model and the metrics of its best final round; as it is when it had none.

    What is beside the model is the last round's, and is left out.
    """
    best = trial.details.get(BEST_FINAL_ROUND)
    if not best or bytes.fromhex(best["model"]) == trial.model_sha256:
        return trial
    return replace(
        trial, metrics=trial.metrics_delivered, model_sha256=bytes.fromhex(best["model"]), optimizer_sha256=b""
    )
