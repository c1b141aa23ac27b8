"""Simulated clients that are slow, stall, or lose their network and come back."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from unit.simulation.kit import Clouds, study
from unit.simulation.test_clients import CLIENT, FETCH_S, PACE, Host
from unit.simulation.test_run import decided, simulated

from fedstep.common.errors import InvalidInputError
from fedstep.common.handicap import UNHINDERED, Handicap
from fedstep.common.pauses import NEVER, Pauses
from fedstep.server.coordination.fleet import Member, Presence
from fedstep.server.coordination.ledger import Status
from fedstep.server.storage.base import StudyState
from fedstep.simulation.cli import simulate as simulate_command
from fedstep.simulation.clients import SimulatedClient
from fedstep.simulation.compare_cli import compare
from fedstep.simulation.crew import LocalCrew
from fedstep.simulation.hardship import Hardship
from fedstep.simulation.post import Post
from fedstep.simulation.run import Federation, simulate
from fedstep.simulation.speed import SpeedModel
from fedstep.simulation.virtual_loop import run_virtual
from fedstep.simulation.workshop import Workshop
from fedstep.v1 import fleet_pb2

NAMES = tuple(f"client-{number:04}" for number in range(1000))
LEASE_S = 12.0


def hindered(handicap: Handicap, script: Callable[[Host, Member], Coroutine[Any, Any, None]]) -> Host:
    """Runs a script against one client with a handicap for two virtual minutes."""

    async def main() -> Host:
        host = Host()
        workshop, post = Workshop(LocalCrew(host.population, vectorised=True)), Post(host.shelf)
        client = SimulatedClient(
            *(CLIENT, host.population.roster, PACE, handicap),
            workshop=workshop,
            post=post,
            fleet=host.fleet,
            ledger=host.ledger,
        )
        member = await client.join("clouds")
        serving = asyncio.create_task(client.serve(member))
        await script(host, member)
        await asyncio.sleep(120)
        serving.cancel()
        return host

    return run_virtual(main())


async def ask(host: Host, member: Member) -> None:
    host.ask(member)


# one client -----------------------------------------------------------------------------------------------------------


def test_a_slow_clients_steps_take_longer_and_say_so() -> None:
    async def script(host: Host, member: Member) -> None:
        assignment = host.ask(member)
        await asyncio.sleep(60)
        assert list(assignment.log.step_ms) == pytest.approx([4000, 4000, 13000, 4000, 4000, 4000])

    host = hindered(Handicap(slowdown=4, stalls=Pauses(((10.0, 19.0),))), script)
    ((at_s, _, summary),) = host.phase.updates
    assert at_s == pytest.approx(2 * FETCH_S + 33)
    assert summary.train_time.ToMilliseconds() == 33_000


def test_a_bandwidth_bounds_both_ways() -> None:
    host = hindered(Handicap(bytes_per_s=100), ask)
    ((at_s, *_),) = host.phase.updates
    assert at_s == pytest.approx(20 * FETCH_S + 6)


def test_one_that_loses_its_network_within_its_lease_loses_nothing() -> None:
    host = hindered(Handicap(absences=Pauses(((2.0, 10.0),))), ask)
    ((at_s, _, summary),) = host.phase.updates
    assert at_s == pytest.approx(10 + FETCH_S)  # trained meanwhile; its update left when it was back
    assert summary.steps == 6
    assert not host.phase.settled


def test_one_that_is_away_for_longer_than_its_lease_has_lost_its_work_and_works_again() -> None:
    async def script(host: Host, member: Member) -> None:
        host.ask(member)
        await asyncio.sleep(3)
        assert member.presence is Presence.LOST_TOUCH
        await asyncio.sleep(20)
        assert member.presence is Presence.GONE
        assert not member.busy
        await asyncio.sleep(20)
        assert member.presence is Presence.CONNECTED
        host.ask(member, "b", max_steps=1)

    host = hindered(Handicap(absences=Pauses(((2.0, 40.0),))), script)
    assert host.phase.settled == [(pytest.approx(2 + LEASE_S), Status.LOST)]
    ((at_s, _, summary),) = host.phase.updates
    assert summary.steps == 1
    assert at_s == pytest.approx(43 + 1 + FETCH_S)


def test_a_transfer_stands_still_while_the_network_is_gone() -> None:
    """The model comes in 0.236 s, of which 0.1 pass before."""
    host = hindered(Handicap(absences=Pauses(((0.1, 5.0),))), ask)
    ((at_s, *_),) = host.phase.updates
    assert at_s == pytest.approx(4.9 + 2 * FETCH_S + 6)


def test_one_that_is_away_at_first_is_not_there_until_it_comes() -> None:
    async def script(host: Host, member: Member) -> None:
        assert member.presence is Presence.LOST_TOUCH
        await asyncio.sleep(4)
        assert member.presence is Presence.CONNECTED
        await asyncio.sleep(100)
        assert member.presence is Presence.CONNECTED  # nobody has to be heard of to keep its lease

    hindered(Handicap(absences=Pauses(((0.0, 3.0),))), script)


def test_a_measurement_is_answered_when_it_is_back() -> None:
    async def script(host: Host, member: Member) -> None:
        host.ask(member, work=fleet_pb2.WORK_EVALUATE)

    ((at_s, _),) = hindered(Handicap(absences=Pauses(((0.3, 7.0),))), script).phase.outcomes
    assert at_s == pytest.approx(7)


# a federation ---------------------------------------------------------------------------------------------------------


def test_at_any_moment_such_a_share_is_away_each_of_them_for_that_share_of_its_time() -> None:
    drawn = Hardship(away_share=0.2, away_for_s=300).draw(NAMES, seed=1)
    assert drawn == Hardship(away_share=0.2, away_for_s=300).draw(NAMES, seed=1)
    assert drawn != Hardship(away_share=0.2, away_for_s=300).draw(NAMES, seed=2)
    for time_s in (0.0, 1000.0, 1e6):
        away = sum(handicap.absences.at(time_s)[0] <= time_s for handicap in drawn)
        assert 150 < away < 250  # four standard deviations
    for handicap in drawn[:5]:
        lengths = [end - begin for begin, end in handicap.absences.periods]
        assert sum(lengths) / len(lengths) == pytest.approx(300)
        assert sum(lengths) / handicap.absences.repeat_s == pytest.approx(0.2)


def test_so_many_are_slow_and_stall_at_times_of_their_own() -> None:
    slow = Handicap(slowdown=8, stalls=Pauses.every(30, 10))
    drawn = Hardship(slow, slow_share=0.25).draw(NAMES[:16], seed=3)
    those = [handicap for handicap in drawn if handicap != UNHINDERED]
    assert [handicap.slowdown for handicap in those] == [8] * 4
    assert len({handicap.stalls.phase_s for handicap in those}) == 4
    assert all(handicap.absences == NEVER for handicap in drawn)


def test_a_trace_says_who_is_away_by_name() -> None:
    trace = {NAMES[1]: Pauses(((1.0, 2.0),))}
    drawn = Hardship(away_share=0.5, trace=trace).draw(NAMES[:3], seed=0)
    assert [handicap.absences for handicap in drawn] == [NEVER, trace[NAMES[1]], NEVER]


@pytest.mark.parametrize(
    ("hardship", "said"),
    [
        (Hardship(away_share=1.0), "is none"),
        (Hardship(slow_share=1.5), "is none"),
        (Hardship(away_for_s=0), "is none"),
        (Hardship(trace={"bob": NEVER}), "The trace names bob, and the 1000 clients are client-0000 to client-0999"),
    ],
)
def test_what_cannot_be_is_one_sentence(hardship: Hardship, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        hardship.draw(NAMES, seed=0)


MISERY = Hardship(
    Handicap(slowdown=8, stalls=Pauses.every(30, 10), bytes_per_s=1e5), 0.25, away_share=0.3, away_for_s=20
)


@pytest.mark.parametrize("vectorised", [True, False])
def test_a_study_of_clients_that_come_and_go_ends_and_is_the_same_again(vectorised: bool) -> None:
    slow = SpeedModel(step_ms=1000, spread=1)
    policy = {"cohort_size": 4, "deadline": "40s", "quorum": 0.25}
    first, again = (
        simulated(study(round=policy), clients=12, vectorised=vectorised, hardship=MISERY, speed=slow) for _ in range(2)
    )
    assert first.record.state is StudyState.COMPLETED
    assert decided(first) == decided(again)
    assert {"client_lost"} <= {event.kind for event in first.events}
    other = simulated(study(round=policy), clients=12, vectorised=vectorised, hardship=MISERY, speed=slow, seed=9)
    assert decided(other) != decided(first)


def test_a_wait_for_clients_is_the_studys_time_and_no_rounds() -> None:
    away = Pauses(((0.5, 50.0),))
    hardship = Hardship(trace={f"client-{number}": away for number in range(2)})
    spec = study(tuner={"name": "fixed"}, round={"cohort_size": 2, "min_clients": 2}, budget={"rounds": 12})
    found = simulate(spec, Clouds(), Federation(2, speed=SpeedModel(step_ms=100), hardship=hardship))
    assert found.virtual_s > 50
    assert sum(round.seconds for round in found.rounds) < 25


def test_nobody_is_asked_who_is_away() -> None:
    """Four of eight are away for the whole study."""
    away = Pauses(((0.0, 1e7),))
    hardship = Hardship(trace={f"client-{number}": away for number in range(0, 8, 2)})
    found = simulated(study(selector={"name": "all"}), hardship=hardship)
    asked = {name for record in found.rounds for name in (*record.cohort, *record.evaluators)}
    assert asked == {f"client-{number}" for number in range(1, 8, 2)}


def test_a_study_waits_for_clients_without_waiting() -> None:
    """All of them come after four minutes of the five that it waits."""
    trace = {f"client-{number}": Pauses(((0.0, 240.0),)) for number in range(4)}
    found = simulate(study(), Clouds(), Federation(4, hardship=Hardship(trace=trace)))
    assert found.record.state is StudyState.COMPLETED
    assert found.virtual_s > 240  # a test ends after two minutes


# on a command line ----------------------------------------------------------------------------------------------------


def test_the_command_takes_a_hardship(study_file: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("client,away_from_s,away_until_s\nclient-1,0,100000\n")
    options = ["--slowdown", "4", "--slow-share", "0.5", "--stall-every", "30s:10s", "--bandwidth", "1MB/s"]
    plain, slow, away, traced = (
        CliRunner().invoke(simulate_command, [str(study_file), "--clients", "6", "--json", *more])
        for more in ([], options, ["--away", "0.4", "--away-for", "2s"], ["--trace", str(trace)])
    )
    assert [result.exit_code for result in (plain, slow, away, traced)] == [0] * 4
    assert len({result.output.splitlines()[-1] for result in (plain, slow, away)}) == 3
    assert '"client-1"' not in traced.output


@pytest.mark.parametrize("command", [simulate_command, compare])
@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--away", "1", "from 0 to 0.99"),
        ("--slow-share", "2", "from 0 to 1"),
        ("--away-for", "soon", "soon is no duration"),
        ("--slowdown", "0", "0 is no slowdown"),
        ("--stall-every", "1s:2s", "1s:2s is no rhythm"),
        ("--bandwidth", "1", "1 is no bandwidth"),
    ],
)
def test_a_hardship_that_there_is_not_is_refused(
    study_file: Path, command: click.Command, option: str, value: str, said: str
) -> None:
    result = CliRunner().invoke(command, [str(study_file), option, value])
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--slow-share", "0.25"], "makes nobody slow by itself"),
        (["--away-for", "10s"], "add --away"),
        (["--trace", "trace.csv", "--away", "0.2"], "leave one out"),
    ],
)
def test_an_option_that_would_change_nothing_is_refused(study_file: Path, options: list[str], said: str) -> None:
    result = CliRunner().invoke(simulate_command, [str(study_file), *options])
    assert result.exit_code != 0
    assert said in f"{result.output} {result.exception}"
