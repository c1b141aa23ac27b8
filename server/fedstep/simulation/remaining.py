"""How long the rest of a comparison will take, by what its studies took so far."""

from collections.abc import Sequence

from fedstep.simulation.outcome import Key, Outcome


def remaining_s(missing: Sequence[Key], done: Sequence[Outcome], processes: int) -> float | None:
    """Seconds until all of them are done; None where nothing is known of any.

    Args:
        missing: Studies that are still to end.
        done: Those that have; those that say no time are passed over.
        processes: How many run at the same time.
    """
    timed = [outcome for outcome in done if outcome.wall_s > 0]
    if not timed:
        return None
    each_s = [_seconds_a_round(key.tuner, timed) * key.budget for key in missing]
    return max(sum(each_s) / processes, max(each_s, default=0.0))


def _seconds_a_round(tuner: str, done: Sequence[Outcome]) -> float:
    """Of the studies of that tuner; of all, where none of its own has ended."""
    known = [outcome for outcome in done if outcome.key.tuner == tuner] or done
    return sum(outcome.wall_s for outcome in known) / sum(outcome.key.budget for outcome in known)
