"""The rungs of successive elimination, planned so that the whole budget is used."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Halving:
    """Many trials that train in rungs; after each rung only the best of them go on.

    Attributes:
        trials: Trials at the start.
        rate: One of so many goes on after a rung.
        stops: Rounds that a trial has behind it at the end of each rung, rising; the last rung eliminates nobody.
    """

    trials: int
    rate: int
    stops: tuple[int, ...]

    def survivors(self, alive: int) -> int:
        """How many of these go on after a rung; at least 1."""
        return max(1, alive // self.rate)


def plan_halving(trials: int, rate: int, total: int, longest: int) -> Halving:
    """Successive elimination within a budget.

    With e eliminations, all rungs r_1, ..., r_e but the last cost longest + Σ (rate^i - 1) r_i rounds in all. They get
    equal lengths, and what is left over lengthens the early ones, where more trials are compared. Khodak et al. 2021
    plan the same: 4,000 rounds, at most 800 a trial, 27 trials at rate 3 give stops at 89, 177, 268 and 800.

    Args:
        trials: Trials at the start; fewer are planned where the budget has no round for each.
        rate: One of so many goes on, at least 2.
        total: Rounds of the whole budget, at least 1.
        longest: Rounds of the trial that survives; fewer where the budget demands it.

    Returns:
        The plan: rate^e trials, the most that are no more than asked for and can have a round in every rung.
    """
    eliminations = 0
    while (
        rate ** (eliminations + 1) <= trials
        and eliminations + 2 <= longest
        and _extra(rate, eliminations + 1) + eliminations + 2 <= total
    ):
        eliminations += 1
    extra = _extra(rate, eliminations)
    longest = min(longest, total - extra)
    spare = total - longest
    # No rung may be so long that nothing is left of the longest trial for the rung after it.
    length = min(spare // extra, (longest - 1) // eliminations) if eliminations else 0
    spare -= length * extra
    rungs: list[int] = []
    for i in range(eliminations, 0, -1):
        room = longest - 1 - sum(rungs) - length * i
        more = min(spare // (rate**i - 1), room)
        spare -= more * (rate**i - 1)
        rungs.append(length + more)
    stops = [sum(rungs[: k + 1]) for k in range(len(rungs))]
    return Halving(rate**eliminations, rate, (*stops, longest))


def _extra(rate: int, eliminations: int) -> int:
    """Rounds that rungs of one round each cost beyond those of the trial that survives."""
    return sum(rate**i - 1 for i in range(1, eliminations + 1))
