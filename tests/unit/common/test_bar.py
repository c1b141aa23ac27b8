"""The bar that a notebook watches a study with, as it stands on a terminal."""

import re
from typing import Any

import pytest
from google.protobuf import struct_pb2

from fedstep.api.bar import StudyBar
from fedstep.v1 import study_pb2 as pb

TRIALS = {"trials": 4, "rounds_per_trial": 5}


def event(kind: str, **details: Any) -> pb.StudyEvent:
    told = struct_pb2.Struct()
    told.update(details)
    return pb.StudyEvent(kind=kind, text=f"{kind}.", details=told)


@pytest.mark.parametrize(
    ("budget", "arm", "said"),
    [
        (TRIALS, {}, "1/16 rounds"),  # four of the pruned trial's are not to come
        (TRIALS, {"rounds": 2}, "1/20 rounds"),  # an arm's are for others
        ({**TRIALS, "rounds": 30}, {}, "1/30 rounds"),
        ({**TRIALS, "rounds": 20}, {}, "1/20 rounds"),
        ({**TRIALS, "time": {"seconds": 60}}, {}, "round 1"),
        ({**TRIALS, "client_rounds": 60}, {}, "round 1"),
        ({**TRIALS, "payload_bytes": 60}, {}, "round 1"),
    ],
)
def test_a_total_is_shown_where_it_is_known(
    budget: dict[str, Any],
    arm: dict[str, Any],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("COLUMNS", "120")
    spec = pb.StudySpec(name="s", budget=pb.Budget(**budget))
    with StudyBar(pb.Study(spec=spec)) as bar:
        bar.event(event("trial_started", trial=0, **arm))
        bar.event(event("round_committed", trial=0, value=0.5))
        bar.event(event("trial_pruned", trial=0))
    last = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", capsys.readouterr().out).splitlines()[-1]
    assert f" {said} " in last.replace("1/ ", "1/"), last
    assert ("/" in last) == ("/" in said)
