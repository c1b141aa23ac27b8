"""How long a measurement waits for those who are missing: on a virtual clock."""

import asyncio

import pytest
from unit.server.coordination.phase_kit import Clients

from fedstep.server.coordination.ledger import Status
from fedstep.server.coordination.phases import EvaluationPhase
from fedstep.simulation.virtual_loop import run_virtual


def waited_s(answer_s: list[float], asked: int, deadline_s: float = 60.0) -> tuple[float, list[Status]]:
    """When a measurement ends whose clients answer at these times, and the others never; and how it stands with all."""

    async def main() -> tuple[float, list[Status]]:
        clients = Clients()
        await clients.join(*(f"c{number}" for number in range(asked)))
        phase = EvaluationPhase(clients.ledger, asked, deadline_s)
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
        ([0.5, 0.5], 4, 60.0),
        ([0.5, 0.5], 3, 60.0),
    ],
    ids=["ten times", "two seconds", "a slow one is in time", "not beyond the deadline", "half", "one of three"],
)
def test_when_most_have_answered_the_rest_have_ten_times_as_long(
    answer_s: list[float], asked: int, ends_s: float
) -> None:
    ended_s, statuses = waited_s(answer_s, asked)
    assert ended_s == pytest.approx(ends_s)
    assert statuses == [Status.ACCEPTED] * len(answer_s) + [Status.LATE] * (asked - len(answer_s))
