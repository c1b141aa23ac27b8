"""Real writers' digits on machines whose local steps take a time of their own, not that of two shared cores.

A task: model and options are those of `tests/bench/writers_mlp.py`, and `step_ms`, 20 unless given: every local step
sleeps so long. Sixteen clients then compute next to nothing, and slowness means what the client's `--slowdown` makes of
that time.
"""

import time

import torch
from torch import nn

from fedstep.common.task import Batch, ClientData, ClientInfo
from tests.bench.writers_mlp import WritersMlp


class WritersPaced(WritersMlp):
    """Which digit is it? With a pause in every local step."""

    name = "writers-paced"
    more_options = ("step_ms",)

    def __init__(self) -> None:
        super().__init__()
        self._step_s = 0.02

    def load_data(self, client: ClientInfo) -> ClientData:
        """As the other task's; and notes how long a step takes on this client."""
        self._step_s = float(client.options.get("step_ms", "20")) / 1000
        return super().load_data(client)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The same, later."""
        if torch.is_grad_enabled():
            time.sleep(self._step_s)
        return super().loss(model, batch)


task = WritersPaced()
