"""FedPop's two evolutionary updates, on plain configurations.

Chen et al., "FedPop: Federated Population-based Hyperparameter Tuning", AAAI 2025, arXiv 2308.08634, section
"Methodology": algorithm 1 and the function Evo of its equations 3 and 4; where the paper leaves something open, the
authors' implementation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedstep.common.space import Space
from fedstep.server.tuning.neighbourhood import Units, client_names, clipped, draw, near, other_names

_BASE_REACH = 2.0  # a copied arm's base moves twice as far as its clients' configurations: the authors' code


@dataclass(frozen=True)
class EvolutionSettings:
    """The constants of both updates; the defaults are the authors'.

    Attributes:
        radius: ε_0, the share of a range that a perturbation reaches to each side, at the start.
        resample: p_re, the chance that a configuration is drawn anew instead of perturbed, at the start.
        quantile: The share of a population that is replaced, and the share it is replaced from.
        discount: Of a loss by its age, where a configuration has several.
    """

    radius: float = 0.1
    resample: float = 0.1
    quantile: float = 0.3
    discount: float = 0.9


@dataclass
class Genome:
    """The configurations of one arm.

    Attributes:
        base: The whole point: the server's part, and the centre of the clients' box.
        slots: One configuration for each client of a round; they differ from the base in the clients' part.
    """

    base: Units
    slots: list[Units]


def annealed(start: float, progress: float) -> float:
    """A constant under cosine annealing: `start` at progress 0, 0 at progress 1 (equation 4)."""
    return start * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))


def discounted_mean(losses: Sequence[float], discount: float) -> float:
    """The mean of losses in order of time, each weighed by discount^age; infinite when there are none."""
    weights = [discount**age for age in range(len(losses))]
    weighed = sum(loss * weight for loss, weight in zip(reversed(losses), weights, strict=True))
    return weighed / sum(weights) if losses else math.inf


def pairs(scores: Sequence[float], quantile: float, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Who is replaced and by a copy of whom: the bottom quantile, each by one drawn from the top quantile.

    Args:
        scores: Less is better; those of fewer than two replace nobody.
        quantile: The share at both ends, rounded up.
        rng: For the draws.

    Returns:
        (replaced, copied) positions, the worst last.
    """
    if len(scores) < 2:
        return []
    order = sorted(range(len(scores)), key=lambda i: (scores[i], i))
    count = min(math.ceil(quantile * len(order) - 1e-9), len(order) // 2)
    return [(worse, order[int(rng.integers(count))]) for worse in order[-count:]]


def genome_around(space: Space, base: Units, size: int, radius: float, rng: np.random.Generator) -> Genome:
    """A whole point, and so many client configurations drawn from the box around it."""
    names = client_names(space)
    return Genome(base, [near(space, base, radius, names, rng) for _ in range(size)])


def evolve_clients(
    space: Space,
    genome: Genome,
    losses: Sequence[Sequence[float]],
    settings: EvolutionSettings,
    progress: float,
    rng: np.random.Generator,
) -> list[tuple[int, int]]:
    """FedPop-L, inside an arm: the worst client configurations become perturbed copies of the best, in place.

    With the chance p_re one is drawn around the base instead. None leaves the base's box.

    Args:
        space: The space.
        genome: Its `slots` are changed.
        losses: Of each slot since the last update, in order of time; a slot without any is left alone.
        settings: The constants.
        progress: Share of the arm's rounds behind it.
        rng: For the draws.

    Returns:
        (replaced, copied) slots.
    """
    names = client_names(space)
    radius, resample = annealed(settings.radius, progress), annealed(settings.resample, progress)
    heard = [slot for slot, told in enumerate(losses) if told]
    scores = [discounted_mean(losses[slot], settings.discount) for slot in heard]
    replaced = [(heard[worse], heard[better]) for worse, better in pairs(scores, settings.quantile, rng)]
    before = list(genome.slots)
    for worse, better in replaced:
        origin = genome.base if rng.random() < resample else before[better]
        moved = near(space, origin, radius, names, rng)
        genome.slots[worse] = clipped(space, moved, genome.base, settings.radius, names)
    return replaced


def evolved_copy(
    space: Space, genome: Genome, settings: EvolutionSettings, progress: float, rng: np.random.Generator
) -> Genome:
    """FedPop-G, between arms: what the replaced arm becomes of the better one.

    The server's part and the base of the clients' part are each perturbed, or with the chance p_re drawn anew; the
    client configurations are drawn around the new base.
    """
    resample = annealed(settings.resample, progress)
    base = dict(genome.base)
    for names, radius in (
        (client_names(space), _BASE_REACH * settings.radius),
        (other_names(space), annealed(settings.radius, progress)),
    ):
        source = draw(space, rng) if rng.random() < resample else near(space, base, radius, names, rng)
        base.update({name: source[name] for name in names})
    return genome_around(space, base, len(genome.slots), settings.radius, rng)
