"""Real writers' digits for more clients than there are writers: each has a part of one writer's.

A task, for a thousand clients. Model and options are those of `tests/bench/writers_mlp.py`.
"""

from torch.utils.data import TensorDataset

from fedstep.common.task import ClientData, ClientInfo
from tests.bench.writers_mlp import WritersMlp

_WRITERS = 300


class WritersParts(WritersMlp):
    """Which digit is it? Client i of n has every k-th digit of writer i modulo 300, k = n / 300 rounded up."""

    name = "writers-parts"

    def load_data(self, client: ClientInfo) -> ClientData:
        """A part of a writer's digits, for both training and validation."""
        assert client.partition is not None, "give each client its share"
        index, count = client.partition
        writers = min(count, int(client.options.get("writers", _WRITERS)))
        whole = super().load_data(ClientInfo(client.name, (index % writers, writers), client.options)).train
        assert isinstance(whole, TensorDataset)
        parts = -(-count // writers)
        part = TensorDataset(*(tensor[index // writers :: parts] for tensor in whole.tensors))
        return ClientData(part, part)


task = WritersParts()
