"""Messages of the protocol as the records that the reports are written for."""

import math
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC
from typing import Any

from google.protobuf import json_format

from fedstep.api.values import whole
from fedstep.common import hyperparameters as hp
from fedstep.common.spec_proto import spec_from_proto
from fedstep.server.report.lineage import parents_of
from fedstep.server.report.participation import Share
from fedstep.server.storage.base import (
    BEST_FINAL_ROUND,
    Event,
    StudyRecord,
    StudyResult,
    StudyState,
    TrialRecord,
    TrialState,
)
from fedstep.v1 import study_pb2

_STUDY_STATES = {getattr(study_pb2, f"STUDY_STATE_{state.name}"): state for state in StudyState}
_STATES = {getattr(study_pb2, f"TRIAL_STATE_{state.name}"): state for state in TrialState}


def study_record(message: study_pb2.Study) -> StudyRecord:
    """A study as it stands; what it has spent and its tuner's state are not told."""
    result = message.result
    return StudyRecord(
        spec=spec_from_proto(message.spec),
        state=_STUDY_STATES[message.state],
        created_at=message.create_time.ToDatetime(tzinfo=UTC),
        updated_at=message.update_time.ToDatetime(tzinfo=UTC),
        message=message.message,
        result=StudyResult(
            model_sha256=result.model_sha256,
            metrics=dict(result.metrics),
            held_out=result.held_out,
            model_path=result.model_path,
            picture_path=result.picture_path,
            report_path=result.report_path,
        )
        if message.HasField("result")
        else None,
    )


def share(message: study_pb2.ClientPart) -> Share:
    """A client's part in a study; of the losses on its data their mean is told."""
    losses = [message.relative_loss] if message.HasField("relative_loss") else []
    lacking = message.taken - message.work
    return Share(message.client_name, message.asked, message.taken, message.missed, losses, lacking)


def trial_records(trials: Iterable[study_pb2.Trial]) -> dict[int, TrialRecord]:
    """A study's trials by number, with the rounds that were behind each one's model when it began."""
    records: dict[int, TrialRecord] = {}
    for message in sorted(trials, key=lambda trial: trial.number):
        record = _trial(message)
        parents = [records[number] for number in parents_of(record) if number in records]
        records[record.number] = replace(record, first_round=parents[0].rounds_behind if parents else 0)
    return records


def _trial(message: study_pb2.Trial) -> TrialRecord:
    details: dict[str, Any] = {"parents": list(message.parents)} if message.parents else {}
    if message.phase:
        details["phase"] = message.phase
    if message.cohort:
        details["cohort"] = message.cohort
    if message.discarded:
        details["discard"] = True
    if message.rounds_delivered:
        details |= {"delivered": True, BEST_FINAL_ROUND: {"rounds": message.rounds_delivered}}
    if details and not message.rounds and message.HasField("value"):  # it was measured only
        details |= {"rounds": 0, "value": message.value}
    return TrialRecord(
        number=message.number,
        state=_STATES[message.state],
        hyperparameters=dict(sorted(hp.map_from_proto(message.hyperparameters).items())),
        values=tuple(None if math.isnan(value) else value for value in message.values),
        metrics=dict(message.metrics),
        message=message.message,
        details=details,
    )


def event_record(message: study_pb2.StudyEvent) -> Event:
    """An event; whole numbers among its details are whole again."""
    details = whole(json_format.MessageToDict(message.details))
    return Event(message.kind, message.text, details, message.number, message.time.ToDatetime(tzinfo=UTC))
