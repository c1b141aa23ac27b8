"""What an update must pass before it may touch the mean."""

import math

import torch

from fedstep.common.errors import InvalidInputError

_BLOCK_ELEMENTS = 1 << 20
"""Long enough to run at memory speed, short enough for a float32 sum of squares to stay exact."""

_LEAST_WEIGHTS_NORM = 1.0
"""What a smaller model's norm counts as: one that starts at zero must be allowed to move."""


class DivergedUpdateError(InvalidInputError):
    """An update that shows that its training ran away."""


def l2_norm(flat: torch.Tensor) -> float:
    """The L2 norm, in one pass over memory; inf or nan when a value, or its square in float32, is not finite.

    Args:
        flat: float32 [elements].
    """
    total = 0.0
    for start in range(0, flat.numel(), _BLOCK_ELEMENTS):
        block = flat[start : start + _BLOCK_ELEMENTS]
        total += float(torch.dot(block, block))
    return math.sqrt(total)


def check_update(update: torch.Tensor, weights_norm: float, max_ratio: float) -> None:
    """Lets a sound update pass, in one pass over memory; only a refusal looks closer.

    Args:
        update: float32 [elements], as a client sent it.
        weights_norm: The `l2_norm` of the model it was computed from; less than 1 counts as 1.
        max_ratio: `GuardPolicy.max_update_ratio`.

    Raises:
        DivergedUpdateError: It holds values that are not finite, or its norm exceeds `max_ratio` times the model's.
    """
    largest = max_ratio * max(weights_norm, _LEAST_WEIGHTS_NORM)
    norm = l2_norm(update)
    if norm <= largest and math.isfinite(norm):
        return
    broken = update.numel() - int(torch.isfinite(update).sum())
    if broken:
        values = "1 non-finite value" if broken == 1 else f"{broken} non-finite values"
        raise DivergedUpdateError(f"The update holds {values} of {update.numel()}: the client's training diverged.")
    if not math.isfinite(norm):
        # Finite values whose squares leave float32: the norm itself may still be an honest number.
        norm = float(torch.linalg.vector_norm(update, dtype=torch.float64))
    if norm > largest:
        reference = f"{weights_norm:.3g}" if weights_norm >= _LEAST_WEIGHTS_NORM else f"{weights_norm:.3g} (taken as 1)"
        raise DivergedUpdateError(
            f"The update's norm is {norm:.3g}, more than {max_ratio:g} times the model's {reference}: "
            "the client's training diverged; lower lr, or raise guard.max_update_ratio."
        )
