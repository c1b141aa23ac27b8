import math
from typing import Any

import pytest
from unit.server.report.arms import NOW, arm, story

from fedstep.common.spec import Plugin
from fedstep.server.report.decisions import (
    changes_between,
    changes_text,
    decisions_of,
    evidence_text,
    is_decision,
    median_text,
)
from fedstep.server.storage.base import Event, TrialRecord, TrialState

STORY = {trial.number: trial for trial in story()}
STEPWISE = Plugin(name="stepwise")


def events(*told: tuple[str, dict[str, Any]]) -> list[Event]:
    return [Event(kind, f"{kind}.", details, number, NOW) for number, (kind, details) in enumerate(told, start=1)]


def test_decisions_are_told_from_what_merely_happens() -> None:
    for kind in ("adoption", "window", "exploitation", "trial_pruned", "trial_failed", "final_rounds", "my own"):
        assert is_decision(kind)
    for kind in ("study_started", "trial_started", "trial_completed", "round_committed", "round_missed", "client_late"):
        assert not is_decision(kind)
    for kind in ("late_update_taken", "clients_told_to_stop", "clients_go_on", "clients_missing"):
        assert not is_decision(kind)
    for kind in ("update_stale", "report_refused", "waiting_for_clients", "held_out_unavailable"):
        assert not is_decision(kind)


def test_a_decision_knows_the_rounds_and_the_phase_before_it() -> None:
    told = decisions_of(
        events(
            ("round_committed", {"trial": 0}),
            ("window", {}),
            ("round_committed", {"trial": 1}),
            ("round_committed", {"trial": 99}),
            ("elimination", {}),
        ),
        STORY,
        STEPWISE,
    )
    assert [(one.event.kind, one.round, one.phase) for one in told] == [
        ("window", 1, "probe"),
        ("elimination", 3, "screen"),
    ]


def test_an_adoption_says_what_changed_and_on_which_numbers() -> None:
    details = {
        "arms": [7.0, 6.0],
        "z": -2.5,
        "mean_difference": -0.03,
        "clients": 20,
        "guarded": True,
        "loss": math.nan,
    }
    (one,) = decisions_of(events(("adoption", details)), STORY, STEPWISE)
    assert one.changes == {"lr": (0.06, 0.08)}
    assert one.evidence == {"z": -2.5, "mean_difference": -0.03, "clients": 20}
    assert evidence_text(one.evidence) == "z −2.5, mean difference −0.03, n 20"
    assert changes_text(one.changes) == "lr 0.06 → 0.08"


def test_a_rewind_says_what_goes_on_instead() -> None:
    told = decisions_of(events(("rewind", {"arms": [1, 3]})), STORY, STEPWISE)
    assert told[0].changes == {"lr": (0.1, 0.06)}


def test_a_rewind_from_a_mean_looks_where_its_children_began() -> None:
    trials = {trial.number: trial for trial in [*story()[:9], arm(9, 0.036, 1.3, parents=(4,), first=4, cohort=4)]}
    (one,) = decisions_of(events(("rewind", {"arms": [4, 8]})), trials, STEPWISE)
    assert one.changes == {"lr": (0.06, 0.036)}


@pytest.mark.parametrize("arms", [[], [7], [None, 6], ["7", "6"], [70, 60], 7, [math.nan, 6]])
@pytest.mark.parametrize("kind", ["adoption", "rewind", "rejection"])
def test_arms_that_cannot_be_made_out_change_nothing(kind: str, arms: object) -> None:
    (one,) = decisions_of(events((kind, {"arms": arms})), STORY, STEPWISE)
    assert one.changes == {} or kind == "rewind"


PRUNED_BESIDE = {
    0: TrialRecord(0, TrialState.COMPLETED, {}, (0.2, 0.5, 0.7)),
    1: TrialRecord(1, TrialState.PRUNED, {}, (0.1, 0.2)),
    2: TrialRecord(2, TrialState.COMPLETED, {}, (0.2, 0.7, 0.9)),
    3: TrialRecord(3, TrialState.PRUNED, {}, (0.1, 0.55)),
    4: TrialRecord(4, TrialState.COMPLETED, {}, (0.1, 0.99, 0.99)),
}
PRUNING = events(
    ("trial_completed", {"trial": 0}),
    ("trial_completed", {"trial": 2}),
    ("trial_pruned", {"trial": 3.0}),
    ("trial_failed", {"trial": 1}),
    ("trial_completed", {"trial": 4}),
    ("trial_pruned", {"trial": 9}),
)


@pytest.mark.parametrize("options", [{}, {"pruner": "MedianPruner"}])
def test_a_trial_is_pruned_beside_the_median_of_those_completed_until_then(options: dict[str, str]) -> None:
    pruned, failed, unknown = decisions_of(PRUNING, PRUNED_BESIDE, Plugin(name="optuna", **options))
    assert pruned.evidence == {"rounds": 2, "value": 0.55, "median_of_completed": 0.6, "completed": 2}
    assert median_text(pruned.evidence) == "0.6000, the median of 2 completed trials"
    assert failed.evidence == {"rounds": 2, "value": 0.2}
    assert unknown.evidence == {}


@pytest.mark.parametrize(
    "tuner",
    [
        Plugin(name="optuna", pruner="SuccessiveHalvingPruner"),
        Plugin(name="optuna", pruner="PercentilePruner", pruner_options={"percentile": 25.0}),
        Plugin(name="ray", scheduler="ASHAScheduler"),
    ],
)
def test_who_does_not_prune_by_the_median_is_not_said_to(tuner: Plugin) -> None:
    pruned, *_ = decisions_of(PRUNING, PRUNED_BESIDE, tuner)
    assert pruned.evidence == {"rounds": 2, "value": 0.55}


def test_parameters_that_come_and_go_are_changes() -> None:
    changes = changes_between({"optimizer": "sgd", "momentum": 0.5, "x": 1}, {"optimizer": "adam", "x": 1, "y": True})
    assert changes == {"optimizer": ("sgd", "adam"), "momentum": (0.5, None), "y": (None, True)}
    assert changes_text(changes) == "optimizer sgd → adam, momentum 0.5 → none, y none → true"
