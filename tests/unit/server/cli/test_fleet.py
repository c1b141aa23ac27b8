"""How fast clients are, for people."""

import pytest

from fedstep.server.cli.fleet import step_text
from fedstep.v1 import study_pb2


@pytest.mark.parametrize(
    ("step_ms", "text"),
    [(0.0, ""), (0.6712, "0.671 ms of 8"), (999.4, "999 ms of 8"), (999.6, "1 s of 8"), (2200.0, "2.2 s of 8")],
)
def test_a_step_is_told_in_milliseconds_or_in_seconds(step_ms: float, text: str) -> None:
    assert step_text(study_pb2.Pace(step_ms=step_ms, batch_size=8)) == text
