"""A client trains where nothing is installed but what `pip install "fedstep[client]"` brings."""

import re
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from e2e.processes import Programs, fedstep
from e2e.studies import write_study

# Python imports it at its start; whatever is not the client's is then not there.
HIDES = """
import sys

class Hidden:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden)
"""


def brought_by(extra: str) -> set[str]:
    """Every package that the extra installs, those of its packages included."""
    found: set[str] = set()
    waiting = [("fedstep", extra)]
    while waiting:
        name, extra = waiting.pop()
        for requirement in distribution(name).requires or ():
            needed = re.split(r"[\s\[<>=!~;(]", requirement)[0].lower().replace("_", "-")
            marker = requirement.partition(";")[2]
            if "extra" in marker and f'"{extra}"' not in marker.replace("'", '"'):
                continue
            if needed not in found and "sys_platform == 'win32'" not in marker:
                found.add(needed)
                waiting.append((needed, ""))
    return found


def test_without_optuna_and_sqlalchemy(tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = brought_by("client") | {"fedstep"}
    assert {"torch", "grpcio", "scikit-learn"} <= kept
    others = {
        module
        for module, owners in packages_distributions().items()
        if not any(owner.lower().replace("_", "-") in kept for owner in owners)
    }
    hidden = others | {"fedstep.server", "fedstep.simulation"}
    assert {"optuna", "sqlalchemy", "alembic", "matplotlib", "safetensors"} <= hidden
    (tmp_path / "hides").mkdir()
    (tmp_path / "hides/sitecustomize.py").write_text(HIDES.format(names=hidden))
    _, address = programs.coordinator(tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path / "hides"), prepend=":")
        assert 'pip install "fedstep[server]"' in fedstep("coordinator").err
        programs.client(address, "alone", "--partition", "1/8")
    study = write_study(tmp_path / "s.toml", task="digits")
    assert fedstep("study", "run", study, "--coordinator", address, "--json").code == 0
