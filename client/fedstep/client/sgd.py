"""Stochastic gradient descent without torch.optim."""

from collections.abc import Iterable

import torch
from torch import nn


class PlainSGD:
    """What `torch.optim.SGD` does with a learning rate, momentum and weight decay, bit for bit.

    The first step of anything in torch.optim imports torch's compiler: two seconds and 100 MB, in every client process
    and for nothing. SGD is the default local optimizer, and these lines spare a small device that.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        """No step taken yet.

        Args:
            parameters: What is trained.
            lr: Learning rate.
            momentum: 0 for none.
            weight_decay: L2 penalty; 0 for none.
        """
        self._parameters = list(parameters)
        self._lr = lr
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._velocities: dict[nn.Parameter, torch.Tensor] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Moves every parameter that has a gradient."""
        for parameter in self._parameters:
            gradient = parameter.grad
            if gradient is None:
                continue
            if self._weight_decay:
                gradient = gradient.add(parameter, alpha=self._weight_decay)
            if self._momentum:
                velocity = self._velocities.get(parameter)
                if velocity is None:
                    velocity = self._velocities[parameter] = gradient.clone()
                else:
                    velocity.mul_(self._momentum).add_(gradient)
                gradient = velocity
            parameter.add_(gradient, alpha=-self._lr)
