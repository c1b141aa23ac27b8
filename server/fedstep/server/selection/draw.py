"""Draws among very many clients that are the same for whoever is there.

Every client has a number of its own for each draw, mixed from its name's and the draw's. So the order of the
candidates does not matter, a client that comes or goes moves at most one place, and where the weights have changed a
little, most of those drawn are the same: two arms that are compared differ by as few clients as can be.
"""

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

_ROUNDING = 1e-9
"""So that 10 clients times 1.1 are 11, not the 12 that ceil makes of 11.000000000000002."""

_NEXT_TO_NOTHING = 1e-300


def key_of(name: str) -> int:
    """A client's number in [0, 2⁶⁴): the same in every process and release."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, person=b"selection").digest(), "little")


def places(there: int, wanted: int, over_selection: float) -> tuple[int, int]:
    """At how many updates a round closes, and how many clients it asks.

    Args:
        there: Candidates.
        wanted: Updates the round should bring; 0 for as many as there are candidates.
        over_selection: How many times `wanted` to ask.
    """
    closes_at = min(wanted or there, there)
    return closes_at, min(math.ceil(closes_at * over_selection - _ROUNDING), there)


def uniforms(keys: NDArray[np.uint64], rng: np.random.Generator) -> NDArray[np.float64]:
    """A number in (0, 1) for each key, the same for the same key and generator, whatever the other keys are."""
    mixed = keys + rng.integers(2**64, dtype=np.uint64)
    # SplitMix64's finalizer (Steele et al. 2014, Fast Splittable Pseudorandom Number Generators).
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def weighted(
    uniform: NDArray[np.float64], weights: NDArray[np.float64], among: NDArray[np.intp], count: int
) -> NDArray[np.intp]:
    """Draws without replacement, each time in proportion to the weights (Efraimidis and Spirakis 2006).

    Args:
        uniform: A number in (0, 1) for every client.
        weights: Of every client; one that is 0 or no number is drawn after all others.
        among: Where those stand that may be drawn.
        count: How many, at most.

    Returns:
        Where those drawn stand, in the order of the draw.
    """
    if count <= 0 or not among.size:
        return among[:0]
    usable = np.nan_to_num(weights[among], nan=0.0, posinf=0.0, neginf=0.0)
    race = -np.log(uniform[among]) / np.maximum(usable, _NEXT_TO_NOTHING)
    return among[first(race, count)]


def first(values: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Where the least of these stand, in order."""
    if count >= len(values):
        return np.argsort(values, kind="stable")
    least = np.argpartition(values, count)[:count]
    return least[np.argsort(values[least], kind="stable")]
