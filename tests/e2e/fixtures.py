"""Programs that end with the test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.processes import Programs


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    """The programs of one test."""
    with Programs(tmp_path / "logs") as running:
        yield running
