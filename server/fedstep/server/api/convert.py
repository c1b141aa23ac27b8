"""Records of the store as messages of the protocol."""

import math
from collections.abc import Sequence
from typing import Any

from google.protobuf import struct_pb2

from fedstep.common import hyperparameters as hp
from fedstep.common.spec_proto import spec_to_proto
from fedstep.server.coordination.fleet import Member, State
from fedstep.server.coordination.studies import StudyView
from fedstep.server.report.participation import LISTED, Group, Share, groups, left_out, participation_text
from fedstep.server.selection.pace import Known
from fedstep.server.storage.base import AssignmentRecord, ClientRecord, Event, StudyState, TrialRecord, TrialState
from fedstep.v1 import fleet_pb2, study_pb2

MOST_CLIENTS = 10_000
"""Of a study with more, only those left out are told one by one: a message is to stay under 4 MB."""

_STUDY_STATES = {state: getattr(study_pb2, f"STUDY_STATE_{state.name}") for state in StudyState}
_TRIAL_STATES = {state: getattr(study_pb2, f"TRIAL_STATE_{state.name}") for state in TrialState}


def study(view: StudyView, database_url: str) -> study_pb2.Study:
    """A study as it stands."""
    record = view.record
    message = study_pb2.Study(
        spec=spec_to_proto(record.spec),
        state=_STUDY_STATES[record.state],
        trials_finished=sum(t.state is not TrialState.RUNNING for t in view.trials),
        rounds_committed=sum(t.rounds for t in view.trials),
        message=record.message,
    )
    message.create_time.FromDatetime(record.created_at)
    message.update_time.FromDatetime(record.updated_at)
    if view.best is not None:
        message.best_trial.CopyFrom(trial(view.best))
    if record.result is not None:
        message.result.CopyFrom(
            study_pb2.StudyResult(
                model_sha256=record.result.model_sha256,
                metrics=record.result.metrics,
                held_out=record.result.held_out,
                model_path=record.result.model_path,
                picture_path=record.result.picture_path,
                database_url=database_url,
                report_path=record.result.report_path,
            )
        )
    return message


def trial(record: TrialRecord) -> study_pb2.Trial:
    """A trial as it stands."""
    return study_pb2.Trial(
        number=record.number,
        state=_TRIAL_STATES[record.state],
        hyperparameters=hp.map_to_proto(record.hyperparameters),
        rounds=record.rounds,
        value=record.value_delivered,
        metrics=record.metrics_delivered,
        message=record.message,
        values=[math.nan if value is None else value for value in record.values],
        parents=record.details.get("parents", ()),
        phase=record.details.get("phase", ""),
        cohort=record.details.get("cohort", 0),
        discarded=record.details.get("discard", False),
        rounds_delivered=record.rounds_delivered if record.details.get("delivered") else 0,
    )


def event(record: Event) -> study_pb2.StudyEvent:
    """An event in its place."""
    details = struct_pb2.Struct()
    details.update(_json(record.details))
    message = study_pb2.StudyEvent(number=record.number, kind=record.kind, text=record.text, details=details)
    message.time.FromDatetime(record.time)
    return message


def _json(value: Any) -> Any:
    """JSON has no nan and no tuples."""
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def steps(record: AssignmentRecord) -> study_pb2.ListStepsResponse:
    """The local steps of an assignment."""
    found = record.steps
    return study_pb2.ListStepsResponse(
        trial=record.trial,
        round=record.round,
        client_name=record.client,
        steps=fleet_pb2.StepReport(
            ref=fleet_pb2.AssignmentRef(assignment_id=record.assignment_id.rpartition("/")[0], attempt=record.attempt),
            loss=found.loss if found else (),
            samples=found.samples if found else (),
            step_ms=found.step_ms if found else (),
        ),
    )


def participation(shares: Sequence[Share]) -> study_pb2.Participation:
    """Who took part in a study."""
    theirs, others = groups(shares)
    return study_pb2.Participation(
        text=participation_text(shares),
        left_out=_group(theirs),
        others=_group(others),
        clients_left_out=map(_part, left_out(shares)[:LISTED]),
        clients=map(_part, shares if len(shares) <= MOST_CLIENTS else ()),
    )


def _part(share: Share) -> study_pb2.ClientPart:
    return study_pb2.ClientPart(
        client_name=share.client,
        asked=share.asked,
        taken=share.taken,
        missed=share.missed,
        work=share.work,
        relative_loss=share.relative_loss,
    )


def _group(group: Group) -> study_pb2.ClientGroup:
    return study_pb2.ClientGroup(
        clients=group.clients,
        asked=group.asked,
        taken=group.taken,
        missed=group.missed,
        work=group.work,
        relative_loss=group.relative_loss,
    )


def client(record: ClientRecord, member: Member | None, pace: Known) -> study_pb2.Client:
    """A client as it is known; `member` when it has been heard of in this life of the coordinator."""
    message = study_pb2.Client(
        name=record.name,
        state=_client_state(member),
        task=record.task,
        device=record.device,
        train_samples=record.train_samples,
        validation_samples=record.validation_samples,
        updates_accepted=record.updates_accepted,
        faults=record.faults,
        message=member.message if member else "",
        drained=member.drained if member else False,
    )
    message.last_seen_time.FromDatetime(record.last_seen_at)
    if pace != Known():
        message.pace.batch_size, message.pace.step_ms = pace.batch_size, pace.step_ms
        message.pace.download_bytes_per_second = pace.download_bytes_per_s
        message.pace.upload_bytes_per_second = pace.upload_bytes_per_s
    return message


def _client_state(member: Member | None) -> study_pb2.ClientState.ValueType:
    state = State.GONE if member is None else member.state
    return study_pb2.ClientState.Value(f"CLIENT_STATE_{state.name}")
