"""Phase 2 of the step-wise tuner: generations of advance and fork, and settling at the end."""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from fedstep.common.hyperparameters import Hyperparameters, describe
from fedstep.common.phrases import count_text
from fedstep.server.tuning.affordable import affordable
from fedstep.server.tuning.base import Arm
from fedstep.server.tuning.lineage import Line, Phases
from fedstep.server.tuning.memory import Pace, Standing
from fedstep.server.tuning.paired import Evidence, adopts, compare_priced, mean_losses, surely_better
from fedstep.server.tuning.program import Part, Result
from fedstep.server.tuning.proposers import Attempt, Proposal, Proposer, Question, displacement_space
from fedstep.server.tuning.steps import StepSummary
from fedstep.server.tuning.stepwise_settings import StepwiseSettings
from fedstep.server.tuning.trust_region import TrustRegion
from fedstep.server.tuning.window import Window

_FAILED_VALUE = -1.0
"""A challenger that failed is told to the sampler as one that doubled the loss."""


class Generations:
    """Trains the incumbent on, generation by generation; each takes the line and the pace and gives new ones.

    Every generation has an evaluation cohort of its own. What it starts from is measured there as well, so that all
    that is compared is compared on the same clients.

    Args:
        phases: What all phases work with.
        proposer: Of challengers.
        window: What the probe left of the space.
        frozen: Parameters that do not move any more.
    """

    def __init__(self, phases: Phases, proposer: Proposer, window: Window, frozen: Collection[str]) -> None:
        self._phases = phases
        self._tuner = phases.tuner
        self._settings = phases.settings
        self._scales = phases.scales
        self._meter = phases.meter
        self._proposer = proposer
        self._window = window
        self._frozen = frozen

    def begun(self, line: Line) -> Part[Pace]:
        """The pace at first. What training gains counts from the initial model, which a screen has left behind."""
        pace = Pace(self._settings.rho, line.point)
        if line.arm is None or not self._settings.use_rewind:
            return pace  # the first generation starts from it, and measures it
        (start,) = yield from self._phases.train(self._phases.measured(Line(line.point), pace.generation))
        (loss,) = mean_losses([start.losses], self._settings.loss_clip)
        return replace(pace, initial=loss, standing=Standing(first=self._phases.score(start))) if start.losses else pace

    # which one is next -------------------------------------------------------------------------------------------

    def settling(self, pace: Pace) -> bool:
        """Whether the learning rate falls: late, and not before the loss has fallen and hardly does any more."""
        late = self._settings.use_settle and self._meter.fraction >= self._settings.settle_from
        return late and (pace.settled_from is not None or (pace.moved and self._slow(pace)))

    def _slow(self, pace: Pace) -> bool:
        """Whether the loss falls slowly."""
        return pace.gain is not None and pace.gain < self._settings.slow_gain

    def forking(self, line: Line, pace: Pace) -> bool:
        """Whether this generation tries a challenger: every second one, every one once the loss falls slowly.

        None as long as a young model is not surely better than the initial one: what is compared then is chance.
        """
        settings = self._settings
        if not pace.moved and line.rounds < settings.restart_rounds:
            return False
        least = max(settings.fork_rounds_left, 2 * settings.leg_least)
        if not settings.use_forks or self._meter.fraction >= settings.forks_until or self._meter.rounds_left < least:
            return False
        return self._slow(pace) or pace.generation - pace.forked >= settings.fork_every

    # the three kinds ---------------------------------------------------------------------------------------------

    def advance(self, line: Line, pace: Pace) -> Part[tuple[Line, Pace]]:
        """The incumbent trains one leg."""
        rounds = self._leg(line)
        before = self._phases.measured(line, pace.generation)
        leg = self._trained(line, line.point, rounds, pace, "advance")
        start, end = yield from self._phases.train(before, leg)
        _, (before_it, after_it) = yield from self._judged(line, [start, end], pace)
        return self._on_from_best(
            line, line.point, rounds, pace, self._phases.compared(after_it, before_it), start, [end]
        )

    def fork(self, line: Line, pace: Pace) -> Part[tuple[Line, Pace]]:
        """A challenger trains beside the incumbent: from the same model, on the same cohorts and seeds.

        The configuration is decided on paired evidence. The weights are the best of the two children's and their
        mean, which has most of what the rounds of both gave, since they have one ancestor.
        """
        question = self._question(line, pace)
        proposal = affordable(self._proposer, question, self._phases)
        if proposal is None:
            return (yield from self.advance(line, pace))
        rounds = self._leg(line, children=1 + self._meter.relative(proposal.point))
        before = self._phases.measured(line, pace.generation)
        incumbent = self._trained(line, line.point, rounds, pace, "fork")
        challenger = self._trained(line, proposal.point, rounds, pace, "fork")
        start, stays, moves = yield from self._phases.train(before, incumbent, challenger)
        means, judged = yield from self._judged(line, [start, stays, moves], pace)
        evidence = self._evidence(*judged)
        adopted = self._adopts(line.point, proposal.point, [stays, moves, *means], evidence)
        pace = self._learnt(question, proposal, evidence, moves, adopted, pace)
        point = proposal.point if adopted else line.point
        children = [moves, stays] if adopted else [stays, moves]
        alive = [each for each in judged[1:] if not each.failed] or judged[1:]
        since = min((self._phases.compared(each, judged[0]) for each in alive), key=lambda evidence: evidence.mean)
        return self._on_from_best(line, point, rounds, pace, since, start, [*children, *means])

    def settle(self, line: Line, pace: Pace) -> Part[tuple[Line, Pace]]:
        """The incumbent trains one leg with a learning rate on its way down; gone back on if that hurts.

        Late decay pays, where early decay is the greedy mistake: as long as the loss falls well, it is early.
        """
        if pace.settled_from is None:
            pace = self._begins_to_settle(line, pace)
        rounds = self._leg(line)
        before = self._phases.measured(line, pace.generation)
        leg = self._trained(line, self._cooled(line, rounds, pace), rounds, pace, "settle")
        start, end = yield from self._phases.train(before, leg)
        _, (before_it, after_it) = yield from self._judged(line, [start, end], pace)
        evidence = self._phases.compared(after_it, before_it)
        if not end.failed and self._hurt(evidence, pace):
            self._phases.tell_rewind(line, end, evidence, "settling hurt; the next leg is gentler")
            gone, pace = line, replace(pace, rewinds=pace.rewinds + 1)
        else:
            gone, pace = self._on_from_best(line, line.point, rounds, pace, evidence, start, [end])
        own, its = (end, after_it) if gone.arm == end.arm.number else (start, before_it)
        self._deliver_best(gone, own, its)
        return gone, pace

    # arms --------------------------------------------------------------------------------------------------------

    def _judged(self, line: Line, found: Sequence[Result], pace: Pace) -> Part[tuple[list[Result], list[Result]]]:
        """The mean of a fork's two children, and what a generation is judged by: the averages of its models.

        A last model is a matter of who trained last; an average is not. Where a leg failed there is no mean, and all
        are judged as they are.

        Args:
            line: Before the generation.
            found: What it started from, measured, and its leg or two.
            pace: Of the generation.

        Returns:
            The mean, where there are two legs; and for each of `found` what it is judged by, at its cost.
        """
        legs = found[1:]
        if any(leg.failed for leg in legs):
            return [], list(found)
        parents = tuple(leg.arm.number for leg in legs)
        asked = []
        if len(legs) > 1:
            asked.append(self._tuner.arm(line.point, parents=parents, rounds=0, **self._shared(pace, "mean")))
        if self._settings.use_averaged_evidence:
            lines = [line] * line.averaged + [replace(line, arm=number) for number in parents]
            asked += [self._phases.averaged(each, pace.generation) for each in lines]
        measured = (yield from self._phases.train(*asked)) if asked else []
        means, averages = measured[: len(legs) - 1], measured[len(legs) - 1 :]
        unaveraged = len(found) - len(averages)
        costs = [its.cost for its in found[unaveraged:]]
        priced = [replace(average, cost=cost) for average, cost in zip(averages, costs, strict=True)]
        return means, [*found[:unaveraged], *priced]

    def _trained(self, line: Line, point: Hyperparameters, rounds: int, pace: Pace, phase: str) -> Arm:
        shared = self._shared(pace, phase)
        return self._tuner.arm(point, parents=line.parents, rounds=rounds, alone=phase != "fork", **shared)

    def _shared(self, pace: Pace, phase: str) -> dict[str, Any]:
        return {"phase": phase, "cohort": pace.generation, "every_round": False, "average": self._settings.decay}

    def _leg(self, line: Line, children: float = 1) -> int:
        """Rounds of the next leg; what would be left for a last one of a round or two comes with it."""
        settings = self._settings
        wanted = round(min(max(settings.leg_share * line.rounds, settings.leg_least), settings.leg_most))
        left = int(self._meter.rounds_left / children)
        return left if left < wanted + settings.leg_least // 2 else wanted

    def _cooled(self, line: Line, rounds: int, pace: Pace) -> Hyperparameters:
        """The line's point with the learning rate of the leg's middle, on a cosine over the rest of the budget."""
        assert pace.settled_from is not None
        middle = self._meter.fraction + rounds / 2 * self._meter.per_round()
        progress = min(1.0, (middle - pace.settled_from) / max(1.0 - pace.settled_from, 1e-9))
        least = self._settings.settle_to
        return self._scales.scaled(line.point, "lr", least + (1 - least) * (1 + math.cos(math.pi * progress)) / 2)

    # verdicts ----------------------------------------------------------------------------------------------------

    def _on_from_best(
        self,
        line: Line,
        point: Hyperparameters,
        rounds: int,
        pace: Pace,
        evidence: Evidence,
        start: Result,
        ended: Sequence[Result],
    ) -> tuple[Line, Pace]:
        """The line at the end of a generation: from its best weights, or rewound if they are all worse.

        Args:
            line: Before it.
            point: The configuration that was decided on.
            rounds: That were trained.
            pace: Of the generation.
            evidence: Of the best leg against what it started from, as generations are judged.
            start: What it started from, the model itself.
            ended: What it came to; first the model that was trained with the point.
        """
        settings = self._settings
        best = self._best(ended)
        slower = self._scales.scaled(point, "lr", settings.rewind_factor)
        own = self._phases.compared(best, start)
        if pace.initial is None and own.n:
            pace = replace(pace, initial=own.base)
        if line.arm is None:
            pace = replace(pace, moved=any(surely_better(each, settings) for each in (own, evidence)))
        rise = own if self._undone(own, pace) and own.relative > evidence.relative else evidence
        rose = self._may_rewind(pace) and rise.relative > settings.rewind_rise and slower != dict(point)
        if best.failed or rose:
            why = best.failed.rstrip(".") or f"the loss rose by {rise.relative:.0%}"
            self._phases.tell_rewind(line, best, rise, f"{why}; lr × {settings.rewind_factor}")
            failures, rewinds = (pace.failures + 1, pace.rewinds) if best.failed else (0, pace.rewinds + 1)
            return replace(line, point=slower), replace(pace, failures=failures, rewinds=rewinds)
        self._tuner.deliver(best.arm)
        gain = self._smoothed(pace.gain, -evidence.relative) if evidence.n else pace.gain
        steps = next(result.steps for result in ended if not result.failed)
        gone = Line(point, best.arm.number, line.rounds + rounds, averaged=bool(settings.decay))
        standing = pace.standing.after(gone, self._phases.score(start), self._phases.score(best))
        self._tuner.keep(*{best.arm.number, *(standing.line.parents if standing.line else ())})
        return gone, replace(pace, failures=0, rewinds=0, gain=gain, steps=steps, standing=standing)

    def _best(self, ended: Sequence[Result]) -> Result:
        """Whose model has the least loss; the first where all failed."""
        alive = [result for result in ended if not result.failed]
        means = mean_losses([result.losses for result in alive], self._settings.loss_clip)
        return alive[means.index(min(means))] if alive else ended[0]

    def _may_rewind(self, pace: Pace) -> bool:
        """Whether a rise of the loss is gone back on. Where it rises time after time, it is not the learning rate."""
        return self._settings.use_rewind and pace.rewinds < self._settings.most_rewinds

    def _undone(self, own: Evidence, pace: Pace) -> bool:
        """Whether a last model has lost much of what training had gained, whatever its average does."""
        settings = self._settings
        gained = 0.0 if pace.initial is None else pace.initial - own.base
        return own.relative > settings.rewind_rise and own.mean > settings.rewind_undone * gained

    def _hurt(self, evidence: Evidence, pace: Pace) -> bool:
        settings = self._settings
        surely = evidence.z > settings.settle_hurt_z and evidence.relative > settings.settle_hurt_rise
        return surely and self._may_rewind(pace)

    def _smoothed(self, gain: float | None, new: float) -> float:
        memory = self._settings.gain_memory
        return new if gain is None else memory * gain + (1 - memory) * new

    @property
    def _priced(self) -> bool:
        """Whether seconds are what is spent."""
        return self._tuner.spec.budget.time is not None

    def _evidence(self, start: Result, stays: Result, moves: Result) -> Evidence:
        """The challenger against the incumbent; where seconds are spent, by improvement per second."""
        if not self._priced:
            return self._phases.compared(moves, stays)
        challenger, incumbent = (moves.losses, moves.cost.seconds), (stays.losses, stays.cost.seconds)
        return compare_priced(challenger, incumbent, start.losses, self._settings.loss_clip)

    def _adopts(self, now: Hyperparameters, new: Hyperparameters, ended: Sequence[Result], evidence: Evidence) -> bool:
        """Whether the challenger's configuration is the incumbent's from now on; tells so, and whose model is best.

        Args:
            now: The incumbent's.
            new: The challenger's.
            ended: The incumbent's leg, the challenger's, and their mean where there is one.
            evidence: Of the challenger against the incumbent.
        """
        (stays, moves), best = ended[:2], self._best(ended)
        settings, scales = self._settings, self._scales
        early = settings.use_guard and self._meter.fraction < settings.guard_until
        alike = scales.optimizer(new) == scales.optimizer(now)
        weaker = early and alike and scales.strength(new) < (1 - settings.guard_fall) * scales.strength(now)
        adopted = not moves.failed and (bool(stays.failed) or adopts(evidence, weaker, settings))
        changed = {name: value for name, value in new.items() if now.get(name) != value}
        failed = (moves.failed or stays.failed).rstrip(".")
        clients = count_text(evidence.n, "client") if evidence.n else "no clients that measured both"
        said = failed or f"z = {evidence.z:.2f} on {clients}"
        said += ", by improvement per second" if evidence.priced and not failed else ""
        guarded = " (it trains less, so more is asked)" if weaker else ""
        owners = {stays.arm.number: "the incumbent's", moves.arm.number: "the challenger's"}
        models = "" if failed else f"; of the models {owners.get(best.arm.number, 'their mean')} is best"
        self._tuner.note(
            "adoption" if adopted else "rejection",
            f"The challenger with {describe(changed)} is {'adopted' if adopted else 'rejected'}: "
            f"{said}{guarded}{models}.",
            arms=[moves.arm.number, stays.arm.number],
            changed=changed,
            guarded=weaker,
            **evidence.details(),
        )
        return adopted

    def _deliver_best(self, line: Line, own: Result, judged: Result) -> None:
        """Would end with the line's model, or with the average kept of it, whichever these clients like better."""
        averaged = judged.arm.of_average and self._settings.use_average and self._phases.compared(judged, own).mean < 0
        if averaged:
            self._tuner.deliver(judged.arm)
        elif line.arm is not None:
            self._tuner.deliver(line.arm)

    def _begins_to_settle(self, line: Line, pace: Pace) -> Pace:
        self._tuner.note(
            "settling",
            "The loss hardly falls any more: from here on the learning rate falls to "
            f"{self._settings.settle_to:.0%} of itself.",
            fraction=round(self._meter.fraction, 3),
            arms=list(line.parents),
            hyperparameters=dict(line.point),
        )
        return replace(pace, settled_from=self._meter.fraction)

    # challengers -------------------------------------------------------------------------------------------------

    def _question(self, line: Line, pace: Pace) -> Question:
        region = TrustRegion(self._scales, line.point, pace.rho, self._window, self._frozen)
        history = pace.history[-self._settings.most_priors :]
        return Question(region, pace.generation, lean_of(pace.steps, self._settings), history)

    def _learnt(
        self, question: Question, proposal: Proposal, evidence: Evidence, moves: Result, adopted: bool, pace: Pace
    ) -> Pace:
        """The pace after a fork: the width of the region, and what the challenger was worth."""
        settings = self._settings
        value = _FAILED_VALUE if moves.failed else -evidence.relative
        attempt = Attempt(pace.generation, proposal.displacement, value, proposal.memory)
        self._phases.substudies.fork(
            attempt,
            question.history,
            displacement_space(question),
            arm=moves.arm.number,
            parents=list(moves.arm.parents),
            point=dict(proposal.point),
            adopted=adopted,
            rho=pace.rho,
            **evidence.details(),
        )
        rho = pace.rho * (settings.rho_up if adopted else settings.rho_down)
        rho = min(max(rho, settings.rho_least), settings.rho_most)
        return replace(pace, rho=rho, forked=pace.generation, history=(*pace.history, attempt))


def lean_of(steps: StepSummary, settings: StepwiseSettings) -> int:
    """Which way the clients' local steps would have the learning rate go: -1 down, 1 up, 0 either.

    A loss that rises, or only goes to and fro, asks for less; one that falls steeply for more.
    """
    if not settings.use_hint or not steps.clients:
        return 0
    oscillates = steps.oscillation > settings.hint_oscillation
    if steps.fall < 0 or (oscillates and steps.fall < settings.hint_flat):
        return -1
    return 1 if steps.fall > settings.hint_steep and not oscillates else 0
