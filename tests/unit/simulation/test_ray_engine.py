"""Clients as actors of a Ray cluster: the same study as in one process, whatever dies on the way."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner
from e2e.processes import fedstep, json_lines
from e2e.waiting import eventually
from unit.simulation import kit
from unit.simulation.mortal_task import ALWAYS, ONCE, SPARED
from unit.simulation.ray_cluster import ray_cluster

from fedstep.common.errors import InvalidInputError, PreconditionError, UnavailableError
from fedstep.common.spec import StudySpec
from fedstep.common.tasks import load_task
from fedstep.simulation.cli import simulate as command
from fedstep.simulation.crew import Crew
from fedstep.simulation.ray_cluster import connected
from fedstep.simulation.ray_crew import RayCrew, ray_crew
from fedstep.simulation.run import Federation, Simulated, simulate

TASK = str(Path(__file__).with_name("mortal_task.py"))
CLIENTS = 7


def federation(folder: Path, vectorised: bool = False) -> Federation:
    (folder / SPARED).write_text(str(os.getpid()))
    return Federation(CLIENTS, {"data": str(folder)}, vectorised=vectorised)


def study() -> StudySpec:
    return kit.study(task="mortal", parallel_trials=2, round={"cohort_size": 3, "deadline": "60s"})


def simulated(folder: Path, crew: Crew | None = None) -> Simulated:
    return simulate(study(), load_task(TASK), federation(folder), crew=crew)


def made(found: Simulated) -> object:
    """All that a study decided and made, to the last bit."""
    assert found.weights is not None
    trials = [(t.hyperparameters, t.state, t.values, t.metrics, t.model_sha256) for t in found.trials]
    rounds = [(r.trial, r.round, r.cohort, r.evaluators, r.metrics, r.model_sha256, r.seconds) for r in found.rounds]
    return trials, rounds, found.metrics, found.weights.tolist(), found.virtual_s


def processes(folder: Path) -> set[int]:
    """Those that loaded clients there, and this one never."""
    return {int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*")} - {os.getpid()}


def gone(folder: Path) -> None:
    """Waits until all of them have ended."""
    eventually(lambda: not any(map(psutil.pid_exists, processes(folder))), "the actors have ended")


def on_ray(address: str, actors: int, where: Federation, **options: Any) -> Simulated:
    """A study on actors of its own."""
    with connected(address), ray_crew(TASK, where, address, actors) as crew:
        return simulate(study(), load_task(TASK), where, crew=crew, **options)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ray_cluster() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="module")
def crew(address: str, folder: Path) -> Iterator[RayCrew]:
    """Two actors, for all tests that leave them as they are."""
    with connected(address), ray_crew(TASK, federation(folder), address, actors=2) as found:
        yield found


# what it computes ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_study_is_the_same_bit_for_bit_as_in_one_process(crew: RayCrew, folder: Path) -> None:
    assert len(processes(folder)) == 2
    assert made(simulated(folder, crew)) == made(simulated(folder))


@pytest.mark.slow
def test_through_the_command_with_relative_paths_though_an_actor_dies(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is started again, and the result is the same bit for bit; what Ray says of it is not among the results."""
    monkeypatch.chdir(tmp_path)
    clients = tmp_path / "clients"
    clients.mkdir()
    shutil.copy(TASK, "own_task.py")
    Path("study.toml").write_text(kit.STUDY.replace("digits", "mortal"))
    arguments = ["study.toml", "--task", "own_task.py", "--data", "clients", "--clients", "5", "--json"]
    here = json_lines(CliRunner().invoke(command, arguments).output)
    (clients / SPARED).touch()
    (clients / ONCE).touch()
    on_ray = ["--engine", "ray", "--ray-address", address, "--ray-actors", "2"]
    ran = fedstep("simulate", *arguments, *on_ray, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert ran.out.count("\n") == len(ran.json)
    assert "retries remaining" in ran.err
    assert len(processes(clients)) == 3
    gone(clients)
    for key in ("best_trial", "result"):
        assert ran.json[-2][key] == here[-2][key]


# what may go wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_work_that_kills_its_process_every_time_ends_the_simulation(address: str, tmp_path: Path) -> None:
    where = federation(tmp_path)
    (tmp_path / ALWAYS).touch()
    with pytest.raises(UnavailableError, match=r"actor 0 of 1, begun on .*, died and could not be replaced"):
        on_ray(address, 1, where)
    assert len(processes(tmp_path)) == 3  # as often as the work was tried
    gone(tmp_path)


@pytest.mark.slow
def test_an_actor_for_which_no_node_is_left_is_not_waited_for_for_ever(
    crew: RayCrew, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedstep.simulation.ray_crew._PATIENCE_S", 0.1)
    monkeypatch.setattr("fedstep.simulation.ray_crew.cpus", lambda: 1)
    (folder / ONCE).touch()
    with pytest.raises(UnavailableError, match="1 CPUs are left for 2 actors"):
        simulated(folder, crew)


class Elsewhere:
    """Stands for what a node has not installed."""

    def __init__(self, part: object) -> None:
        raise ModuleNotFoundError("No module named 'fedstep'")

    def node(self) -> str:
        return "?"


@pytest.mark.slow
def test_a_node_without_fedstep_is_told(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedstep.simulation.ray_crew.Shard", Elsewhere)
    with pytest.raises(UnavailableError, match=r"could not begin \(.*No module named .*\): install the same version"):
        on_ray(address, 1, federation(tmp_path))


@pytest.mark.slow
def test_data_that_is_not_on_a_node_is_told_with_the_nodes_name(address: str, tmp_path: Path) -> None:
    missing = Federation(CLIENTS, {"data": str(tmp_path / "nowhere")})
    with pytest.raises(InvalidInputError, match=r"On the Ray node .*: There is no folder .*/nowhere"):
        on_ray(address, 1, missing)


@pytest.mark.slow
def test_ctrl_c_ends_the_actors(address: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        on_ray(address, 1, federation(tmp_path), on_commit=lambda _: os.kill(os.getpid(), signal.SIGINT))
    assert len(processes(tmp_path)) == 1
    gone(tmp_path)


@pytest.mark.slow
def test_actors_that_find_no_cpu_free_are_not_waited_for_for_ever(crew: RayCrew, folder: Path) -> None:
    with pytest.raises(UnavailableError, match=r"Only \d of 4 Ray actors found a free CPU within 0.5 s"):
        ray_crew(TASK, federation(folder), actors=4, placing_s=0.5).__enter__()


@pytest.mark.slow
def test_more_actors_than_the_cluster_has_cpus_are_refused(crew: RayCrew, folder: Path) -> None:
    with pytest.raises(InvalidInputError, match="--ray-actors 5 is more than the 4 CPUs"):
        ray_crew(TASK, federation(folder), actors=5).__enter__()


def invoked(study_file: Path, *arguments: str) -> BaseException | None:
    return CliRunner().invoke(command, [str(study_file), "--clients", "6", *arguments]).exception


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """As on a machine that is not connected to a cluster, whatever other tests do."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    return monkeypatch


def test_a_cluster_that_does_not_answer_is_told_with_its_address_and_the_fix(
    study_file: Path, alone: pytest.MonkeyPatch
) -> None:
    error = invoked(study_file, "--engine", "ray", "--ray-address", "127.0.0.1:1")
    assert isinstance(error, UnavailableError)
    assert "127.0.0.1:1 (--ray-address; Connection refused)" in error.message
    assert "`ray start --head`" in error.message


@pytest.mark.parametrize("known", ["$RAY_ADDRESS", "ray_current_cluster"])
def test_a_cluster_that_has_gone_is_told_with_the_place_that_names_it(
    study_file: Path, tmp_path: Path, alone: pytest.MonkeyPatch, known: str
) -> None:
    (tmp_path / "ray").mkdir()
    if known == "$RAY_ADDRESS":
        alone.setenv("RAY_ADDRESS", "127.0.0.1:1")
    else:
        (tmp_path / "ray" / known).write_text("127.0.0.1:1\n")
    error = invoked(study_file, "--engine", "ray")
    assert isinstance(error, UnavailableError)
    assert "No Ray cluster answers at 127.0.0.1:1" in error.message
    assert known in error.message


def test_where_no_cluster_is_found_the_fix_is_told(study_file: Path, alone: pytest.MonkeyPatch) -> None:
    def nothing(**_: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance. Please specify the one to connect to.")

    alone.setattr("ray.init", nothing)  # Ray looks at all processes of the machine, other tests' clusters among them
    error = invoked(study_file, "--engine", "ray")
    assert isinstance(error, UnavailableError)
    assert "on this machine (Could not find any running Ray instance" in error.message
    assert "`ray start --head`" in error.message


@pytest.mark.parametrize("address", ["rubbish", "ray://127.0.0.1:10001", ":6379", "host:"])
def test_what_is_no_address_is_refused(study_file: Path, alone: pytest.MonkeyPatch, address: str) -> None:
    error = invoked(study_file, "--engine", "ray", "--ray-address", address)
    assert isinstance(error, InvalidInputError)
    assert f"{address} (--ray-address) is no address" in error.message


def test_a_study_that_is_not_legal_is_refused_before_a_cluster_is_looked_for(study_file: Path) -> None:
    study_file.write_text(kit.STUDY.replace('"random"', '"rondom"'))
    error = invoked(study_file, "--engine", "ray", "--ray-address", "127.0.0.1:1")
    assert isinstance(error, InvalidInputError)
    assert "tuner.name" in error.message


def test_without_ray_the_package_to_install_is_told(study_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in ("ray_cluster", "ray_crew"):
        monkeypatch.delitem(sys.modules, f"fedstep.simulation.{name}")
    error = invoked(study_file, "--engine", "ray")
    assert isinstance(error, PreconditionError)
    assert "pip install 'fedstep[ray]'" in error.message


def test_options_of_ray_without_its_engine_are_refused(study_file: Path) -> None:
    result = CliRunner().invoke(command, [str(study_file), "--ray-actors", "2"])
    assert result.exit_code == 2
    assert "are for --engine ray" in result.output
