"""The contract of stores, in memory."""

import pytest

from contract.store_kit import OpenStore, StoreKit
from fedstep.server.storage.memory_store import Memory, MemoryStore


class TestMemory(StoreKit):
    @pytest.fixture
    def open_store(self) -> OpenStore:
        memory = Memory()
        return lambda clock: MemoryStore(memory, clock)
