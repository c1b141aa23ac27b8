"""The command, as a process of its own."""

import asyncio
import json
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import grpc
import pytest
import torch
from click.testing import CliRunner
from unit.client.fake_coordinator import FakeCoordinator, eventually
from unit.client.work_kit import assignment

from fedstep.client.cli import client
from fedstep.common.errors import FedstepError
from fedstep.common.task import ClientInfo
from fedstep.common.tasks import full_hyperparameters, load_task
from fedstep.v1 import fleet_pb2 as pb

PROGRAM = [sys.executable, "-c", "from fedstep.common.cli import main; main()", "client"]
EXAMPLE = str(Path(__file__).parents[3] / "examples" / "my_task.py")


async def start(*arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(*PROGRAM, *arguments, stdout=PIPE, stderr=PIPE)


async def finish(process: Process, number: signal.Signals | None = None) -> tuple[int, list[str], str]:
    """Its exit code, its lines, and what it said to stderr."""
    if number is not None:
        process.send_signal(number)
    async with asyncio.timeout(60):
        out, error = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode().splitlines(), error.decode()


def refused(*arguments: str) -> str:
    """The sentence with which the command ends before it has begun."""
    result = CliRunner().invoke(client, arguments)
    assert result.exit_code != 0
    return str(result.exception) if isinstance(result.exception, FedstepError) else result.output


def state_of(reference: str) -> dict[str, torch.Tensor]:
    task = load_task(reference)
    return task.build_model(full_hyperparameters(task, {})).state_dict()


async def test_it_trains_and_ends_on_sigterm(coordinator: FakeCoordinator) -> None:
    digest = coordinator.store(state_of("digits"))
    process = await start(
        "--coordinator", coordinator.address, "--task", "digits", "--name", "ann", "--partition", "1/8", "--json"
    )
    coordinator.assign(assignment(digest, "train"))
    await eventually(lambda: coordinator.accepted, timeout_s=60)
    coordinator.assign(assignment(digest, "evaluate", work=pb.WORK_EVALUATE))
    events: list[dict[str, object]] = []
    assert process.stdout is not None
    async with asyncio.timeout(60):
        while [event["event"] for event in events].count("outcome") < 2:
            events.append(json.loads(await process.stdout.readline()))
    code, lines, error = await finish(process, signal.SIGTERM)
    assert (code, error) == (0, "")
    events += [json.loads(line) for line in lines]
    assert (events[0]["event"], events[-1]["event"]) == ("connected", "stopped")
    assert sorted(str(event["work"]) for event in events if event["event"] == "assignment") == ["evaluate", "train"]
    outcomes = {event["status"]: event for event in events if event["event"] == "outcome"}
    assert set(outcomes) == {"sent", "completed"}
    assert (outcomes["sent"]["study"], outcomes["sent"]["steps"]) == ("s", 8)
    header, _ = coordinator.accepted[0]
    assert header.summary.steps == len(coordinator.steps_of("train")) == 8
    assert set(coordinator.outcomes[0].metrics) == {"loss", "accuracy"}


async def test_ctrl_c_in_the_middle_of_a_training_ends_it(coordinator: FakeCoordinator) -> None:
    digest = coordinator.store(state_of("digits"))
    process = await start("--coordinator", coordinator.address, "--task", "digits")
    endless = assignment(digest)
    endless.hyperparameters["local_epochs"].int_value = 10**9
    coordinator.assign(endless)
    await eventually(lambda: coordinator.steps_of("a"), timeout_s=60)
    code, lines, error = await finish(process, signal.SIGINT)
    assert (code, error) == (130, "")
    assert lines[-1] == "stopped"
    assert coordinator.outcomes[0].status == pb.OUTCOME_STATUS_ABANDONED


async def test_ctrl_c_ends_it_in_the_middle_of_a_step(coordinator: FakeCoordinator, tmp_path: Path) -> None:
    path, marker = tmp_path / "stuck.py", tmp_path / "in a step"
    path.write_text(
        f"import importlib.util, pathlib, time\n"
        f"spec = importlib.util.spec_from_file_location('base', {EXAMPLE!r})\n"
        "base = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(base)\n"
        "class Stuck(base.Tumours):\n"
        "    def loss(self, model, batch):\n"
        f"        pathlib.Path({str(marker)!r}).touch()\n"
        "        time.sleep(1000)\n"
        "task = Stuck()\n"
    )
    digest = coordinator.store(state_of(EXAMPLE))
    process = await start("--coordinator", coordinator.address, "--task", str(path))
    coordinator.assign(assignment(digest))
    await eventually(marker.exists, timeout_s=60)
    code, _, error = await finish(process, signal.SIGINT)
    assert (code, error) == (130, "")


async def test_the_example_is_a_task_that_trains(coordinator: FakeCoordinator) -> None:
    digest = coordinator.store(state_of(EXAMPLE))
    process = await start("--coordinator", coordinator.address, "--task", EXAMPLE, "--partition", "2/3")
    work = assignment(digest)
    work.hyperparameters["dropout"].double_value = 0.2
    work.hyperparameters["local_epochs"].int_value = 5
    coordinator.assign(work)
    await eventually(lambda: coordinator.accepted, timeout_s=60)
    code, lines, _ = await finish(process, signal.SIGTERM)
    assert code == 0
    assert "task tumours" in lines[0]
    losses = coordinator.steps_of("a")
    assert losses[-1] < losses[0]
    assert load_task(EXAMPLE).load_data(ClientInfo("x")).validation is not None


async def test_a_name_that_is_taken_ends_it(coordinator: FakeCoordinator) -> None:
    coordinator.refuse = (grpc.StatusCode.ALREADY_EXISTS, "A client named ann is connected already: give another.")
    process = await start("--coordinator", coordinator.address, "--task", "digits", "--name", "ann")
    code, _, error = await finish(process)
    assert code == 2
    assert error == "fedstep: A client named ann is connected already: give another.\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--task", "digits", "--coordinator", "nowhere"], "The coordinator's address nowhere is not HOST:PORT"),
        (["--task", "digits", "--coordinator", "http://a:7433"], "is not HOST:PORT: leave http:// out"),
        (["--task", "digits", "--partition", "9/8"], "9/8 is not a share"),
        (["--task", "digits", "--partition", "0/8"], "0/8 is not a share"),
        (["--task", "digits", "--option", "novalue"], "novalue is not an option"),
        (["--task", "digits", "--device", "gpu9"], 'no device "gpu9"'),
        (["--task", "digist"], 'did you mean "digits"'),
        (["--task", "mnist-writers", "--data", "/no/such.npz"], "/no/such.npz cannot be read (No such file"),
        (["--task", "digits", "--option", "a=b"], "The task digits has no option a: there are data, validation"),
        (["--task", "digits", "--option", "validation=0.2", "--partition", "1/5000"], "5000 shares"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], sentence: str) -> None:
    assert sentence in refused(*arguments)


def test_help_and_the_command_itself_need_no_torch() -> None:
    program = "import sys, fedstep.client.cli; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "False\n"


def test_a_missing_torch_is_named() -> None:
    program = "import sys; sys.modules['torch'] = None; from fedstep.common.cli import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", program, "client", "--task", "digits"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2
    assert 'pip install "fedstep[client]"' in result.stderr
