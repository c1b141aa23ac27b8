"""What simulated clients read of the coordinator: models from its shelf, and hyper-parameters."""

import torch

from fedstep.client.work import Model
from fedstep.common import wire
from fedstep.common.errors import DataLossError
from fedstep.common.hyperparameters import Value, map_from_proto
from fedstep.common.tensors import checksum
from fedstep.server.coordination.shelf import Shelf
from fedstep.v1 import fleet_pb2

_HELD = 4


class Post:
    """Reads once, for all clients, what every one of them would read for itself.

    Args:
        shelf: Where the coordinator puts them.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._held: dict[bytes, Model] = {}
        self._last = fleet_pb2.Assignment()
        self._last_values: dict[str, Value] = {}

    def hyperparameters(self, assignment: fleet_pb2.Assignment) -> dict[str, Value]:
        """An assignment's. A cohort has the same most often, and comparing them is faster than reading them."""
        if assignment.hyperparameters != self._last.hyperparameters:
            self._last, self._last_values = assignment, map_from_proto(assignment.hyperparameters)
        return self._last_values

    def get(self, sha256: bytes) -> Model:
        """The model of that digest.

        Raises:
            NotFoundError: No run uses it any more.
            DataLossError: What is on the shelf is not what its checksum says.
        """
        model = self._held.get(sha256)
        if model is None:
            model = self._held[sha256] = self._read(sha256)
            while len(self._held) > _HELD:
                del self._held[next(iter(self._held))]
        return model

    def _read(self, sha256: bytes) -> Model:
        shelved = self._shelf.get(sha256)
        read = wire.deserializer(fleet_pb2.FetchModelResponse)
        parts = [part for part in map(read, shelved.frames) if isinstance(part, memoryview)]
        payload = torch.empty(shelved.manifest.payload_bytes, dtype=torch.uint8)
        if parts:
            payload.copy_(torch.frombuffer(bytearray().join(parts), dtype=torch.uint8))
        if checksum(payload) != shelved.checksum:
            raise DataLossError(f"The model {sha256.hex()[:16]} on the shelf does not match its checksum.")
        return Model(shelved.manifest, payload, sha256)
