"""How a model came to be: its trials back to the initial model, and the same in fewer or more rounds."""

from collections.abc import Mapping, Sequence

from fedstep.server.report.lineage import way_to
from fedstep.server.storage.base import TrialRecord
from fedstep.simulation.outcome import Leg


def schedule_of(trials: Mapping[int, TrialRecord], number: int) -> tuple[Leg, ...]:
    """The legs that trained a trial's model, from the initial one on.

    Of a mean of several trials the first one's way is followed: they part for a few rounds only.

    Args:
        trials: All of a study, by number.
        number: The trial.
    """
    legs: list[Leg] = []
    for trial in way_to(trials, number):
        if not trial.rounds or trial.details.get("discard"):
            continue
        point = dict(trial.hyperparameters)
        if legs and legs[-1].hyperparameters == point:
            legs[-1] = Leg(hyperparameters=point, rounds=legs[-1].rounds + trial.rounds)
        else:
            legs.append(Leg(hyperparameters=point, rounds=trial.rounds))
    return tuple(legs)


def average_of(trials: Mapping[int, TrialRecord], number: int) -> float:
    """Decay of the averaged model kept on the way to a trial's model; 0 when there was none."""
    return max(float(trial.details.get("average", 0.0)) for trial in way_to(trials, number))


def stretched(schedule: Sequence[Leg], rounds: int) -> list[Leg]:
    """The schedule in so many rounds, every leg with its share; one too short for a round is left out.

    Args:
        schedule: At least one leg.
        rounds: At least 1.
    """
    total = sum(leg.rounds for leg in schedule)
    legs, behind, before = [], 0, 0
    for leg in schedule:
        behind += leg.rounds
        end = (2 * behind * rounds + total) // (2 * total)  # to the nearest whole round
        if end > before:
            legs.append(Leg(hyperparameters=leg.hyperparameters, rounds=end - before))
        before = end
    return legs
