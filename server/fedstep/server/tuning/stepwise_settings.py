"""Every constant of the step-wise tuner, where it comes from, and what it may be."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from fedstep.common.errors import FieldViolation
from fedstep.common.validation import one_of, show

_NEVER = 1_000_000
"""More rounds, or generations, than any study has."""


@dataclass(frozen=True)
class Bounds:
    """What a constant may be.

    Attributes:
        least: The smallest legal value.
        most: The greatest.
        whole: Whether it counts something.
    """

    least: float
    most: float
    whole: bool

    def allow(self, value: object) -> bool:
        """Whether the value is legal: true and false are no numbers, and 3.0 counts nothing."""
        kind = int if self.whole else int | float
        return isinstance(value, kind) and not isinstance(value, bool) and self.least <= value <= self.most

    def describe(self) -> str:
        """In words: `a number from 0 to 1`."""
        return f"a {'whole ' if self.whole else ''}number from {show(self.least)} to {show(self.most)}"


def _whole(default: int, least: int, most: int) -> Any:
    """A count between two bounds."""
    return field(default=default, metadata={"bounds": Bounds(least, most, whole=True)})


def _real(default: float, least: float, most: float) -> Any:
    """A real number between two bounds."""
    return field(default=default, metadata={"bounds": Bounds(least, most, whole=False)})


@dataclass(frozen=True)
class StepwiseSettings:
    """The step-wise tuner's constants.

    "Pilot" is the pilot of `algorithm.md`: real writers' digits and a toy federation, eight seeds each. "Ours" was
    chosen by reason and is there to be varied.

    Attributes:
        use_probe: Asks 30 clients for the window of learning rates first.
        use_middle: Begins in the middle of the learning rates that window and space allow, where the default's says
            little (`Window.beginning`); else the default begins, at the window's edge where it is outside. Ours
            (docs/benchmarks.md).
        use_rewind: Goes back where the loss rose, or where training has led nowhere.
        use_hint: Lets the slope of the clients' step losses choose the direction of a challenger's learning rate.
        use_forks: Tries challengers beside the incumbent.
        use_guard: Asks more of a challenger that would train less, early.
        use_settle: Lets the learning rate fall at the end.
        use_average: Keeps an average of the model and delivers it where it is better.
        use_averaged_evidence: Compares the screen's members, a fork's children, and each generation with its start by
            the averages of their models. A great learning rate learns fast and is noisy, and a few rounds show the
            noise: the short-horizon bias (Wu et al., ICLR 2018). The average has less of it. Ours.
        probe_clients: Points of the probe, one a client. Pilot.
        probe_steps: Local steps of each. Pilot: 10 to 20.
        probe_least: With fewer clients than this there is no probe. Ours.
        probe_share: The most of the budget it may cost. Ours.
        probe_from_rounds: With a smaller budget there is no probe. Ours.
        diverged_ratio: Mean of the last four losses over that of the first two from which a client diverged. Pilot.
        gain_share: A point trains when its gain is over this part of the 90 % quantile of gains. Pilot.
        upper_margin: Added to the least log10 learning rate that diverged. Pilot.
        lower_margin: Taken from the 10 % quantile of those that train. Pilot.
        least_window: The window's least width, in log10. Ours.
        least_server_lr: Of server_lr / (1 - server_momentum). Pilot.
        most_server_lr: The same. Pilot.
        screen_members: Configurations in the screen, the default among them; under 2 for no screen. Pilot: 7; ours: 8.
        screen_default: Whether the user's or the task's default is one of them. Pilot.
        screen_least: The fewest members of a short screen. Pilot.
        screen_rounds: Rounds of the first rung. Pilot.
        screen_least_rounds: The fewest of a short screen. Pilot.
        screen_share: The most of the budget that the screen may cost. Pilot, as run: 5 rounds of seven members and 8 of
            two are 51 of 180; the text says a fifth.
        screen_from_rounds: With a smaller budget there is none. Pilot: 30. Ours: where it costs a tenth at most; with
            less, forks from the default reach more in the same rounds (docs/benchmarks.md).
        keep_share: Of a rung's members go on to the next: successive halving (Jamieson and Talwalkar, AISTATS 2016)
            with a rate of three.
        keep_least: At least so many do. Pilot.
        rung_growth: How much longer the next rung is. Pilot.
        screen_decides: The best and the default train on until this part of the budget is behind each, before one of
            them is taken: what learns fastest in a few rounds may be what ends lowest. Ours (docs/benchmarks.md).
        screen_gain: The best of a screen goes on in the default's place where its loss is less by this part, and its z
            under `guard_z`. Ours (docs/benchmarks.md).
        leg_share: A leg is this part of the rounds that the model has behind it, as FIRE PBT (arXiv 2109.13800) asks
            for longer evidence the later it is. Pilot: a fifth.
        leg_least: Rounds of the shortest leg. Pilot.
        leg_most: Rounds of the longest leg. Pilot.
        fork_every: Generations from one fork to the next while the loss falls well. Pilot.
        fork_rounds_left: Where the rest of the budget pays for fewer rounds there is none: one fork is eight rounds, a
            fifth of this, and what it finds has to earn them. Ours (docs/benchmarks.md).
        slow_gain: Smoothed relative gain under which the loss falls slowly: every generation forks, and a late one
            settles. Pilot.
        gain_memory: Weight of the past in that mean. Ours.
        forks_until: Part of the budget after which nothing is forked. Pilot.
        move_chance: Chance that a coordinate of a challenger moves. Pilot.
        rho: First width of the trust region, in the unit cube: TuRBO (Eriksson et al., NeurIPS 2019). Pilot.
        rho_least: The least width. Pilot.
        rho_most: The greatest width. Pilot.
        rho_up: Factor after an adoption. Pilot.
        rho_down: Factor after a rejection. Pilot.
        adopt_z: A challenger is adopted under this z. Pilot.
        guard_z: The same for one that would train less, early. Pilot. Of a screen's best, too, and turned round of what
            is lost over several generations. Ours.
        guard_until: Part of the budget that is early. Pilot.
        guard_fall: How much less lr_eff · epochs / batch it takes for that. Pilot.
        loss_clip: Losses are clipped here before they are compared. Pilot.
        rewind_rise: Relative rise of the validation loss that is gone back on. Pilot: 0.1; with 0.3 less is lost to
            chance rises (docs/benchmarks.md).
        rewind_undone: A rise by that much of the last model's own loss is gone back on too, where it undoes this part
            of all that training has gained: averages of a model that has begun to diverge still improve. Where that
            much of the objective is lost over several generations, the best of them goes on. Ours.
        rewind_factor: Of the learning rate then. Pilot.
        most_rewinds: After so many in a row, and after so many to the same model, training goes on, whatever its loss:
            a momentum of the server that overshoots does so again from the same model. Ours.
        restart_rounds: A model that has so many behind it and is no better than the initial one, by `adopt_z`, is given
            up for a beginning with a smaller learning rate. With fewer nothing is forked, unless the model is better by
            `guard_z` and `screen_gain`. Ours (docs/benchmarks.md).
        restart_factor: Of the learning rate then. Ours.
        most_failures: After so many legs in a row that failed the tuner ends. Ours.
        settle_from: Part of the budget after which the learning rate falls, once the loss falls slowly. Pilot: SGDR's
            cosine (Loshchilov and Hutter, ICLR 2017), late, since early decay is the greedy mistake. That it waits for
            the loss is ours (docs/benchmarks.md).
        settle_to: Part of the learning rate at the end. Pilot.
        settle_hurt_z: A settling leg is gone back on over this z, against the model before it. Ours.
        settle_hurt_rise: And over this relative rise of the loss: the clients that measure agree on every chance step
            of a model that has come to rest. Ours.
        average: Decay of the averaged model a round: Polyak averaging as in SWA (Izmailov et al., UAI 2018). Pilot.
        hint_steep: Part of the loss that local training takes away, over which more is proposed. Ours.
        hint_flat: The part under which an oscillating loss proposes less. Ours.
        hint_oscillation: From which a loss oscillates (see `StepSummary`). Ours.
        startup_trials: Challengers that a model-based sampler draws at random first. Ours.
        most_priors: The latest challengers that a sampler is told of. Ours.
        reserve_rounds: Rounds of the budget left over, so that the last measurement is still allowed. Ours.
    """

    use_probe: bool = True
    use_middle: bool = True
    use_rewind: bool = True
    use_hint: bool = True
    use_forks: bool = True
    use_guard: bool = True
    use_settle: bool = True
    use_average: bool = True
    use_averaged_evidence: bool = True
    probe_clients: int = _whole(30, 1, 10_000)
    probe_steps: int = _whole(20, 1, 10_000)
    probe_least: int = _whole(8, 1, 10_000)
    probe_share: float = _real(0.02, 0.0, 0.1)
    probe_from_rounds: int = _whole(30, 3, _NEVER)
    diverged_ratio: float = _real(1.5, 1.0, 1000.0)
    gain_share: float = _real(0.25, 0.0, 1.0)
    upper_margin: float = _real(0.3, 0.0, 10.0)
    lower_margin: float = _real(0.5, 0.0, 10.0)
    least_window: float = _real(1.0, 0.0, 10.0)
    least_server_lr: float = _real(0.2, 0.0, 1e6)
    most_server_lr: float = _real(10.0, 1e-6, 1e6)
    screen_members: int = 8
    screen_default: bool = True
    screen_least: int = _whole(3, 2, 100)
    screen_rounds: int = _whole(5, 1, 200)
    screen_least_rounds: int = _whole(2, 1, 200)
    screen_share: float = _real(0.3, 0.0, 0.8)
    screen_from_rounds: int = _whole(500, 0, _NEVER)
    keep_share: float = _real(1 / 3, 0.0, 0.9)
    keep_least: int = _whole(2, 1, 100)
    rung_growth: float = _real(1.5, 1.0, 10.0)
    screen_decides: float = _real(0.05, 0.0, 0.3)
    screen_gain: float = _real(0.02, 0.0, 1.0)
    leg_share: float = _real(0.2, 0.0, 1.0)
    leg_least: int = _whole(4, 1, 1_000)
    leg_most: int = _whole(12, 1, 1_000)
    fork_every: int = _whole(2, 1, _NEVER)
    fork_rounds_left: int = _whole(40, 0, _NEVER)
    slow_gain: float = _real(0.02, 0.0, 1.0)
    gain_memory: float = _real(0.5, 0.0, 0.99)
    forks_until: float = _real(0.6, 0.0, 1.0)
    move_chance: float = _real(0.35, 0.0, 1.0)
    rho: float = _real(0.2, 0.001, 1.0)
    rho_least: float = _real(0.05, 0.001, 1.0)
    rho_most: float = _real(0.35, 0.001, 1.0)
    rho_up: float = _real(1.3, 1.0, 10.0)
    rho_down: float = _real(0.9, 0.1, 1.0)
    adopt_z: float = _real(-0.7, -99.0, 99.0)
    guard_z: float = _real(-2.0, -99.0, 99.0)
    guard_until: float = _real(0.6, 0.0, 1.0)
    guard_fall: float = _real(0.3, 0.0, 1.0)
    loss_clip: float = _real(5.0, 0.01, 1e9)
    rewind_rise: float = _real(0.3, 0.0, 1000.0)
    rewind_undone: float = _real(0.5, 0.0, 1000.0)
    rewind_factor: float = _real(0.6, 0.01, 0.99)
    most_rewinds: int = _whole(2, 0, 1_000)
    restart_rounds: int = _whole(20, 1, _NEVER)
    restart_factor: float = _real(0.25, 0.01, 0.99)
    most_failures: int = _whole(5, 1, 100)
    settle_from: float = _real(0.6, 0.0, 1.0)
    settle_to: float = _real(0.1, 0.0, 1.0)
    settle_hurt_z: float = _real(1.3, -99.0, 99.0)
    settle_hurt_rise: float = _real(0.02, 0.0, 1000.0)
    average: float = _real(0.8, 0.0, 0.999)
    hint_steep: float = _real(0.5, 0.0, 1.0)
    hint_flat: float = _real(0.05, 0.0, 1.0)
    hint_oscillation: float = _real(0.8, 0.0, 1.0)
    startup_trials: int = _whole(3, 0, 1_000)
    most_priors: int = _whole(30, 1, 1_000)
    reserve_rounds: int = _whole(1, 0, 10)

    @property
    def decay(self) -> float:
        """Of the average of the model that is kept; 0 where nothing reads one."""
        return self.average if self.use_average or self.use_averaged_evidence else 0.0


BOUNDS: Mapping[str, Bounds] = MappingProxyType(
    {field.name: field.metadata["bounds"] for field in fields(StepwiseSettings) if "bounds" in field.metadata}
)
"""The numbers that a study file may set in `constants`, by name."""

_ORDERED = (
    ("probe_least", "probe_clients"),
    ("least_server_lr", "most_server_lr"),
    ("screen_least_rounds", "screen_rounds"),
    ("leg_least", "leg_most"),
    ("rho_least", "rho_most"),
)
"""Pairs of which the first may not be above the second."""


def constant_faults(constants: Mapping[str, object]) -> Iterator[FieldViolation]:
    """What is wrong with constants by name, each fault with the value and what is legal."""
    wrong, defaults = set(), vars(StepwiseSettings())
    for name, value in constants.items():
        if name not in BOUNDS and name in defaults:
            yield FieldViolation(name, "is no constant but an option: write it in [tuner] itself.")
        elif name not in BOUNDS:
            yield FieldViolation(name, f"there is no such constant: {one_of(name, BOUNDS)}")
        elif not BOUNDS[name].allow(value):
            wrong.add(name)
            said = repr(value) if isinstance(value, float) else show(value)  # 6.0 is not 6
            yield FieldViolation(name, f"is {said}: it must be {BOUNDS[name].describe()}.")
    values = {**defaults, **constants}
    for least, most in _ORDERED:
        if not wrong & {least, most} and values[least] > values[most]:
            given, other = (least, most) if least in constants else (most, least)
            side = "above" if given == least else "below"
            yield FieldViolation(
                given, f"is {show(values[given])}, {side} {other} = {show(values[other])}: change one of them."
            )
