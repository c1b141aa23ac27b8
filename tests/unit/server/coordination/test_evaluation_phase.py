"""How long a measurement waits for those who are missing: on a virtual clock."""

import asyncio
from collections.abc import Sequence

import pytest
from unit.server.coordination.phase_kit import Clients

from fedstep.server.coordination.ledger import OpenAssignment, Status
from fedstep.server.coordination.measuring_times import MeasuringTimes
from fedstep.server.coordination.phases import EvaluationPhase
from fedstep.simulation.virtual_loop import run_virtual


def waited_s(answer_s: list[float], asked: int, expected_s: Sequence[float] = ()) -> tuple[float, list[Status]]:
    """When a measurement ends whose clients answer at these times, and the others never; and how it stands with all."""

    async def main() -> tuple[float, list[Status]]:
        clients = Clients()
        await clients.join(*(f"c{number}" for number in range(asked)))
        expected = {f"c{number}": seconds for number, seconds in enumerate(expected_s)}
        phase = EvaluationPhase(clients.ledger, asked, 60.0, expected)
        work = list(clients.begin(phase).values())

        async def answer(number: int) -> None:
            await asyncio.sleep(answer_s[number])
            phase.settle(work[number], Status.ACCEPTED)

        async with asyncio.TaskGroup() as group:
            for number in range(len(answer_s)):
                group.create_task(answer(number))
            await phase.wait()
            ended_s = clients.now_s()
        return ended_s, [assignment.status for assignment in work]

    return run_virtual(main())


@pytest.mark.parametrize(
    ("answer_s", "asked", "ends_s"),
    [
        ([0.5, 0.5, 0.5], 4, 5.0),
        ([0.05] * 5, 6, 2.0),
        ([0.5, 0.5, 0.5, 4.0], 4, 4.0),
        ([20.0] * 5, 6, 60.0),
        ([0.5, 0.5], 4, 10.0),
        ([0.05], 4, 8.0),
        ([0.5, 4.0], 4, 60.0),
        ([], 4, 60.0),
    ],
    ids=[
        "ten times",
        "two seconds",
        "a slow one is in time",
        "not beyond",
        "of half",
        "of a quarter",
        "slow",
        "nobody",
    ],
)
def test_those_of_whom_nothing_is_known_have_ten_times_as_long_and_longer_the_fewer_have_answered(
    answer_s: list[float], asked: int, ends_s: float
) -> None:
    ended_s, statuses = waited_s(answer_s, asked)
    assert ended_s == pytest.approx(ends_s)
    assert statuses == [Status.ACCEPTED] * len(answer_s) + [Status.LATE] * (asked - len(answer_s))


@pytest.mark.parametrize(
    ("answer_s", "expected_s", "ends_s"),
    [
        ([0.05, 0.05], [0.1, 0.1, 0.1, 0.1], 1.0),
        ([0.05], [0.1, 0.1, 0.1, 0.1], 1.0),
        ([0.05, 0.05], [0.1, 0.1, 0.1, 3.0], 9.0),
        ([0.05, 0.05, 0.05], [0.1, 0.1, 0.1, 3.0], 2.0),
        ([2.0, 2.0], [0.1, 0.1, 0.1, 0.5], 30.0),
        ([0.05], [0.1], 8.0),
    ],
    ids=["two silent", "three silent", "a slow one", "a slow one alone", "all take longer", "unknown"],
)
def test_those_whose_pace_is_known_have_three_times_what_they_are_expected_to_take(
    answer_s: list[float], expected_s: list[float], ends_s: float
) -> None:
    ended_s, statuses = waited_s(answer_s, 4, expected_s=expected_s)
    assert ended_s == pytest.approx(ends_s)
    assert statuses == [Status.ACCEPTED] * len(answer_s) + [Status.LATE] * (4 - len(answer_s))


def test_whoever_missed_the_last_one_and_is_silent_since_is_not_waited_for() -> None:
    async def main() -> list[float]:
        clients = Clients()
        await clients.join("fast", "slow", "silent")
        members = tuple(clients.members.values())
        times, ended_s = MeasuringTimes(clients.fleet), list[float]()

        async def answer(phase: EvaluationPhase, assignment: OpenAssignment, seconds: float) -> None:
            await asyncio.sleep(seconds)
            clients.fleet.heard(assignment.member)
            phase.settle(assignment, Status.ACCEPTED)

        for number in range(4):
            expected_s = times.expected_s(members, {})
            phase = EvaluationPhase(clients.ledger, 3, 60.0, expected_s, times.silent(members))
            work, began_s = clients.begin(phase), clients.now_s()

            async with asyncio.TaskGroup() as group:
                group.create_task(answer(phase, work["fast"], 0.05))
                group.create_task(answer(phase, work["slow"], 0.5))
                if number == 0:
                    group.create_task(answer(phase, work["silent"], 0.1))
                await phase.wait()
                ended_s.append(clients.now_s() - began_s)
            times.learn_from(phase)
            if number == 2:
                clients.fleet.heard(clients.members["silent"])
        return ended_s

    # It answers; it does not, and has three times what it took or a second; it is silent still; it was heard of.
    assert run_virtual(main()) == pytest.approx([0.5, 1.0, 0.5, 1.0])
