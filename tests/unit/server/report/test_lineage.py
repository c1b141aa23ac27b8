import math
from dataclasses import replace

import pytest
from unit.server.report.arms import arm, story

from fedstep.server.report.lineage import Role, Tree, has_arms
from fedstep.server.storage.base import TrialRecord, TrialState


def roles(tree: Tree) -> dict[int, Role]:
    return {branch.trial.number: branch.role for branch in tree.branches}


def test_every_arm_has_its_role() -> None:
    assert roles(Tree(story(), 12)) == {
        0: Role.ASKED,
        2: Role.SCREENED,
        3: Role.REWOUND,
        5: Role.MEASURED,
        7: Role.AVERAGED,
        10: Role.REJECTED,
        **dict.fromkeys((1, 4, 6, 8, 9, 11, 12), Role.LINEAGE),
    }


def test_what_goes_on_from_a_branch_that_was_left_was_left_with_it() -> None:
    trials = [
        arm(0, 0.1, 2.0),
        arm(1, 0.2, 2.1),
        arm(2, 0.2, 1.9, parents=(1,), first=1),
        arm(3, 0.1, 1.5, parents=(0,)),
    ]
    assert roles(Tree(trials, 3)) == {0: Role.LINEAGE, 1: Role.SCREENED, 2: Role.SCREENED, 3: Role.LINEAGE}


def test_arms_that_failed_or_run_say_so() -> None:
    failed = arm(1, 0.2, parents=(0,), state=TrialState.FAILED)
    running = arm(2, 0.1, 1.0, parents=(0,), state=TrialState.RUNNING)
    assert roles(Tree([arm(0, 0.1, 2.0), failed, running], 0)) == {0: Role.LINEAGE, 1: Role.FAILED, 2: Role.RUNNING}


def test_a_branch_begins_at_the_last_value_before_it() -> None:
    branches = {branch.trial.number: branch for branch in Tree(story(), 12).branches}
    assert branches[1].start is None
    assert branches[1].points == ((2, 2.0),)
    assert branches[4].start == (2, 2.0)
    assert branches[9].start == (6, 1.0)
    assert branches[8].points == ((6, 1.0),)
    unmeasured = [arm(0, 0.1, 2.0), arm(1, 0.1, None, parents=(0,), first=1), arm(2, 0.1, 1.0, parents=(1,), first=2)]
    assert Tree(unmeasured, 2).branches[2].start == (1, 2.0)


def test_values_that_are_not_finite_are_no_points() -> None:
    assert Tree([arm(0, 0.1, math.nan, 2.0, math.inf)], 0).branches[0].points == ((2, 2.0),)


def test_the_schedule_covers_every_round_of_the_delivered_model_once() -> None:
    stretches = Tree(story(), 12).schedule()
    assert [(s.first, s.last, dict(s.hyperparameters), s.trials) for s in stretches] == [
        (1, 2, {"lr": 0.1}, (1,)),
        (3, 6, {"lr": 0.06}, (4, 6)),
        (7, 8, {"lr": 0.08}, (9,)),
        (9, 10, {"lr": 0.03}, (11,)),
    ]
    assert [s.averaged for s in stretches] == [(), ({"lr": 0.08},), (), ()]
    assert stretches[1].phases == ("advance", "fork")


def test_after_a_mean_the_same_configuration_is_a_stretch_of_its_own() -> None:
    trials = story()
    trials[9] = replace(trials[9], hyperparameters={"lr": 0.06})
    assert [(s.first, s.last) for s in Tree(trials, 9).schedule()] == [(1, 2), (3, 6), (7, 8)]


def test_a_plain_trial_is_a_schedule_of_one_stretch() -> None:
    (stretch,) = Tree([arm(0, 0.1, 2.0, 1.0), arm(1, 0.2, 2.0)], 0).schedule()
    assert (stretch.first, stretch.last, stretch.trials, stretch.phases) == (1, 2, (0,), ())


def test_without_a_delivered_arm_there_is_no_schedule() -> None:
    assert Tree(story(), None).schedule() == []
    assert Tree([], 3).schedule() == []


def test_adopted_is_what_the_next_incumbent_has() -> None:
    assert Tree(story(), 12).adoptions() == [(6, 1.0)]


def test_the_weights_of_a_rejected_challenger_are_no_adoption() -> None:
    trials = [
        arm(0, 0.1, 2.0),
        arm(1, 0.1, 1.5, parents=(0,), first=1, cohort=1, phase="fork"),
        arm(2, 0.2, 1.4, parents=(0,), first=1, cohort=1, phase="fork"),
        arm(3, 0.1, 1.2, parents=(2,), first=2, cohort=2),
    ]
    assert Tree(trials, 3).adoptions() == []
    adopted = [*trials[:3], replace(trials[3], hyperparameters={"lr": 0.2})]
    assert Tree(adopted, 3).adoptions() == [(2, 1.4)]


def test_what_a_member_of_a_population_takes_over_is_no_adoption() -> None:
    trials = [
        arm(0, 0.1, 2.0, phase="member 0"),
        arm(1, 0.1, 1.5, parents=(0,), first=1, phase="member 1"),
        arm(2, 0.2, 1.4, parents=(0,), first=1, phase="member 0"),
        arm(3, 0.2, 1.2, parents=(2,), first=2, phase="member 0"),
    ]
    assert Tree(trials, 3).adoptions() == []


def test_a_schedule_that_was_given_adopts_nothing() -> None:
    trials = [arm(k, 0.1 / (k + 1), 1.0, parents=(k - 1,) if k else (), first=k) for k in range(5)]
    assert Tree(trials, 4).adoptions() == []


def test_a_parent_that_is_not_there_counts_as_the_initial_model() -> None:
    assert roles(Tree([arm(7, 0.1, 1.0, parents=(3,))], 7)) == {7: Role.LINEAGE}


@pytest.mark.parametrize(
    ("details", "arms"), [({}, False), ({"delivered": True}, False), ({"phase": "x"}, True), ({"rounds": 3}, True)]
)
def test_arms_are_told_from_plain_trials(details: dict[str, object], arms: bool) -> None:
    assert has_arms([TrialRecord(0, TrialState.COMPLETED, {}, details=details)]) is arms
