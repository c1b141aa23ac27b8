"""How a training loop that is not fedstep's own stays in touch: a call after every local step."""

from typing import Protocol

import torch


class Progress(Protocol):
    """What a training loop of a task's own is handed (see `Task.train`).

    Attributes:
        device: Where the model is.
        seed: Of this training: for shuffling, so that it can be done again. torch's global generator is seeded with it.
        max_steps: Stop after so many local steps; 0 for no limit. `step` knows it too.
    """

    device: torch.device
    seed: int
    max_steps: int

    def step(self, loss: float | torch.Tensor, samples: int) -> bool:
        """Reports a local step that was taken.

        Args:
            loss: Its mean loss over its samples, a number or a tensor with one element.
            samples: How many it had.

        Returns:
            Whether to take another one; after False the loop returns, and what it has trained is sent.

        Raises:
            FedstepError: Nothing of it is wanted any more, or the loss is not finite: let it pass.
        """
