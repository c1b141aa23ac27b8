"""A study at one moment as a message: what the coordinator has of it in memory."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import timedelta

import numpy as np

from fedstep.common import hyperparameters as hp
from fedstep.common.spec import StudySpec
from fedstep.server.coordination.arms import arm_of
from fedstep.server.coordination.engine import RunEngine
from fedstep.server.coordination.forecast import TimeLeft, forecast, limits_of, rounds_to_come
from fedstep.server.coordination.ledger import OpenAssignment, Status
from fedstep.server.coordination.parts import Parts
from fedstep.server.coordination.projection import REPORTS
from fedstep.server.coordination.steering import progress_of
from fedstep.server.coordination.studies import StudyView
from fedstep.server.coordination.study import StudyRunner
from fedstep.server.coordination.trained import FAULTS
from fedstep.server.coordination.under_way import Kind, UnderWay
from fedstep.server.report.progress import by_trials, trains_trials
from fedstep.server.storage.base import Spent, StudyState, TrialRecord, TrialState
from fedstep.v1 import progress_pb2 as pb

MOST_CLIENTS = 100
MOST_ARMS = 40
MOST_POINTS = 24

_KINDS = {
    Kind.TRAIN: pb.PHASE_KIND_TRAIN,
    Kind.MEASURE: pb.PHASE_KIND_MEASURE,
    Kind.BUFFER: pb.PHASE_KIND_BUFFER,
}


def running(runner: StudyRunner, parts: Parts) -> pb.Snapshot:
    """A study that is run at this moment."""
    now_s = parts.clock.monotonic()
    trials = [*runner.trials.values()]
    state = StudyState.PAUSING if runner.pausing and runner.state is not StudyState.STOPPING else runner.state
    snapshot = _study(runner.spec, state.value, trials, runner.best() if runner.begun else None, parts)
    phases = [_phase(found, runner.engine, now_s) for found in runner.engine.under_way()]
    snapshot.phases.extend(phases)
    open_work = parts.ledger.under_way()
    snapshot.late = sum(work.late and work.message.study == runner.spec.name for work in open_work)
    snapshot.fleet.for_study = runner.engine.eligible.count()
    snapshot.spent.extend(_spent(runner.spec, runner.commits.spent, runner.account.seconds, trials))
    left = forecast(runner.spec, runner.account, trials, now_s)
    if left is not None:
        snapshot.time_left.CopyFrom(_time_left(left))
    return snapshot


def at_rest(view: StudyView, parts: Parts) -> pb.Snapshot:
    """A study that nothing runs: as it was left."""
    record = view.record
    snapshot = _study(record.spec, record.state.value, view.trials, view.best, parts)
    snapshot.spent.extend(_spent(record.spec, record.spent, record.seconds_spent, view.trials))
    return snapshot


def _study(
    spec: StudySpec, state: str, trials: Sequence[TrialRecord], best: TrialRecord | None, parts: Parts
) -> pb.Snapshot:
    snapshot = pb.Snapshot(
        study=spec.name,
        state=state,
        task=spec.task,
        tuner=spec.tuner.name,
        metric=spec.objective.metric,
        by_trials=by_trials(spec),
        fleet=_fleet(spec, parts),
        arms=[_arm(trial, spec) for trial in _shown(trials)],
        arm_count=len(trials),
        best=_arm(best, spec) if best is not None else None,
    )
    snapshot.time.FromDatetime(parts.clock.now())
    return snapshot


def _fleet(spec: StudySpec, parts: Parts) -> pb.FleetProgress:
    roll, count = parts.fleet.roll, len(parts.fleet.roll)
    return pb.FleetProgress(
        connected=int(np.count_nonzero(roll.connected[:count])),
        working=len({work.member.name for work in parts.ledger.under_way() if work.member.connected}),
        lost_touch=int(np.count_nonzero(roll.lost_touch[:count])),
        needed=spec.round.min_clients,
    )


# trials and arms --------------------------------------------------------------------------------------------------


def _shown(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Those under way, and the newest others."""
    under_way = [trial for trial in trials if trial.state is TrialState.RUNNING][:MOST_ARMS]
    ended = [trial for trial in trials if trial.state is not TrialState.RUNNING]
    newest = ended[-(MOST_ARMS - len(under_way)) :] if len(under_way) < MOST_ARMS else []
    return sorted([*under_way, *newest], key=lambda trial: trial.number)


def _arm(trial: TrialRecord, spec: StudySpec) -> pb.ArmProgress:
    arm = arm_of(trial)
    return pb.ArmProgress(
        number=trial.number,
        state=trial.state.value,
        phase=arm.phase,
        parents=arm.parents,
        hyperparameters=hp.map_to_proto(trial.hyperparameters),
        rounds=trial.rounds,
        rounds_asked=_rounds_of_trial(trial, spec) if arm.rounds is None else arm.rounds,
        value=trial.value_delivered,
        values=[math.nan if value is None else value for value in trial.values[-MOST_POINTS:]],
    )


def _rounds_of_trial(trial: TrialRecord, spec: StudySpec) -> int:
    """Those of any, and of the one that is trained on at the end the final ones, too."""
    rounds = spec.budget.rounds_per_trial
    return rounds + spec.budget.final_rounds * (trial.rounds > rounds)


# what is spent ----------------------------------------------------------------------------------------------------


def _spent(spec: StudySpec, spent: Spent, seconds: float, trials: Sequence[TrialRecord]) -> list[pb.BudgetUse]:
    limits = limits_of(spec)
    if spec.budget.time is not None:
        limits["seconds"] = spec.budget.time.total_seconds()
    if by_trials(spec):
        limits["rounds"] = spent.rounds + rounds_to_come(spec, trials).most
    amounts: dict[str, float] = {field.name: getattr(spent, field.name) for field in fields(Spent)}
    amounts["seconds"] = seconds
    if trains_trials(spec):
        limits["trials"] = spec.budget.trials
        amounts["trials"] = sum(trial.state is not TrialState.RUNNING for trial in trials)
    return [pb.BudgetUse(kind=kind, spent=amount, limit=limits.get(kind, 0)) for kind, amount in amounts.items()]


def _time_left(left: TimeLeft) -> pb.TimeLeft:
    message = pb.TimeLeft()
    message.about.FromTimedelta(timedelta(seconds=left.about_s))
    message.least.FromTimedelta(timedelta(seconds=left.least_s))
    message.most.FromTimedelta(timedelta(seconds=left.most_s))
    return message


# what clients do --------------------------------------------------------------------------------------------------


def _phase(found: UnderWay, engine: RunEngine, now_s: float) -> pb.PhaseProgress:
    message = pb.PhaseProgress(
        kind=_KINDS[found.kind],
        trial=found.trial,
        round=found.round,
        attempt=found.attempt,
        wanted=found.wanted,
        taken=found.taken,
        asked=len(found.assignments),
        failed=sum(work.standing in FAULTS for work in found.assignments),
    )
    message.elapsed.FromTimedelta(timedelta(seconds=max(0.0, now_s - found.began_at)))
    message.deadline.FromTimedelta(timedelta(seconds=found.end_s))
    told = [work.log.loss for work in found.assignments if work.log.loss]
    if told:
        message.first_loss = _mean(loss[0] for loss in told)
        message.loss = _mean(loss[-1] for loss in told)
    patience_s = found.end_s / REPORTS
    finishes = [(_finish_s(work, engine, now_s, patience_s), work) for work in found.assignments]
    # Those that are not done first; of these the slowest, and of no known pace, first.
    slowest = sorted(finishes, key=lambda pair: (pair[1].status.ended, -pair[0]))[:MOST_CLIENTS]
    message.clients.extend(_client(work, finish_s) for finish_s, work in slowest)
    return message


def _mean(values: Iterable[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _finish_s(work: OpenAssignment, engine: RunEngine, now_s: float, patience_s: float) -> float:
    """When its answer came, or would come; infinite where that is not known."""
    if work.status.ended:
        return work.elapsed_s
    if not work.is_training:
        return math.inf
    return progress_of(work).finish_s(now_s - work.sent_at, patience_s) + engine.upload_s(work)


def _client(work: OpenAssignment, finish_s: float) -> pb.ClientProgress:
    progress = progress_of(work)
    message = pb.ClientProgress(
        client_name=work.member.name,
        state=_state(work),
        lost_touch=not work.member.connected,
        losses=_points(work.log.loss),
        message=work.note if work.standing in FAULTS else "",
    )
    if work.is_training:
        message.steps, message.steps_asked = progress.done, progress.steps
        message.step_ms = 0.0 if math.isnan(progress.step_s) else 1000 * progress.step_s
    if math.isfinite(finish_s):
        message.finish.FromTimedelta(timedelta(seconds=finish_s))
    return message


def _state(work: OpenAssignment) -> pb.WorkState.ValueType:
    if work.standing is Status.ACCEPTED:
        return pb.WORK_STATE_DONE
    if work.status.ended or work.late:
        return pb.WORK_STATE_FAILED
    if not work.is_training:
        return pb.WORK_STATE_MEASURING
    if len(work.log.loss) >= work.plan.steps:
        return pb.WORK_STATE_SENDING
    if work.told:
        return pb.WORK_STATE_TOLD_TO_SEND
    return pb.WORK_STATE_TRAINING if work.log.loss else pb.WORK_STATE_BEGINNING


def _points(losses: Sequence[float]) -> list[float]:
    """At most `MOST_POINTS`, each the mean of equally many."""
    values = np.array(losses, np.float32)
    if len(values) <= MOST_POINTS:
        found: list[float] = values.tolist()
        return found
    edges = np.linspace(0, len(values), MOST_POINTS + 1).astype(np.intp)
    return [float(values[low:high].mean()) for low, high in itertools.pairwise(edges)]
