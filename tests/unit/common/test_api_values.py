"""What a program gives to `fedstep.api` and cannot be sent: a sentence that names the argument, before any call."""

import asyncio
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedstep.api import Fedstep, aio, connect
from fedstep.api.model_file import ModelFile
from fedstep.api.runs import Runs
from fedstep.common.errors import InvalidInputError, UnavailableError

NOWHERE = "127.0.0.1:1"
UP_TO_32 = "a whole number from 0 to 4294967295"
UP_TO_64 = "a whole number from 0 to 18446744073709551615"
VALUE = "a number of at most 64 bits, a text, True or False"


def steer(call: Callable[[Any], Any]) -> Callable[[], object]:
    def called() -> None:
        with connect(NOWHERE) as fedstep:
            call(fedstep)

    return called


def step(**changes: Any) -> Callable[[], object]:
    given: dict[str, Any] = {"run": "a", "hyperparameters": {"lr": 0.1}, "rounds": 1, "step": 1, **changes}
    return run(lambda runs: runs.step(**given))


def run(call: Callable[[Runs], Any]) -> Callable[[], object]:
    def called() -> None:
        with Runs(NOWHERE, "s", patience_s=0) as runs:
            call(runs)

    return called


def events(fedstep: Fedstep, after: Any) -> None:
    next(fedstep.watch("s", after))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (steer(lambda fedstep: events(fedstep, -3)), f"after is -3: give {UP_TO_64}."),
        (steer(lambda fedstep: events(fedstep, 10**20)), f"after is {10**20}: give {UP_TO_64}."),
        (steer(lambda fedstep: events(fedstep, "x")), f'after is "x": give {UP_TO_64}.'),
        (steer(lambda fedstep: fedstep.study(7)), "name is 7: give a text."),
        (steer(lambda fedstep: fedstep.study(None)), "name is None: give a text."),
        (steer(lambda fedstep: fedstep.drain(7)), "client is 7: give a text."),
        (step(rounds=-1), f"rounds is -1: give {UP_TO_32}."),
        (step(rounds=2**32), f"rounds is {2**32}: give {UP_TO_32}."),
        (step(rounds=1.5), f"rounds is 1.5: give {UP_TO_32}."),
        (step(step=-1), f"step is -1: give {UP_TO_32}."),
        (step(run=7), "run is 7: give a text."),
        (step(hyperparameters={"lr": None}), f"hyperparameters.lr is None: give {VALUE}."),
        (step(hyperparameters={"lr": [0.1]}), f"hyperparameters.lr is [0.1] (list): give {VALUE}."),
        (step(hyperparameters={"lr": np.float32(0.5)}), f"hyperparameters.lr is 0.5 (float32): give {VALUE}."),
        (step(timeout_s=-1), "timeout_s is -1: give seconds, more than 0, or None."),
        (step(timeout_s=math.nan), "timeout_s is nan: give seconds, more than 0, or None."),
        (step(timeout_s="5"), 'timeout_s is "5": give seconds, more than 0, or None.'),
        (step(hyperparameters={"n": 2**63}), f"hyperparameters.n is {2**63}: give {VALUE}."),
        (
            step(hyperparameters={1: 0.1}),
            "hyperparameters is a table (dict): give a value by name, such as {'lr': 0.1}.",
        ),
        (step(hyperparameters=0.1), "hyperparameters is 0.1: give a value by name, such as {'lr': 0.1}."),
        (run(lambda runs: runs.open(7)), "run is 7: give a text."),  # type: ignore[arg-type]  # that is what is tested
        (run(lambda runs: runs.fork("a", -1)), f"step is -1: give {UP_TO_32}."),
        (run(lambda runs: runs.restore("a", -1)), f"step is -1: give {UP_TO_32}."),
    ],
)
def test_what_cannot_be_sent_is_named(call: Callable[[], object], sentence: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        call()
    assert refused.value.message == sentence
    assert sentence.startswith(refused.value.violations[0].field)


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "127.0.0.1:0", "127.0.0.1", ":7433", "a:b", "127.0.0.1:-1"])
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    async def on_a_loop() -> None:
        async with aio.connect(address) as fedstep:
            await fedstep.get("s")

    for call in (lambda: connect(address), lambda: Runs(address, "s"), lambda: asyncio.run(on_a_loop())):
        with pytest.raises(InvalidInputError, match=f"address {address} is not HOST:PORT: give one such as"):
            call()
    with pytest.raises(InvalidInputError, match="is not HOST:PORT: leave http:// out"):
        connect(f"http://{address}")


def test_what_is_no_study_no_path_and_no_address_at_all_is_said_in_a_sentence() -> None:
    nothing: Any = 5
    with pytest.raises(InvalidInputError, match=r"^5 is no address of a coordinator: give HOST:PORT as a text"):
        connect(nothing)
    with connect("127.0.0.1:1") as fedstep:
        for call in (fedstep.create, lambda path: fedstep.download(path, "s")):
            with pytest.raises(InvalidInputError, match=r"^5 is no path: give the name of a file"):
                call(nothing)


def test_a_timeout_of_centuries_is_not_over_at_once() -> None:
    with pytest.raises(UnavailableError, match="No coordinator answers"):
        step(timeout_s=1e12)()


def test_a_digest_is_of_bytes() -> None:
    with pytest.raises(InvalidInputError, match=r"^sha256 is .*: give bytes\.$"):
        ModelFile("m", "s", "abc").request()  # type: ignore[arg-type]  # that is what is tested
