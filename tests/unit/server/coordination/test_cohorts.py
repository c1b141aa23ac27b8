"""Who is asked, from the fleet's columns: over arms that are compared, over restarts, and as one by one."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from e2e.tiny import MANIFEST, Tiny
from torch import nn

from contract.store_kit import START, SetClock
from fedstep.common.spec import StudySpec
from fedstep.common.standard import DEFAULTS
from fedstep.common.tensors import Manifest
from fedstep.server.coordination.cohorts import Cohorts
from fedstep.server.coordination.eligible import Eligible
from fedstep.server.coordination.fleet import Fleet, LeasePolicy, Presence
from fedstep.server.coordination.intake import TakenLate
from fedstep.server.coordination.ledger import Ledger
from fedstep.server.coordination.pacing import PaceBook
from fedstep.server.coordination.run import Run, initial_run, rng_of
from fedstep.server.coordination.waiting import Waiting
from fedstep.server.selection.base import Selection, Selector
from fedstep.server.selection.evaluation import evaluation_cohort
from fedstep.server.selection.pace import Paces
from fedstep.server.selection.registry import create_selector
from fedstep.server.storage.base import AssignmentRecord, NewEvent, PaceRecord, RoundRecord
from fedstep.server.tuning.base import Arm
from fedstep.v1 import fleet_pb2

NAMES = [f"c{number:02}" for number in range(40)]


async def unheard(event: NewEvent) -> None:
    return


def paces(names: Sequence[str]) -> list[PaceRecord]:
    """Everyone's, the later the slower."""
    made = Paces()
    made.fit(len(names))
    for row in range(len(names)):
        for _ in range(5):
            made.stepped(row, 16, [10.0 * 1.1**row])
    return [PaceRecord(name, {"task": "tiny", **made.kept(row)}) for row, name in enumerate(names)]


class Study:
    """A study's cohorts over a fleet of its own, in one life of a coordinator."""

    def __init__(self, selector: str, history: Sequence[PaceRecord] = ()) -> None:
        clock = SetClock()
        self.fleet = Fleet(clock, LeasePolicy(), [])
        self.paces = PaceBook(self.fleet, Ledger(self.fleet, clock), history)
        self.spec = StudySpec.model_validate(
            {
                "name": "s",
                "task": "tiny",
                "seed": 5,
                "space": {"lr": {"low": 0.1, "high": 1.0}},
                "selector": {"name": selector},
                "round": {"cohort_size": 6},
                "evaluation": {"cohort_size": 5},
            }
        )
        selector = create_selector(self.spec.selector)
        eligible = Eligible(self.spec, self.fleet)
        eligible.compare_with(MANIFEST)
        waiting = Waiting(self.spec, self.fleet, eligible, clock, unheard, lambda: math.inf)
        self.cohorts = Cohorts(self.spec, self.fleet, self.paces, selector, eligible, waiting)
        self.committed: list[tuple[RoundRecord, list[AssignmentRecord]]] = []
        self.late: list[TakenLate] = []

    async def join(self, names: Sequence[str], **changes: Any) -> None:
        fields = {"task": "tiny", "model": MANIFEST.to_proto(), "train_samples": 32, "validation_samples": 8} | changes
        for name in names:
            await self.fleet.join(fleet_pb2.Hello(client_name=name, instance_id=name, **fields))

    def run(self, rounds: int, **changes: Any) -> Run:
        return replace(initial_run(self.spec, Tiny(), 0, DEFAULTS | changes), rounds=rounds)

    def select(self, rounds: int, arm: Arm | None = None, attempt: int = 1, **changes: Any) -> Selection:
        return self.cohorts.select(self.run(rounds, **changes), arm or Arm(0, {}), attempt)

    def trained(self, selection: Selection, trial: int, rounds: int, takes_late: bool = False) -> None:
        """The round is over: those it waited for delivered, the others were late; it may take those of the last one."""
        record = RoundRecord(
            trial=trial,
            round=rounds,
            attempts=1,
            model_sha256=b"",
            value=1.0,
            metrics={"loss": 5.0 / (1 + len(self.committed))},
            train_loss=1.0,
            cohort=selection.cohort,
            updates=selection.wanted,
            evaluators=(),
            seconds=10.0,
            ended_at=START + timedelta(seconds=len(self.committed)),
        )
        parts = [
            AssignmentRecord(
                assignment_id=f"{trial}/{rounds}/{name}",
                trial=trial,
                round=rounds,
                attempt=1,
                client=name,
                work="train",
                status="accepted" if place < selection.wanted else "late",
                samples=32,
                metrics={"loss": 1.0, "steps": 2.0, "loss_rms": 1.0 + place} if place < selection.wanted else {},
            )
            for place, name in enumerate(selection.cohort)
        ]
        late = []
        if takes_late and self.committed:
            before = [part for part in self.committed[-1][1] if part.status == "late"]
            late = [TakenLate(part.client, trial, rounds - 1, rounds) for part in before if part.trial == trial]
        self.committed.append((record, parts))
        self.late += late
        self.cohorts.observe(record, parts, late)


LEARNING = ["deadline", "oort", "power_of_choice"]


async def test_random_draws_as_it_always_has() -> None:
    study = Study("random")
    await study.join(NAMES[::-1])
    for rounds in range(5):
        drawn = rng_of(5, "select", rounds, 1).choice(40, size=6, replace=False)
        assert study.select(rounds).cohort == tuple(NAMES[place] for place in drawn)


async def test_whoever_cannot_train_now_is_no_candidate() -> None:
    study = Study("all")
    await study.join(NAMES[:4])
    await study.join(["other"], task="digits")
    await study.join(["wide"], model=Manifest.of(nn.Linear(9, 2).state_dict()).to_proto())
    await study.join(["empty"], train_samples=0)
    assert study.select(0).cohort == tuple(NAMES[:4])
    study.fleet.member(NAMES[1]).busy = "elsewhere"
    study.fleet.member(NAMES[2]).presence = Presence.GONE
    assert study.select(0).cohort == (NAMES[0], NAMES[3])
    study.fleet.member(NAMES[1]).busy = ""
    study.fleet.member(NAMES[2]).presence = Presence.CONNECTED
    assert study.select(0).cohort == tuple(NAMES[:4])
    study.fleet.member("other").presence = Presence.GONE
    await study.join(["other"])  # with the right task now
    assert study.select(0).cohort == (*NAMES[:4], "other")


@pytest.mark.parametrize("selector", LEARNING)
async def test_the_children_of_a_fork_train_on_the_same_clients_whatever_was_learnt(selector: str) -> None:
    study = Study(selector, paces(NAMES))
    await study.join(NAMES)
    first, second = Arm(1, {}, cohort=3), Arm(2, {}, cohort=3)
    drawn = []
    for rounds in range(4, 9):
        drawn.append(study.select(rounds, first))
        study.trained(drawn[-1], 1, rounds)
    for rounds, before in zip(range(4, 9), drawn, strict=True):
        selection = study.select(rounds, second, local_epochs=3)
        assert set(selection.cohort) == set(before.cohort)
        study.trained(selection, 2, rounds)
    # Who has gone is replaced, and nobody else.
    study.fleet.member(drawn[0].cohort[0]).presence = Presence.GONE
    third = study.select(4, Arm(3, {}, cohort=3))
    assert len(set(drawn[0].cohort) - set(third.cohort)) == 1
    assert len(third.cohort) == len(drawn[0].cohort)


@pytest.mark.parametrize("selector", LEARNING)
async def test_after_a_restart_it_draws_what_it_would_have_drawn(selector: str) -> None:
    study = Study(selector, paces(NAMES))
    await study.join(NAMES)
    for rounds in range(25):
        trial = rounds // 5
        study.trained(study.select(rounds, Arm(trial, {}, cohort=1 + trial)), trial, rounds, takes_late=True)
    study.trained(study.select(20, Arm(9, {}, cohort=9)), 9, 20)
    again = Study(selector, paces(NAMES))
    again.cohorts.recall(
        [record for record, _ in reversed(study.committed)],
        [part for _, parts in reversed(study.committed) for part in parts],
        {trial: 1 + trial for trial in range(5)} | {9: 9},
        study.late,
    )
    assert again.cohorts is not study.cohorts
    await again.join(NAMES[20:])  # they come back in another order
    await again.join(NAMES[:20])
    for rounds in (25, 26):
        mine, theirs = study.select(rounds, Arm(2, {}, cohort=9)), again.select(rounds, Arm(2, {}, cohort=9))
        assert mine == theirs
        study.trained(mine, 2, rounds)
        again.trained(theirs, 2, rounds)
    mine, theirs = study.select(20, Arm(3, {}, cohort=9)), again.select(20, Arm(3, {}, cohort=9))
    assert mine.cohort == theirs.cohort == study.committed[25][0].cohort


async def test_after_a_restart_it_is_told_of_late_updates_in_the_rounds_that_took_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[int, list[str]]] = []
    monkeypatch.setattr(Selector, "observe", lambda self, seen: told.append((seen.round, [*seen.late])))
    study = Study("random")
    await study.join(NAMES)
    for rounds in range(3):
        selection = replace(study.select(rounds), wanted=4)
        study.trained(selection, 0, rounds, takes_late=rounds == 1)
    before, told[:] = [*told], []
    assert [len(late) for _, late in before] == [0, 2, 0]
    parts = [part for _, parts in study.committed for part in parts]
    Study("random").cohorts.recall([record for record, _ in study.committed], parts, {0: 0}, study.late)
    assert told == before


async def test_the_evaluators_are_those_of_the_plain_draw_and_do_not_train_in_their_generation() -> None:
    study = Study("deadline", paces(NAMES))
    await study.join(NAMES)
    await study.cohorts.wait(study.run(0), Arm(0, {}, cohort=2))
    assert study.cohorts.evaluators() == evaluation_cohort(NAMES, 5, 5)
    evaluators = study.cohorts.evaluators(2)
    assert len(evaluators) == 5
    others = study.cohorts.evaluators(2, without=evaluators[:2])
    assert len(others) == 20  # enough that one of them can
    assert not set(others) & set(evaluators[:2])
    for rounds in range(10):  # half of the promised twenty: 3 × 40 / 6
        assert not set(study.select(rounds, Arm(0, {}, cohort=2)).cohort) & set(evaluators)


async def test_an_evaluator_whose_promised_rounds_run_out_trains_and_in_all_arms_of_its_generation() -> None:
    study = Study("deadline", paces(NAMES))
    await study.join(NAMES)
    await study.cohorts.wait(study.run(0), Arm(0, {}, cohort=2))
    evaluators = set(study.cohorts.evaluators(2))
    first = []
    for rounds in range(20):
        first.append(study.select(rounds, Arm(0, {}, cohort=2)))
        study.trained(first[-1], 0, rounds)
    assert not any(evaluators & set(selection.cohort) for selection in first[:10])
    assert any(evaluators & set(selection.cohort) for selection in first[10:])
    again = [study.select(rounds, Arm(1, {}, cohort=2)).cohort for rounds in range(20)]
    assert again == [selection.cohort for selection in first]


async def test_only_arms_that_are_compared_have_no_open_end_and_no_newcomers() -> None:
    for arm, ends_early in ((Arm(0, {}, cohort=2), False), (Arm(0, {}, cohort=2, alone=True), True)):
        study = Study("deadline")
        await study.join(NAMES)
        await study.cohorts.wait(study.run(0), arm)
        selection = study.select(0, arm)
        assert (selection.open_end, bool(selection.newcomers)) == (ends_early, ends_early)


@pytest.mark.parametrize("selector", ["random", "oort"])
async def test_where_nothing_is_promised_evaluators_never_train_in_their_generation(selector: str) -> None:
    study = Study(selector, paces(NAMES))
    await study.join(NAMES)
    await study.cohorts.wait(study.run(0), Arm(0, {}, cohort=2))
    for rounds in range(60):
        assert not set(study.select(rounds, Arm(0, {}, cohort=2)).cohort) & set(study.cohorts.evaluators(2))


async def test_in_a_small_fleet_a_generation_has_more_to_train_than_one_cohort() -> None:
    study = Study("random")
    await study.join(NAMES[:12])
    await study.cohorts.wait(study.run(0), Arm(0, {}, cohort=2))
    trained = {name for rounds in range(12) for name in study.select(rounds, Arm(0, {}, cohort=2)).cohort}
    assert trained == set(NAMES[:12])  # beside five evaluators there are seven, no cohort of eight


async def test_the_columns_hold_what_the_members_are() -> None:
    study = Study("all")
    await study.join(NAMES[::-1], train_samples=2**64 - 1)
    roll, members = study.fleet.roll, study.fleet.members()
    assert [member.name for member in members] == NAMES
    assert [roll.names[row] for row in roll.by_name] == NAMES
    assert all(study.fleet.at(member.row) is member for member in members)
    assert np.all(roll.train_samples[: len(roll)] == 2**62)
    await study.join(["a", "zz"])
    assert [member.name for member in study.fleet.members()] == ["a", *NAMES, "zz"]
