"""What a study's events say: one sentence for people, the same facts for programs."""

import math
from collections.abc import Iterable, Mapping, Sequence

from fedstep.common.hyperparameters import describe
from fedstep.common.phrases import count_text
from fedstep.common.spec import StudySpec
from fedstep.server.coordination.intake import TakenLate
from fedstep.server.coordination.ledger import OpenAssignment, Status
from fedstep.server.coordination.trained import Trained
from fedstep.server.coordination.versions import versions
from fedstep.server.report.progress import plan_text
from fedstep.server.report.units import seconds_text
from fedstep.server.report.words import names_text
from fedstep.server.storage.base import BEST_FINAL_ROUND, NewEvent, RoundRecord, StudyResult, TrialRecord, TrialState
from fedstep.server.tuning.base import Note

LATE_UPDATE = "late_update_taken"
USED_UP, WAS_STOPPED = "the study's budget is used up", "the study was stopped"
"""Why a trial ends that did nothing wrong."""


def metrics_text(metrics: Mapping[str, float]) -> str:
    """Metrics in one line."""
    return ", ".join(f"{name} {value:.4f}" for name, value in sorted(metrics.items())) or "no metrics"


def study_started(spec: StudySpec, resumed_rounds: int) -> NewEvent:
    """A study begins, or goes on."""
    if resumed_rounds:
        return NewEvent(
            "study_resumed",
            f"Study {spec.name} goes on after {resumed_rounds} committed round{'s'[: resumed_rounds != 1]}.",
            {"rounds": resumed_rounds, "versions": versions()},
        )
    budget = spec.budget
    return NewEvent(
        "study_started",
        f"Study {spec.name}: {plan_text(spec)}, tuned by {spec.tuner.name}.",
        {
            "trials": budget.trials,
            "rounds_per_trial": budget.rounds_per_trial,
            "tuner": spec.tuner.name,
            "versions": versions(),
        },
    )


def trial_started(trial: TrialRecord) -> NewEvent:
    """A trial begins, or an arm that goes on from others."""
    parents = [int(number) for number in trial.details.get("parents", ())]
    points = len(trial.details.get("points", ()))
    told: dict[str, object] = {"trial": trial.number, "hyperparameters": dict(trial.hyperparameters)}
    told |= {key: trial.details[key] for key in ("parents", "phase", "rounds") if key in trial.details}
    come_from = f" from {joined(parents)}" if len(parents) == 1 else f" of {joined(parents)}" if parents else ""
    if trial.details.get("rounds") == 0:
        what = "only measured"
    elif points:
        what = f"{points} configurations, dealt to its clients"
    else:
        what = describe(trial.hyperparameters) or "the defaults"
    return NewEvent("trial_started", f"{title(trial)}{come_from}: {what}.", told)


def delivery(trial: TrialRecord, rounds: int, result: StudyResult) -> str:
    """What a study ends with, in a few words."""
    return f"{title(trial)} after {count_text(rounds, 'round')}, {_measured(result)}"


def _measured(result: StudyResult) -> str:
    where = "the held-out set" if result.held_out else "the evaluation cohort"
    return f"on {where}: {metrics_text(result.metrics)}"


def title(trial: TrialRecord) -> str:
    """What a trial is called: by what it is for, where its tuner says so in a word."""
    phase = str(trial.details.get("phase", ""))
    if phase.isalpha():
        return f"{phase.capitalize()} {trial.number}"
    return f"Trial {trial.number} ({phase})" if phase else f"Trial {trial.number}"


def joined(numbers: Sequence[int]) -> str:
    """Numbers in words: 1, 2 and 3."""
    *rest, last = map(str, numbers)
    return f"{', '.join(rest)} and {last}" if rest else last


def round_committed(spec: StudySpec, record: RoundRecord) -> NewEvent:
    """A round is done and will not be lost."""
    metric = spec.objective.metric
    # Either nobody could measure it, or nobody was asked to.
    value = f"no {metric} measured" if record.value is None else f"{metric} {record.value:.4f}"
    partial, late = (int(record.metrics.get(name, 0)) for name in ("partial_updates", "late_updates"))
    updates = f"{record.updates} updates{f' ({partial} partial)' * bool(partial)}{f' and {late} late' * bool(late)}"
    if staleness := record.metrics.get("staleness"):
        updates += f" {staleness:.1f} rounds old on average"
    return NewEvent(
        "round_committed",
        f"Trial {record.trial} round {record.round}: {value}, {updates}, {record.seconds:.2f} s.",
        {
            "trial": record.trial,
            "round": record.round,
            "value": record.value,
            "metrics": record.metrics,
            "updates": record.updates,
            "evaluators": len(record.evaluators),
            "seconds": record.seconds,
        },
    )


def decision(note: Note) -> NewEvent:
    """What a tuner decided, and why."""
    return NewEvent(note.kind, note.text, dict(note.details))


def round_missed(trial: int, number: int, trained: Trained) -> NewEvent:
    """A round brought too few updates and is tried again."""
    attempt, updates, quorum = trained.attempt, len(trained.accepted), trained.quorum
    return NewEvent(
        "round_missed",
        f"Round {number} of trial {trial}, attempt {attempt}: {updates} updates where {quorum} are the quorum "
        f"({reasons(trained.faults)}).",
        {"trial": trial, "round": number, "attempt": attempt, "updates": updates, "quorum": quorum},
    )


def round_unmeasured(trial: int, number: int, again: bool) -> NewEvent:
    """A round was trained, and then nobody was there to measure it; it is trained again unless the study is over."""
    then = "it is trained again" if again else "the study is over"
    text = f"Round {number} of trial {trial} was trained and could not be measured: {then}."
    return NewEvent("round_unmeasured", text, {"trial": trial, "round": number})


def client_faults(trial: int, number: int, faults: Sequence[OpenAssignment]) -> list[NewEvent]:
    """One event for every client whose work came to nothing, and why."""
    return [_fault(a, trial, number, a.standing, a.called, a.note) for a in faults]


def _fault(a: OpenAssignment, trial: int, number: int, status: Status, called: str, why: str) -> NewEvent:
    name = a.member.name
    return NewEvent(
        f"client_{status.value}",
        f"{name} in round {number} of trial {trial}: {called} {status.value}, {why.removesuffix('.')}.",
        {"client": name, "trial": trial, "round": number, "work": a.work, "reason": why},
    )


def late_work_lost(assignment: OpenAssignment, why: str) -> NewEvent:
    """A client whose round was over while it worked on is gone: its update will not come."""
    message = assignment.message
    return _fault(assignment, message.trial, message.round, Status.LOST, "late training", why)


def waits_for_turns(trial: int, number: int, names: Sequence[str]) -> NewEvent:
    """A round that waits for clients that the faster ones would leave behind."""
    names = sorted(names)
    whose = "its turn" if len(names) == 1 else "their turn"
    text = f"Round {number} of trial {trial} waits for {names_text(names)}: it is {whose}, however slow."
    return NewEvent("round_waits_for_turns", text, {"trial": trial, "round": number, "clients": names})


def told_to_send(assignment: OpenAssignment, finish_s: float, due_s: float, end_s: float) -> NewEvent:
    """A client will miss the end of its round, or its update the margin before it: it is told to send what it has."""
    if math.isinf(finish_s):
        why = "has told of no step yet"
    else:
        why = f"would be done after {seconds_text(finish_s)}, and should be after {seconds_text(due_s)}"
    message = assignment.message
    text = (
        f"{assignment.member.name} in round {message.round} of trial {message.trial} {why}: the round ends after "
        f"{seconds_text(end_s)}, so it is told to send what it has."
    )
    told = {
        "client": assignment.member.name,
        "trial": message.trial,
        "round": message.round,
        "steps": len(assignment.log.loss),
        "steps_due": assignment.plan.steps,
        "projected_finish_s": None if math.isinf(finish_s) else finish_s,
        "due_s": due_s,
        "deadline_s": end_s,
    }
    return NewEvent("client_told_to_send", text, told)


def ended_early(left: Sequence[OpenAssignment], accepted: int, now_s: float) -> NewEvent:
    """A round whose clients nobody knew yet is over: those that are left are far slower."""
    names = [assignment.member.name for assignment in left]
    text = (
        f"{accepted} updates are there after {seconds_text(now_s)}, and {names_text(names)} would take far longer: the "
        "round ends, and they send what they have."
    )
    message = left[0].message
    told = {"trial": message.trial, "round": message.round, "updates": accepted, "seconds": now_s, "left": names}
    return NewEvent("round_ended_early", text, told)


def put_off(served: Sequence[OpenAssignment], before_s: float, end_s: float) -> NewEvent:
    """A round is put off for the clients that will be done by its new end, and would not be by the old one."""
    names, message = [assignment.member.name for assignment in served], served[0].message
    text = (
        f"Round {message.round} of trial {message.trial} is put off from {seconds_text(before_s)} to "
        f"{seconds_text(end_s)}, when {names_text(names)} will be done."
    )
    told = {"trial": message.trial, "round": message.round, "clients": names, "before_s": before_s}
    return NewEvent("round_put_off", text, {**told, "deadline_s": end_s})


def late_update(taken: TakenLate) -> NewEvent:
    """A late update was of use."""
    whole = "" if taken.part == 1 else f", with {taken.part:.0%} of its steps"
    text = (
        f"{taken.client}'s update of round {taken.made_in} of trial {taken.trial} came late{whole}: it counts in round "
        f"{taken.taken_in}, at {taken.discount:.2f} of its weight."
    )
    told = {"client": taken.client, "trial": taken.trial, "round": taken.taken_in, "made_in": taken.made_in}
    weighed = {"staleness": taken.staleness, "discount": taken.discount, "part": taken.part}
    return NewEvent(LATE_UPDATE, text, {**told, **weighed})


def taken_late(events: Iterable[NewEvent]) -> list[TakenLate]:
    """The late updates that these events tell of, as `late_update` told them."""
    told = (event.details for event in events if event.kind == LATE_UPDATE)
    return [
        TakenLate(said["client"], said["trial"], said["made_in"], said["round"], said.get("part", 1.0)) for said in told
    ]


def going_on(assignments: Sequence[OpenAssignment], reason: str) -> list[NewEvent]:
    """Clients that the end of their round does not stop: one event for all of them."""
    if not assignments:
        return []
    names, message = [a.member.name for a in assignments], assignments[0].message
    go_on = "goes on, and its update is" if len(names) == 1 else "go on, and their updates are"
    text = (
        f"Round {message.round} of trial {message.trial}: {reason}; {names_text(names)} {go_on} still taken, "
        "at a discount."
    )
    told = {"trial": message.trial, "round": message.round, "clients": names, "reason": reason}
    return [NewEvent("clients_go_on", text, told)]


def dismissed(assignments: Sequence[OpenAssignment], reason: str, round: int) -> list[NewEvent]:
    """Clients whose work nobody will use: one event for all of them."""
    if not assignments:
        return []
    names, trial = [a.member.name for a in assignments], assignments[0].message.trial
    text = f"Round {round} of trial {trial}: {reason}; told to stop: {names_text(names)}."
    told = {"trial": trial, "round": round, "clients": names, "reason": reason}
    return [NewEvent("clients_told_to_stop", text, told)]


def divergence(diverged: Sequence[OpenAssignment], asked: int) -> str:
    """Why a trial fails whose clients' training ran away."""
    first = diverged[0]
    return f"training diverged on {len(diverged)} of {asked} clients; {first.member.name}: {first.note}"


def reasons(faults: Sequence[OpenAssignment]) -> str:
    """Why clients' work came to nothing, the first three reasons, each with whose it is."""
    whose: dict[str, dict[str, None]] = {}
    for fault in faults:
        whose.setdefault(fault.note.removesuffix("."), {})[fault.member.name] = None
    return "; ".join(f"{names_text([*whose[note]])}: {note}" for note in [*whose][:3]) or "nobody answered"


def trial_ended(spec: StudySpec, trial: TrialRecord) -> NewEvent:
    """A trial is over."""
    value = "" if trial.value is None else f" at {spec.objective.metric} {trial.value:.4f}"
    how = {
        TrialState.COMPLETED: "is complete",
        TrialState.PRUNED: "is pruned",
        TrialState.FAILED: "failed",
    }[trial.state]
    if trial.message in (USED_UP, WAS_STOPPED):
        how = "is cut off"
    why = f": {trial.message.removesuffix('.')}" if trial.message else ""
    after = f" after {count_text(trial.rounds, 'round')}"
    if trial.state is TrialState.FAILED:
        value = ""
    elif trial.details.get("rounds") == 0:
        how, after = "is measured", ""
    return NewEvent(
        f"trial_{trial.state.value}",
        f"{title(trial)} {how}{value}{after}{why}.",
        {"trial": trial.number, "value": trial.value, "rounds": trial.rounds, "message": trial.message},
    )


def final_rounds(trial: TrialRecord, rounds: int) -> NewEvent:
    """The best trial's model is trained on."""
    return NewEvent(
        "final_rounds",
        f"Trial {trial.number} is the best; its model is trained on for {count_text(rounds, 'round')}.",
        {"trial": trial.number, "rounds": rounds},
    )


def best_final_round(spec: StudySpec, trial: TrialRecord) -> NewEvent:
    """A final round before the last measured best."""
    best, metric = trial.details[BEST_FINAL_ROUND], spec.objective.metric
    last = "no value" if trial.value is None else f"{trial.value:.4f}"
    return NewEvent(
        "best_final_round",
        f"Of the final rounds of trial {trial.number} round {best['rounds'] - 1} measured best: the model after its "
        f"{best['rounds']} rounds is delivered ({metric} {best['value']:.4f}), not the last one ({last}).",
        {"trial": trial.number, "round": best["rounds"] - 1, "value": best["value"], "last_value": trial.value},
    )


def study_ended(state: str, best: TrialRecord, result: StudyResult, lag_p99_ms: float, lag_max_ms: float) -> NewEvent:
    """A study has its result."""
    return NewEvent(
        f"study_{state}",
        f"Study {state}: best trial {best.number} ({describe(best.hyperparameters) or 'the defaults'}); "
        f"final model {_measured(result)}. Event loop lag p99 {lag_p99_ms:.1f} ms.",
        {
            "trial": best.number,
            "hyperparameters": dict(best.hyperparameters),
            "metrics": result.metrics,
            "held_out": result.held_out,
            "model_path": result.model_path,
            "picture_path": result.picture_path,
            "report_path": result.report_path,
            "loop_lag_ms_p99": lag_p99_ms,
            "loop_lag_ms_max": lag_max_ms,
        },
    )
