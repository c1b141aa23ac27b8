"""Going back further than a leg: to the best that there was, or to the beginning."""

import math
from dataclasses import replace

from fedstep.common.hyperparameters import Hyperparameters
from fedstep.server.tuning.lineage import Line, Phases
from fedstep.server.tuning.memory import Pace, Standing
from fedstep.server.tuning.paired import adopts, surely_better
from fedstep.server.tuning.program import Part
from fedstep.server.tuning.window import Window


def recovered(phases: Phases, line: Line, pace: Pace) -> Part[tuple[Line, Pace]]:
    """Back to the best there was, where generations have lost most of it, each too little to be gone back on.

    Asked after every generation; where the standing is suspicious, both models are measured on the same clients, and go
    by the objective: a loss rises where a model learns its clients by heart, and that is no collapse. By the last
    models: an average hides for long that training has gone astray. From the same model it is done `most_rewinds`
    times, with a smaller learning rate each time.
    """
    settings, standing = phases.settings, pace.standing
    best, may_return = standing.line, settings.use_rewind and standing.returns < settings.most_rewinds
    if not may_return or best is None or standing.lost < settings.rewind_undone:
        return line, pace
    back = replace(best, point=phases.scales.scaled(best.point, "lr", settings.rewind_factor))
    if back.point == line.point:
        return line, pace  # the same would happen again
    now, then = yield from phases.train(*(phases.measured(each, pace.generation) for each in (line, best)))
    rise, now_score, then_score = phases.compared(now, then), phases.score(now), phases.score(then)
    if now_score is None or then_score is None:
        return line, pace
    if rise.z < -settings.guard_z or standing.lost_between(then_score, now_score) < settings.rewind_undone:
        # It looked so on other clients only: what these say of the best is what counts from here on.
        return line, replace(pace, standing=replace(standing, best=then_score))
    slower = f"; lr × {settings.rewind_factor}" if back.point != best.point else ""
    phases.tell_rewind(best, now, rise, f"it had lost most of what it had learnt{slower}")
    phases.tuner.deliver(then.arm.parents[0])
    standing = replace(standing, line=back, returns=standing.returns + 1, now=then_score)
    return back, replace(pace, rewinds=0, standing=standing)


def begun_anew(phases: Phases, window: Window, line: Line, pace: Pace) -> Part[tuple[Line, Pace]]:
    """Back to the initial model with a much smaller learning rate, where training has led nowhere.

    Steps that are far too great from the start leave a network whose units are dead, and no challenger that goes on
    from it can tell. So until the model is surely better than the initial one, both are measured after every
    generation. What would not even be taken over the initial model after `restart_rounds` is given up, with all that
    was adopted on the way, `most_rewinds` times and as long as the rest of the budget pays for a beginning. Not where
    the smaller learning rate is outside of the window: then it is too small already, and the model only slow. Nor where
    most clients did not measure both, or all losses are clipped: that says nothing.
    """
    if line.arm is None or pace.moved:
        return line, pace
    settings, beginning = phases.settings, Line(pace.began_with)
    by_average = line.averaged and settings.use_averaged_evidence
    judged = (phases.averaged if by_average else phases.measured)(line, pace.generation)
    then, now = yield from phases.train(phases.measured(beginning, pace.generation), judged)
    evidence, young = phases.compared(now, then), line.rounds < settings.restart_rounds
    if surely_better(evidence, settings) or (not young and adopts(evidence, False, settings)):
        return line, replace(pace, moved=True)
    told = 2 * evidence.n > max(len(then.losses), len(now.losses)) and evidence.base < settings.loss_clip
    may = settings.use_rewind and pace.restarts < settings.most_rewinds
    pays = phases.meter.rounds_left >= max(settings.fork_rounds_left, settings.restart_rounds)
    slower = _slower(phases, window, beginning, line)
    if young or not told or not may or not pays or slower is None:
        return line, pace
    rates = f"lr {beginning.point['lr']:.3g} → {slower['lr']:.3g}"
    phases.tell_rewind(
        beginning, now, evidence, f"after {line.rounds} rounds it is no better than the initial model; {rates}"
    )
    afresh = Pace(
        settings.rho,
        slower,
        generation=pace.generation,
        forked=pace.generation,
        initial=pace.initial,
        standing=Standing(first=phases.score(then)),
        restarts=pace.restarts + 1,
    )
    return replace(beginning, point=slower), afresh


def _slower(phases: Phases, window: Window, beginning: Line, line: Line) -> Hyperparameters | None:
    """The beginning with `restart_factor` of its learning rate, or of the line's, where that was gone back on.

    None where space or window have nothing that is much smaller: it would end as before.
    """
    scales, factor = phases.scales, phases.settings.restart_factor
    began, now = (scales.effective_lr(each.point) for each in (beginning, line))
    slower = scales.scaled(beginning.point, "lr", factor * min(1.0, now / began))
    much = scales.effective_lr(slower) < math.sqrt(factor) * began
    return slower if much and window.trains(slower, scales) else None
