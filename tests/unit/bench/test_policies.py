"""How the benchmark `deadlines` reads policies and what it makes of what came of them."""

import pytest

from fedstep.common.spec import StudySpec
from fedstep.server.storage.base import AssignmentRecord
from tests.bench.deadlines_report import rows_of
from tests.bench.policies import Policy, Ran, Terms, Waits, chosen

TERMS = Terms(rounds=7, seconds=60, cohort=3, lr=0.1, epochs=2)
NO_WAITS = Waits(0.0, 0, 0)


def study(text: str) -> StudySpec:
    return Policy(text).study("digits", TERMS, seed=4, clients=5)


def test_a_policy_is_a_selector_and_the_terms_of_a_round() -> None:
    spec = study("random:over_selection=1.5:deadline=2")
    assert (spec.selector.name, spec.round.over_selection, spec.round.deadline.total_seconds()) == ("random", 1.5, 2)
    assert (spec.round.cohort_size, spec.round.min_clients) == (3, 5)
    assert study("default").selector == StudySpec.model_fields["selector"].get_default(call_default_factory=True)
    assert Policy("all:exploration=0.2").tables()["selector"] == {"name": "all", "exploration": 0.2}


def test_fedbuff_is_a_policy_with_buffered_rounds() -> None:
    spec = study("fedbuff:buffer_size=2:deadline=9")
    assert (spec.round.mode, spec.round.buffer_size, spec.round.cohort_size) == ("buffered", 2, 3)
    assert spec.selector.name == "random"


def test_a_selector_of_another_version_is_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    assert [policy.text for policy in chosen(["all", "nosuch:deadline=3", "default"])] == ["all", "default"]
    assert "passed over: nosuch:deadline=3" in capsys.readouterr().out


def asked(client: str, number: int, status: str = "accepted") -> AssignmentRecord:
    return AssignmentRecord(f"{client}/{number}", 0, number, 1, client, "train", status)


def test_waits_count_from_the_start_and_to_the_end() -> None:
    ended = {0: 2.0, 1: 3.0, 2: 4.0, 3: 10.0}
    two = [asked("a", 0), asked("a", 2), asked("b", 1), asked("b", 3, "late")]
    assert Waits.of(["a"], two, ended) == Waits(6.0, 2, 0)
    assert Waits.of(["a", "b"], two, ended) == Waits(7.0, 3, 0)
    assert Waits.of(["a", "b", "c"], two, ended) == Waits(10.0, 5, 1)


def test_a_row_says_when_the_target_was_reached_and_how_many_times_sooner() -> None:
    def ran(policy: str, *accuracy: float) -> Ran:
        seconds = [10.0 * (n + 1) for n in range(len(accuracy))]
        return Ran(policy, seconds, accuracy, len(accuracy), 0.9, 0.8, NO_WAITS)

    slow, quick, never = ran("slow", 0.1, 0.2, 0.3, 0.9), ran("quick", 0.85, 0.95), ran("never", 0.5)
    told = [row[2] for row in rows_of([slow, quick, never], 0.8)]
    assert told == ["40.0", "10.0 (4.0×)", "not reached"]


def test_what_became_of_trainings_is_counted() -> None:
    found = [asked("a", number, status) for number, status in enumerate(["late", "late", "lost"])]
    assert Ran("x", (), (), 0, 0.1, 0.1, NO_WAITS, found).outcomes() == {"late": 2, "lost": 1}
