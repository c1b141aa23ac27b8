"""A view or a format whose package is not installed says so in a sentence, and what to do."""

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fedstep.common.errors import InvalidInputError, PreconditionError
from fedstep.server.cli.model import model
from fedstep.server.dashboard import Dashboard, read_only
from fedstep.server.metrics.tensorboard import need_tensorboard


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the optional packages is installed."""
    there = importlib.util.find_spec
    optional = ("tensorboard", "optuna_dashboard", "onnx", "onnxscript")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in optional else there(name))


def test_tensorboard(bare: None) -> None:
    with pytest.raises(InvalidInputError, match=r'^--tensorboard needs .*`pip install "fedstep\[tensorboard\]"`'):
        need_tensorboard()


async def test_the_dashboard(bare: None) -> None:
    with pytest.raises(InvalidInputError, match=r'^--dashboard-port needs .*`pip install "fedstep\[dashboard\]"`'):
        await Dashboard("sqlite://", "127.0.0.1", 0).start()


def test_onnx(bare: None, tmp_path: Path) -> None:
    ran = CliRunner().invoke(model, ["download", "s", "--format", "onnx", "--output", str(tmp_path / "m.onnx")])
    assert isinstance(ran.exception, PreconditionError)
    assert 'ONNX needs onnx and onnxscript, which are not installed: pip install "fedstep[onnx]"' in str(ran.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("method", "answers"), [("GET", 200), ("HEAD", 200), ("PUT", 405), ("POST", 405), ("DELETE", 405)]
)
def test_a_dashboard_is_for_reading(method: str, answers: int) -> None:
    heard: list[str] = []

    def app(environment: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [b""]

    read_only(app)({"REQUEST_METHOD": method}, lambda status, headers: heard.append(status))
    assert [int(status.split()[0]) for status in heard] == [answers]
