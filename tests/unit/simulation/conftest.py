from pathlib import Path

import pytest
from unit.simulation import kit


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    """`kit.STUDY` in a file."""
    path = tmp_path / "study.toml"
    path.write_text(kit.STUDY)
    return path
