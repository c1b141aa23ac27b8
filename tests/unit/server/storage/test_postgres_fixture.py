"""That tests on PostgreSQL are skipped aloud, and not at all where nothing may be skipped."""

import pytest

from contract import postgres


@pytest.mark.parametrize("must", ["", "postgres"])
def test_without_a_server_a_test_is_skipped_or_fails(monkeypatch: pytest.MonkeyPatch, must: str) -> None:
    monkeypatch.setattr(postgres, "_programs", lambda: None)
    monkeypatch.setenv(postgres.MUST_RUN, must)
    expected = pytest.fail.Exception if must else pytest.skip.Exception
    with pytest.raises(expected, match="apt install postgresql"), postgres._a_server():
        pass
