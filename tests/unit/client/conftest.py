from collections.abc import AsyncIterator

import pytest
from unit.client.fake_coordinator import FakeCoordinator


@pytest.fixture
async def coordinator() -> AsyncIterator[FakeCoordinator]:
    fake = FakeCoordinator()
    await fake.start()
    yield fake
    await fake.stop()
