"""Records as rows and back. What a client counted is bounded here: it may say anything."""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from fedstep.common.errors import DataLossError
from fedstep.common.spec import StudySpec
from fedstep.server.storage.base import (
    AssignmentRecord,
    ClientRecord,
    Event,
    NewEvent,
    PaceRecord,
    RoundRecord,
    Spent,
    Steps,
    StudyRecord,
    StudyResult,
    StudyState,
    TrialRecord,
    TrialState,
)
from fedstep.server.storage.costs import ArmCost, Overhead
from fedstep.server.storage.schema import (
    AssignmentRow,
    ClientRow,
    CostRow,
    EventRow,
    PaceRow,
    RoundRow,
    StepsRow,
    StudyRow,
    TrialRow,
)

_MOST = 2**63 - 1
Columns = dict[str, Any]
"""The values of a row, by column, as an INSERT takes them."""


def spec_to_json(spec: StudySpec) -> Columns:
    """The specification in JSON types, exact: its own JSON rounds durations to six digits."""
    plain: Columns = _seconds(spec.model_dump(mode="python"))
    return plain


def study_record(row: StudyRow) -> StudyRecord:
    """A study.

    Raises:
        DataLossError: Its specification cannot be read by this fedstep.
    """
    try:
        spec = StudySpec.model_validate(row.spec)
    except ValidationError as error:
        problem = error.errors()[0]
        raise DataLossError(
            f"The specification of the study {row.name} in the database cannot be read "
            f"({'.'.join(map(str, problem['loc']))}: {problem['msg']}): open it with the fedstep that made it."
        ) from error
    return StudyRecord(
        spec=spec,
        state=StudyState(row.state),
        created_at=row.created_at,
        updated_at=row.updated_at,
        message=row.message,
        tuner_state=row.tuner_state,
        seconds_spent=row.seconds_spent,
        spent=Spent(row.rounds_spent, row.client_rounds_spent, row.bytes_spent),
        result=None if row.result is None else _result(row.result),
    )


def result_to_json(result: StudyResult) -> Columns:
    """What a study ended with, in JSON types."""
    return {
        "model_sha256": result.model_sha256.hex(),
        "metrics": dict(result.metrics),
        "held_out": result.held_out,
        "model_path": result.model_path,
        "picture_path": result.picture_path,
        "report_path": result.report_path,
    }


def _result(value: Mapping[str, Any]) -> StudyResult:
    return StudyResult(
        model_sha256=bytes.fromhex(value["model_sha256"]),
        metrics=dict(value["metrics"]),
        held_out=value["held_out"],
        model_path=value["model_path"],
        picture_path=value["picture_path"],
        report_path=value.get("report_path", ""),  # a result of an earlier version has none
    )


def trial_columns(study_id: int, trial: TrialRecord) -> Columns:
    """A trial's row."""
    return {
        "study_id": study_id,
        "number": trial.number,
        "state": trial.state.value,
        "hyperparameters": dict(trial.hyperparameters),
        "value_by_round": trial.values,
        "metrics": trial.metrics,
        "model_sha256": trial.model_sha256,
        "optimizer_sha256": trial.optimizer_sha256,
        "message": trial.message,
        "first_round": trial.first_round,
        "details": trial.details,
    }


def trial_record(row: TrialRow) -> TrialRecord:
    """A trial."""
    return TrialRecord(
        number=row.number,
        state=TrialState(row.state),
        hyperparameters=row.hyperparameters,
        values=tuple(row.value_by_round),
        metrics=row.metrics,
        model_sha256=row.model_sha256,
        optimizer_sha256=row.optimizer_sha256,
        message=row.message,
        first_round=row.first_round,
        details=row.details,
    )


def arm_cost(row: CostRow) -> ArmCost:
    """What a trial has cost."""
    return ArmCost(row.trial, row.rounds, row.client_rounds, row.payload_bytes, row.update_bytes, row.seconds)


def overhead(row: StudyRow) -> Overhead:
    """What the coordinator has spent on a study."""
    return Overhead(row.tuner_seconds, row.tuner_cpu_seconds, row.commit_seconds, row.cpu_seconds)


def round_columns(study_id: int, record: RoundRecord) -> Columns:
    """A round's row."""
    numbers = {"value": record.value, "train_loss": record.train_loss}
    nonfinite = {name: number for name, number in numbers.items() if number is not None and not math.isfinite(number)}
    return {
        "study_id": study_id,
        "trial": record.trial,
        "round": record.round,
        "attempts": record.attempts,
        "model_sha256": record.model_sha256,
        **{name: None if name in nonfinite else number for name, number in numbers.items()},
        "nonfinite": nonfinite,
        "metrics": record.metrics,
        "cohort": record.cohort,
        "updates": record.updates,
        "evaluators": record.evaluators,
        "seconds": record.seconds,
        "ended_at": record.ended_at,
        "payload_bytes": record.payload_bytes,
    }


def round_record(row: RoundRow) -> RoundRecord:
    """A round."""
    train_loss = row.nonfinite.get("train_loss", row.train_loss)
    return RoundRecord(
        trial=row.trial,
        round=row.round,
        attempts=row.attempts,
        model_sha256=row.model_sha256,
        value=row.nonfinite.get("value", row.value),
        metrics=row.metrics,
        train_loss=math.nan if train_loss is None else train_loss,
        cohort=tuple(row.cohort),
        updates=row.updates,
        evaluators=tuple(row.evaluators),
        seconds=row.seconds,
        ended_at=row.ended_at,
        payload_bytes=row.payload_bytes,
    )


def assignment_columns(study_id: int, record: AssignmentRecord) -> Columns:
    """An assignment's row, without its steps."""
    return {
        "assignment_id": record.assignment_id,
        "study_id": study_id,
        "trial": record.trial,
        "round": record.round,
        "attempt": record.attempt,
        "client": record.client,
        "work": record.work,
        "status": record.status,
        "message": record.message,
        "samples": min(record.samples, _MOST),
        "elapsed_s": record.elapsed_s,
        "payload_bytes": min(record.payload_bytes, _MOST),
        "metrics": record.metrics,
        "model_bytes": record.model_bytes,
    }


def steps_columns(assignment_id: str, steps: Steps) -> Columns:
    """The row of an assignment's steps.

    Raises:
        ValueError: Its columns differ in length.
    """
    if not len(steps.loss) == len(steps.samples) == len(steps.step_ms):
        raise ValueError(f"the steps of assignment {assignment_id} are columns that differ in length")
    return {
        "assignment_id": assignment_id,
        "steps": len(steps.loss),
        "loss": steps.loss,
        "samples": [int(count) for count in steps.samples],
        "step_ms": steps.step_ms,
    }


def assignment_record(row: AssignmentRow, steps: StepsRow | None) -> AssignmentRecord:
    """An assignment with its steps."""
    return AssignmentRecord(
        assignment_id=row.assignment_id,
        trial=row.trial,
        round=row.round,
        attempt=row.attempt,
        client=row.client,
        work=row.work,
        status=row.status,
        message=row.message,
        samples=row.samples,
        elapsed_s=row.elapsed_s,
        payload_bytes=row.payload_bytes,
        metrics=row.metrics,
        steps=None if steps is None else _steps(steps),
        model_bytes=row.model_bytes,
    )


def _steps(row: StepsRow) -> Steps:
    return Steps(loss=tuple(row.loss), samples=tuple(row.samples), step_ms=tuple(row.step_ms))


def event_columns(study_id: int, event: Event) -> Columns:
    """An event's row."""
    return {
        "number": event.number,
        "study_id": study_id,
        "time": event.time,
        "kind": event.kind,
        "text": event.text,
        "details": event.details,
    }


def numbered(event: NewEvent, number: int, committed_at: datetime) -> Event:
    """The event in its place."""
    return Event(event.kind, event.text, event.details, number, event.happened_at or committed_at)


def event_record(row: EventRow) -> Event:
    """An event."""
    return Event(kind=row.kind, text=row.text, details=row.details, number=row.number, time=row.time)


def client_columns(record: ClientRecord) -> Columns:
    """A client's row."""
    return {
        "name": record.name,
        "task": record.task,
        "device": record.device,
        "train_samples": min(record.train_samples, _MOST),
        "validation_samples": min(record.validation_samples, _MOST),
        "last_seen_at": record.last_seen_at,
        "updates_accepted": record.updates_accepted,
        "faults": record.faults,
    }


def client_record(row: ClientRow) -> ClientRecord:
    """A client."""
    return ClientRecord(
        name=row.name,
        task=row.task,
        device=row.device,
        train_samples=row.train_samples,
        validation_samples=row.validation_samples,
        last_seen_at=row.last_seen_at,
        updates_accepted=row.updates_accepted,
        faults=row.faults,
    )


def pace_columns(record: PaceRecord) -> Columns:
    """A pace's row."""
    return {"client": record.client, "pace": record.pace}


def pace_record(row: PaceRow) -> PaceRecord:
    """A pace."""
    return PaceRecord(row.client, row.pace)


def _seconds(value: Any) -> Any:
    match value:
        case timedelta():
            return value.total_seconds()
        case Mapping():
            return {key: _seconds(item) for key, item in value.items()}
        case list() | tuple():
            return [_seconds(item) for item in value]
        case _:
            return value
