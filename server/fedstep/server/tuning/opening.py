"""Phases 0 and 1 of the step-wise tuner: the probe, and the screen that finds its first incumbent."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fedstep.common.hyperparameters import Hyperparameters, describe
from fedstep.server.tuning.base import Arm, Cost
from fedstep.server.tuning.lineage import Line, Phases, sobol_points
from fedstep.server.tuning.paired import Evidence, compare, compare_priced, mean_losses, surely_better
from fedstep.server.tuning.program import Part, Result
from fedstep.server.tuning.stepwise_settings import StepwiseSettings
from fedstep.server.tuning.window import Window, has_diverged, learnt_window

_PROBE_SEED = 0
_SCREEN_SEED = 1
_DRAWN = 256


@dataclass(frozen=True)
class ScreenPlan:
    """How the screen spends its share.

    Attributes:
        members: Configurations.
        rungs: Rounds of each rung.
        decides: Whether the last rung is one between the best and the default only.
    """

    members: int
    rungs: tuple[int, ...]
    decides: bool = False


@dataclass(frozen=True)
class Member:
    """A configuration in the screen.

    Attributes:
        line: As far as it was trained.
        scores: What it was ranked by, rung by rung; less is better, None where it failed.
        result: Of its last rung, its losses those that it is ranked by.
        cost: Of all its rungs.
    """

    line: Line
    scores: tuple[float | None, ...] = ()
    result: Result | None = None
    cost: Cost = field(default_factory=Cost)


def probe(phases: Phases) -> Part[Window]:
    """Phase 0: many clients take a few steps at many points, and what they tell limits the space."""
    settings, tuner, scales = phases.settings, phases.tuner, phases.scales
    open_window = Window(server_lr=(settings.least_server_lr, settings.most_server_lr))
    clients = int(min(settings.probe_clients, phases.meter.clients_for(settings.probe_share)))
    small = clients < settings.probe_least or phases.meter.rounds_in_all < settings.probe_from_rounds
    if not settings.use_probe or "lr" not in scales.space or small:
        return open_window
    points = sobol_points(scales.space, clients, [tuner.spec.seed, _PROBE_SEED])
    # Every client takes all the steps, however few epochs its point has: gains are compared.
    asked = tuner.arm(
        points[0],
        rounds=1,
        phase="probe",
        points=tuple({**point, "local_epochs": settings.probe_steps} for point in points),
        max_steps=settings.probe_steps,
        discard=True,
        clients=clients,
        every_round=False,
        measured=False,
    )
    (told,) = yield from phases.train(asked)
    reports = [report for report in told.clients if report.losses or report.diverged]
    if told.failed or not reports:
        why = told.failed.rstrip(".") or "no client told of a step"
        tuner.note("window", f"The probe gave nothing, so all of the space is searched: {why}.", arms=[0])
        return open_window
    window = learnt_window(points, reports, scales, settings)
    _tell_window(phases, window, asked, sum(has_diverged(report, settings) for report in reports), len(reports))
    outcomes = [(points[report.point], [report.losses[-1] if report.losses else None], False) for report in reports]
    phases.substudies.members("probe", outcomes, phase="probe")
    return window


def plan_screen(rounds: int, settings: StepwiseSettings) -> ScreenPlan | None:
    """The largest screen that so many rounds pay for, of all the budget; None for none. The default stays in it.

    Members count more than the length of their rungs: a screen of five found nothing good in a run of eight, where one
    of seven did in all (the pilot). The last rung is given up before there are no three members.
    """
    if settings.screen_members < 2 or rounds < settings.screen_from_rounds:
        return None
    share = int(settings.screen_share * rounds + 1e-9)
    least = min(settings.screen_least, settings.screen_members)
    for one_rung in (False, True):
        for members in range(settings.screen_members, least - 1, -1):
            for length in range(settings.screen_rounds, settings.screen_least_rounds - 1, -1):
                sizes = _rung_sizes(members, settings)[: 1 if one_rung else None]
                rungs = [math.ceil(length * settings.rung_growth**rung - 1e-9) for rung in range(len(sizes))]
                beside = sum(rungs[1:]) if settings.screen_default else 0
                left = share - beside - sum(size * rung for size, rung in zip(sizes, rungs, strict=True))
                if left >= 0:
                    return _with_decision(ScreenPlan(members, tuple(rungs)), rounds, left, settings)
    return None


def _with_decision(plan: ScreenPlan, rounds: int, left: int, settings: StepwiseSettings) -> ScreenPlan:
    """A last rung for the best and the default, in a budget of which the first rungs are a small part."""
    length = min(int(settings.screen_decides * rounds + 1e-9) - sum(plan.rungs), left // 2)
    if length < settings.screen_least_rounds or not settings.screen_default:
        return plan
    return ScreenPlan(plan.members, (*plan.rungs, length), decides=True)


def screen(phases: Phases, window: Window, default: Hyperparameters) -> Part[Line]:
    """Phase 1: a few configurations train side by side from the initial model, and the best goes on.

    Successive halving that never starts again: the survivors of a rung continue from their weights. All train on the
    same cohorts and seeds, and are measured by the same clients. The default stays to the end, and goes on unless the
    best is surely and noticeably better: where the loss falls late, a model that can learn no more guesses best.
    """
    plan = plan_screen(phases.meter.rounds_in_all, phases.settings)
    default = _begun_inside(phases, window, default)
    if plan is None:
        return Line(default)
    members = [Member(Line(point)) for point in _first_points(phases, window, default, plan.members)]
    everybody: list[tuple[Member, bool]] = []
    start: Result | None = None
    for rung, rounds in enumerate(plan.rungs):
        members, start = yield from _rung(phases, members, rounds, start)
        alive = [member for member in members if member.scores[-1] is not None]
        if not alive:
            return _all_failed(phases, members)
        to_come = len(plan.rungs) - rung - 1
        if not to_come:
            kept = [_winner(alive, default, start, phases.settings)]
        elif plan.decides and to_come == 1:
            kept = _kept(alive, default, 1)
        else:
            kept = _kept(alive, default, _survivors(len(members), phases.settings))
        dropped = [member for member in members if member not in kept]
        _tell_elimination(phases, kept[0], dropped, rung, start)
        everybody += [(member, True) for member in dropped]
        members = kept
        best = members[0].line
        assert best.arm is not None
        phases.tuner.keep(*(member.line.arm for member in members if member.line.arm is not None))
        phases.tuner.deliver(best.arm)
        if len(kept) == 1:
            break
    everybody += [(member, False) for member in members]
    trials = [(member.line.point, member.scores, dropped) for member, dropped in everybody]
    phases.substudies.members("g0", trials, phase="screen")
    return members[0].line


def _first_points(phases: Phases, window: Window, default: Hyperparameters, count: int) -> list[Hyperparameters]:
    """The default, and Sobol points inside the window; where those are too few, others are moved to its edge."""
    chosen: list[Hyperparameters] = [default] if phases.settings.screen_default else []
    drawn = sobol_points(phases.scales.space, _DRAWN, [phases.tuner.spec.seed, _SCREEN_SEED])
    inside = [point for point in drawn if window.holds(point, phases.scales)]
    outside = [window.pulled_in(point, phases.scales) for point in drawn if not window.holds(point, phases.scales)]
    for point in [*inside, *outside]:
        if len(chosen) < count and point not in chosen:
            chosen.append(point)
    return chosen


def _rung(
    phases: Phases, members: Sequence[Member], rounds: int, start: Result | None
) -> Part[tuple[list[Member], Result | None]]:
    """Trains all members for so many rounds; they come back best first, with the measured initial model if needed."""
    tuner = phases.tuner
    priced = tuner.spec.budget.time is not None
    first = [tuner.arm(members[0].line.point, rounds=0, phase="measure")] if priced and start is None else []
    settings = phases.settings
    arms = [
        tuner.arm(
            member.line.point,
            parents=member.line.parents,
            rounds=rounds,
            phase="screen",
            every_round=False,
            measured=not settings.use_averaged_evidence,
            average=settings.decay,
        )
        for member in members
    ]
    results = yield from phases.train(*first, *arms)
    start = results[0] if first else start
    trained = [
        replace(
            member,
            line=Line(member.line.point, result.arm.number, member.line.rounds + rounds, bool(settings.decay)),
            result=result,
            cost=member.cost + result.cost,
        )
        for member, result in zip(members, results[len(first) :], strict=True)
    ]
    measured = yield from _averages(phases, trained)
    scored = _scored(measured, start, settings.loss_clip)
    return sorted(scored, key=lambda member: _rank(member.scores[-1])), start


def _averages(phases: Phases, members: Sequence[Member]) -> Part[list[Member]]:
    """The members with the losses of their averaged models, where those are what is compared."""
    alive = [member for member in members if member.result and not member.result.failed]
    if not (phases.settings.use_averaged_evidence and alive):
        return list(members)
    measured = yield from phases.train(*(phases.averaged(member.line, cohort=0) for member in alive))
    by_arm = {result.arm.parents[0]: result for result in measured}
    return [replace(member, result=by_arm.get(member.line.arm or 0, member.result)) for member in members]


def _scored(members: Sequence[Member], start: Result | None, clip: float) -> list[Member]:
    """Members with the mean loss over the clients that measured all; per second where seconds are what is spent."""
    losses = [member.result.losses if member.result and not member.result.failed else {} for member in members]
    means = mean_losses([*losses, start.losses if start else {}], clip)
    scored = []
    for member, mean in zip(members, means[:-1], strict=True):
        price = member.cost.seconds if start and start.losses else 0.0
        score = (mean - means[-1]) / price if price > 0 else mean
        scored.append(replace(member, scores=(*member.scores, score if math.isfinite(score) else None)))
    return scored


def _kept(alive: Sequence[Member], default: Hyperparameters, most: int) -> list[Member]:
    """The best, and the default beside them."""
    return [*alive[:most], *(member for member in alive[most:] if member.line.point == default)]


def _winner(
    alive: Sequence[Member], default: Hyperparameters, start: Result | None, settings: StepwiseSettings
) -> Member:
    """The best, if it is surely and noticeably better than the default; else the default."""
    best = alive[0]
    for other in alive[1:]:
        if other.line.point == default:
            evidence = _evidence(best, other, start, settings)
            return best if surely_better(evidence, settings) else other
    return best


def _evidence(this: Member, other: Member, start: Result | None, settings: StepwiseSettings) -> Evidence:
    """This member against another one; where seconds are what is spent, by improvement per second."""
    (theirs, ours) = (member.result.losses if member.result else {} for member in (this, other))
    if start and start.losses:
        priced = (theirs, this.cost.seconds), (ours, other.cost.seconds)
        return compare_priced(*priced, start.losses, settings.loss_clip)
    return compare(theirs, ours, settings.loss_clip)


def _rank(score: float | None) -> float:
    return math.inf if score is None else score


def _survivors(members: int, settings: StepwiseSettings) -> int:
    return max(settings.keep_least, int(members * settings.keep_share + 1e-9))


def _rung_sizes(members: int, settings: StepwiseSettings) -> list[int]:
    """How many members each rung has, until the survivors are compared a last time."""
    sizes = [members]
    while sizes[-1] > settings.keep_least:
        sizes.append(min(_survivors(sizes[-1], settings), sizes[-1] - 1))
    return sizes


def _begun_inside(phases: Phases, window: Window, default: Hyperparameters) -> Hyperparameters:
    """What training begins with; what of it is not the default's is told, each with its reason."""
    settings, scales = phases.settings, phases.scales
    inside = window.pulled_in(default, scales)
    point = window.beginning(default, scales) if settings.use_middle else inside
    changed = {name: value for name, value in point.items() if value != default[name]}
    reasons = {"server_lr": "server_lr / (1 - server_momentum) is kept between {:g} and {:g}".format(*window.server_lr)}
    if "lr" in changed:
        low, high = (10**end for end in window.span(point, scales))
        where = "the nearest end" if point["lr"] == inside["lr"] else "the middle"
        reasons["lr"] = f"{where} of the effective rates from {low:.2g} to {high:.2g}, which window and space allow"
    for name in changed:
        old, new = describe({name: default[name]}), describe({name: point[name]})
        text = f"Training begins with {new} instead of the default's {old}: {reasons[name]}."
        phases.tuner.note("window", text, arms=[0] if window.lr else [], changed={name: point[name]})
    return point


def _all_failed(phases: Phases, members: Sequence[Member]) -> Line:
    """Nobody trained: from the initial model with the gentlest of them, gentler still."""
    scales, factor = phases.scales, phases.settings.rewind_factor
    gentlest = min((member.line.point for member in members), key=scales.strength)
    point = scales.scaled(gentlest, "lr", factor)
    phases.tuner.note(
        "rewind",
        f"All {len(members)} members of the screen failed: the gentlest goes on from the start with lr × {factor}.",
        arms=[member.line.arm for member in members],
        hyperparameters=point,
    )
    return Line(point)


def _tell_window(phases: Phases, window: Window, arm: Arm, diverged: int, clients: int) -> None:
    told = {
        name: [round(bound, 3) if math.isfinite(bound) else None for bound in bounds]
        for name, bounds in window.lr.items()
    }
    spans = "; ".join(
        f"{name} " + " to ".join("any" if bound is None else f"{10**bound:.2g}" for bound in bounds)
        for name, bounds in told.items()
    )
    phases.tuner.note(
        "window",
        f"{diverged} of {clients} probing clients diverged; effective learning rates worth trying: {spans}.",
        arms=[arm.number],
        clients=clients,
        diverged=diverged,
        log10_lr=told,
    )


def _tell_elimination(
    phases: Phases, first: Member, dropped: Sequence[Member], rung: int, start: Result | None
) -> None:
    """One note a member that does not go on, with its losses against those of the first one that does."""
    for member in dropped:
        evidence = _evidence(member, first, start, phases.settings)
        what = "improvement per second" if evidence.priced else "loss"
        arm = member.line.arm
        if member.result and member.result.failed:
            why = f"failed: {member.result.failed.rstrip('.')}"
        elif evidence.mean < 0:
            ahead = f"{-evidence.relative:.1%} ahead of arm {first.line.arm} in {what}"
            why = f"is {ahead}, z = {evidence.z:.2f}, which is not enough"
        else:
            why = f"is {evidence.mean:+.3g} behind the best in {what}"
        phases.tuner.note(
            "elimination",
            f"Arm {arm} leaves the screen after rung {rung}: it {why}.",
            arms=[arm, first.line.arm],
            rung=rung,
            hyperparameters=dict(member.line.point),
            **evidence.details(),
        )
