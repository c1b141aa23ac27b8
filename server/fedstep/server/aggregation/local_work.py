"""How much training an update holds: what updates of different lengths are normalised by."""

import math
from dataclasses import dataclass

MAX_STEPS = 200_000
"""Local steps beyond this count as so many."""


@dataclass(frozen=True)
class LocalWork:
    """The local training behind an update, in effective local steps (see `effective_steps`).

    Attributes:
        done: Of the steps that were taken; greater than 0.
        due: Of all the steps that the round asks of such a client; at least `done`.
    """

    done: float
    due: float

    def check(self) -> None:
        """Checks the two numbers.

        Raises:
            ValueError: `done` is not a number greater than 0, or `due` not a finite one that is at least as large.
        """
        if not 0 < self.done <= self.due < math.inf:
            raise ValueError(
                f"The update's work is {self.done} of {self.due}; it must be above 0 and at most the whole."
            )


WHOLE = LocalWork(1.0, 1.0)
"""An update of all that was asked for."""


def effective_steps(steps: int, momentum: float = 0.0, pull: float = 0.0) -> float:
    """How many plain steps of SGD so many local steps amount to: the norm ‖aᵢ‖₁ of Wang et al. 2020 (FedNova).

    A client's change is −lr · Σ aₖ gₖ over the gradients gₖ of its steps. With momentum ρ an early gradient goes on
    moving the model: aₖ = (1 − ρ^(τ−k)) / (1 − ρ). FedProx's pull, of α = lr · μ a step, takes back what is there:
    aₖ = (1 − α)^(τ−1−k). With both, aₖ is the response of v ← ρv + g − αx, x ← x + v, to a gradient of 1.

    Args:
        steps: Local steps τ, at least 1; more than `MAX_STEPS` count as so many.
        momentum: ρ of local SGD.
        pull: α = lr · proximal_mu; more than 1 counts as 1, which takes everything back.
    """
    steps = min(steps, MAX_STEPS)
    if not momentum and not pull:
        return float(steps)
    pull, velocity, moved, norm = min(pull, 1.0), 1.0, 1.0, 1.0
    for _ in range(steps - 1):
        velocity = momentum * velocity - pull * moved
        moved += velocity
        norm += abs(moved)
    return norm
