"""RunService for programs that step, fork and rewind federated trainings: typed, blocking or asynchronous."""

from __future__ import annotations  # grpc's generics exist for the type checker only

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio

from fedstep.api.calls import Call, Page, request, unfit
from fedstep.api.calls import get as get_study
from fedstep.common import hyperparameters as hp
from fedstep.common.channel import open_blocking_channel, open_channel
from fedstep.common.errors import UnavailableError, from_rpc
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.security import PLAIN, Security
from fedstep.v1 import run_pb2, run_pb2_grpc, study_pb2, study_pb2_grpc
from fedstep.v1.hyperparameters_pb2 import HyperparameterValue

T = TypeVar("T")

RETRY_S = 0.5
_STATE_TIMEOUT_S = 2.0
_LONGEST_S = 365 * 86400.0
"""gRPC takes a deadline that is centuries away for one that is past."""

_PAUSED = frozenset({study_pb2.STUDY_STATE_PAUSING, study_pb2.STUDY_STATE_PAUSED})
_NOT_OVER = _PAUSED | {study_pb2.STUDY_STATE_RUNNING}
"""States in which a study has not answered yet: it stands still, or did until just now."""


class RunState(StrEnum):
    """Where a run stands: IDLE waits for its next step."""

    IDLE = "idle"
    STEPPING = "stepping"
    CLOSED = "closed"


@dataclass(frozen=True)
class StepResult:
    """What came of one step; see `StepResult` in run.proto.

    Attributes:
        step: Its number in the run.
        trial: The arm's number in the study.
        hyperparameters: It was trained with.
        rounds: It was trained for.
        rounds_behind: Rounds behind its model, those before this step included.
        value: The study's objective; None when nobody measured it.
        metrics: Of the last round's evaluation.
        model_sha256: Of the model.
        failed: Why it could not be trained to its end; "" when it could. The run stands where it stood before.
    """

    step: int
    trial: int
    hyperparameters: Hyperparameters
    rounds: int
    rounds_behind: int
    value: float | None
    metrics: Mapping[str, float]
    model_sha256: bytes
    failed: str


@dataclass(frozen=True)
class Run:
    """A run as it stands; see `Run` in run.proto.

    Attributes:
        name: Its name in the study.
        state: Where it stands.
        step: The step it stands after; 0 before the first.
        next_step: The number of its next step.
        kept_steps: The steps it can be restored to, or forked from.
        result: What the step it stands after gave; None before the first.
    """

    name: str
    state: RunState
    step: int
    next_step: int
    kept_steps: tuple[int, ...]
    result: StepResult | None


class AsyncRuns:
    """The runs of one study, on an event loop. What a method does is said in `Runs`.

    Args:
        address: The coordinator's, `HOST:PORT`.
        study: The study's name; its tuner is `outside`.
        security: How the coordinator is known, and what is shown to it.
        patience_s: How long a coordinator that does not answer is asked again: after a restart it goes on. A study
            that is paused is waited for as long as it is; with 0 for nothing.
    """

    def __init__(self, address: str, study: str, security: Security = PLAIN, patience_s: float = 60.0) -> None:
        self._address, self._study, self._patience_s = address, study, patience_s
        self._channel = open_channel(address, security)
        self._stub: Any = run_pb2_grpc.RunServiceStub(self._channel)
        self._studies: Any = study_pb2_grpc.StudyServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def open(self, run: str = "") -> Run:
        """See `Runs.open`."""
        return await self._ask(_open(self._study, run))

    async def get(self, run: str) -> Run:
        """See `Runs.get`."""
        return await self._ask(_get(self._study, run))

    async def list(self) -> AsyncIterator[Run]:
        """See `Runs.list`."""
        token = ""
        while True:
            runs, token = await self._ask(_page(self._study, token))
            for run in runs:
                yield run
            if not token:
                return

    async def step(
        self,
        run: str,
        hyperparameters: Hyperparameters,
        rounds: int = 1,
        step: int | None = None,
        timeout_s: float | None = None,
    ) -> StepResult:
        """See `Runs.step`."""
        number = (await self.get(run)).next_step if step is None else step
        return await self._ask(_step(self._study, run, hyperparameters, rounds, number, timeout_s))

    async def fork(self, run: str, step: int | None = None, new_run: str = "") -> Run:
        """See `Runs.fork`."""
        return await self._ask(_fork(self._study, run, step, new_run))

    async def restore(self, run: str, step: int, source_run: str = "") -> Run:
        """See `Runs.restore`."""
        return await self._ask(_restore(self._study, run, step, source_run))

    async def close(self, run: str) -> Run:
        """See `Runs.close`."""
        return await self._ask(_close(self._study, run))

    async def _ask(self, call: Call[T]) -> T:
        method: Callable[..., Awaitable[Any]] = getattr(self._stub, call.method)
        tries = _Tries(self._address, self._study, self._patience_s, call)
        while True:
            try:
                return call.pick(await method(call.request, timeout=tries.left_s()))
            except grpc.aio.AioRpcError as error:
                failure = tries.failed(error)
            if failure is not None:
                tries.give_up(failure, await self._state())
            await asyncio.sleep(RETRY_S)

    async def _state(self) -> int | None:
        """Where the study stands; None where nobody says so."""
        asked = get_study(self._study)
        try:
            return asked.pick(await self._studies.GetStudy(asked.request, timeout=_STATE_TIMEOUT_S)).state
        except grpc.aio.AioRpcError:
            return None


class Runs:
    """The runs of one study, for programs without an event loop.

    Every method raises what the coordinator answered as a `FedstepError`, whose `violations` name the fields at fault,
    and UnavailableError when none answers for long. While the study is paused they wait.

    Args:
        address: The coordinator's, `HOST:PORT`.
        study: The study's name; its tuner is `outside`.
        security: How the coordinator is known, and what is shown to it.
        patience_s: How long a coordinator that does not answer is asked again: after a restart it goes on. A study
            that is paused is waited for as long as it is; with 0 for nothing.
    """

    def __init__(self, address: str, study: str, security: Security = PLAIN, patience_s: float = 60.0) -> None:
        self._address, self._study, self._patience_s = address, study, patience_s
        self._channel = open_blocking_channel(address, security)
        self._stub: Any = run_pb2_grpc.RunServiceStub(self._channel)
        self._studies: Any = study_pb2_grpc.StudyServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        """Lets go of the connection; the runs stay as they are."""
        self._channel.close()

    def open(self, run: str = "") -> Run:
        """A run from the study's initial model, or the one there is of that name; "" for a name of its own."""
        return self._ask(_open(self._study, run))

    def get(self, run: str) -> Run:
        """A run as it stands."""
        return self._ask(_get(self._study, run))

    def list(self) -> Iterator[Run]:
        """Every run, by name."""
        token = ""
        while True:
            runs, token = self._ask(_page(self._study, token))
            yield from runs
            if not token:
                return

    def step(
        self,
        run: str,
        hyperparameters: Hyperparameters,
        rounds: int = 1,
        step: int | None = None,
        timeout_s: float | None = None,
    ) -> StepResult:
        """Trains a run and answers with what came of it. A call that ends early calls nothing off.

        Args:
            run: The run.
            hyperparameters: A point of the study's space.
            rounds: To train, at least 1.
            step: The step's number, `Run.next_step`, which may be asked again; None for the next one.
            timeout_s: How long to wait; None for as long as it takes.

        Raises:
            TimeoutError: It takes longer. The same step may be asked again.
        """
        number = self.get(run).next_step if step is None else step
        return self._ask(_step(self._study, run, hyperparameters, rounds, number, timeout_s))

    def fork(self, run: str, step: int | None = None, new_run: str = "") -> Run:
        """A run from where another one stood after a step; None for where it stands. Copies no model."""
        return self._ask(_fork(self._study, run, step, new_run))

    def restore(self, run: str, step: int, source_run: str = "") -> Run:
        """Puts a run where it stood after a step, or where another run did. Copies no model."""
        return self._ask(_restore(self._study, run, step, source_run))

    def close(self, run: str) -> Run:
        """Lets go of a run."""
        return self._ask(_close(self._study, run))

    def _ask(self, call: Call[T]) -> T:
        method: Callable[..., Any] = getattr(self._stub, call.method)
        tries = _Tries(self._address, self._study, self._patience_s, call)
        while True:
            try:
                return call.pick(method(call.request, timeout=tries.left_s()))
            except grpc.RpcError as error:
                failure = tries.failed(error)
            if failure is not None:
                tries.give_up(failure, self._state())
            time.sleep(RETRY_S)

    def _state(self) -> int | None:
        """Where the study stands; None where nobody says so."""
        asked = get_study(self._study)
        try:
            return asked.pick(self._studies.GetStudy(asked.request, timeout=_STATE_TIMEOUT_S)).state
        except grpc.RpcError:
            return None


class _Tries:
    """How often one call is made: until it is answered, or nobody has answered for long.

    Args:
        address: Who is called.
        study: Whose runs.
        patience_s: For how long nobody may answer.
        call: Which. A step is answered late, and its deadline is the caller's own, for all tries together.
    """

    def __init__(self, address: str, study: str, patience_s: float, call: Call[Any]) -> None:
        self._address, self._study, self._patience_s = address, study, patience_s
        self._waits = call.method == _STEP
        self._timeout_s = call.timeout_s
        self._began = time.monotonic()
        self._tried = self._began
        self._silent_since: float | None = None

    def left_s(self) -> float | None:
        """Seconds that the next try may take."""
        self._tried = time.monotonic()
        if self._timeout_s is None or not self._waits:
            return self._timeout_s
        return min(_LONGEST_S, max(0.001, self._began + self._timeout_s - time.monotonic()))

    def failed(self, error: Any) -> Exception | None:
        """Why another try may not help; None where it may.

        Raises:
            FedstepError: It does not, however the study stands.
        """
        if self._waits and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return TimeoutError(
                f"The step is not done after {self._timeout_s:g} s, and goes on: ask for the same step again."
            )
        found = from_rpc(error, self._address)
        if not isinstance(found, UnavailableError):
            raise found from None
        now = time.monotonic()
        if self._silent_since is None or now - self._tried > self._patience_s:  # it was answered late, and broke off
            self._silent_since = now
        return found if now - self._silent_since >= self._patience_s else None

    def give_up(self, failure: Exception, state: int | None) -> None:
        """Raises the failure, unless the study is one that is waited for.

        Args:
            failure: What `failed` said.
            state: The study's; None where nobody says so.
        """
        if isinstance(failure, TimeoutError) and state in _PAUSED:
            name = self._study
            raise TimeoutError(
                f"The study {name} is paused, so the step is not done after {self._timeout_s:g} s: go on with "
                f"`fedstep study resume {name}`, then ask for the same step again."
            )
        if isinstance(failure, TimeoutError) or not self._patience_s or state not in _NOT_OVER:
            raise failure
        self._silent_since = None


# the calls, each once ----------------------------------------------------------------------------------------------

_STEP = "StepRun"


def _open(study: str, run: str) -> Call[Run]:
    return Call("OpenRun", request(run_pb2.OpenRunRequest, study=study, run=run), _run_of)


def _get(study: str, run: str) -> Call[Run]:
    return Call("GetRun", request(run_pb2.GetRunRequest, study=study, run=run), _run_of)


def _page(study: str, token: str) -> Call[Page[Run]]:
    asked = request(run_pb2.ListRunsRequest, study=study, page_token=token)
    return Call("ListRuns", asked, lambda answer: ([_run(run) for run in answer.runs], answer.next_page_token))


def _step(
    study: str, run: str, hyperparameters: Hyperparameters, rounds: int, step: int, timeout_s: float | None
) -> Call[StepResult]:
    values = _values(hyperparameters)
    if rounds == 0:  # which the protocol takes for one that is not said
        raise unfit("rounds", rounds, "a whole number, at least 1")
    asked = request(run_pb2.StepRunRequest, study=study, run=run, step=step, hyperparameters=values, rounds=rounds)
    return Call(_STEP, asked, lambda answer: _result(answer.result), _seconds(timeout_s))


def _seconds(timeout_s: Any) -> float | None:
    """How long to wait; None for as long as it takes.

    Raises:
        InvalidInputError: It is no time.
    """
    if timeout_s is None or (isinstance(timeout_s, int | float) and timeout_s > 0):
        return timeout_s
    raise unfit("timeout_s", timeout_s, "seconds, more than 0, or None")


def _values(hyperparameters: Any) -> dict[str, HyperparameterValue]:
    """A point as messages.

    Raises:
        InvalidInputError: It is none, or one of its values is of no type that a hyper-parameter has.
    """
    if not isinstance(hyperparameters, Mapping) or not all(isinstance(name, str) for name in hyperparameters):
        raise unfit("hyperparameters", hyperparameters, "a value by name, such as {'lr': 0.1}")
    found = {}
    for name, value in hyperparameters.items():
        try:
            if not isinstance(value, bool | int | float | str):
                raise TypeError
            found[name] = hp.to_proto(value)
        except (TypeError, ValueError):
            wanted = "a number of at most 64 bits, a text, True or False"
            raise unfit(f"hyperparameters.{name}", value, wanted) from None
    return found


def _fork(study: str, run: str, step: int | None, new_run: str) -> Call[Run]:
    return Call("ForkRun", request(run_pb2.ForkRunRequest, study=study, run=run, step=step, new_run=new_run), _run_of)


def _restore(study: str, run: str, step: int, source_run: str) -> Call[Run]:
    asked = request(run_pb2.RestoreRunRequest, study=study, run=run, step=step, source_run=source_run)
    return Call("RestoreRun", asked, _run_of)


def _close(study: str, run: str) -> Call[Run]:
    return Call("CloseRun", request(run_pb2.CloseRunRequest, study=study, run=run), _run_of)


def _run_of(answer: Any) -> Run:
    return _run(answer.run)


_STATES = {getattr(run_pb2, f"RUN_STATE_{state.name}"): state for state in RunState}


def _run(message: run_pb2.Run) -> Run:
    result = _result(message.result) if message.HasField("result") else None
    kept = tuple(message.kept_steps)
    return Run(message.name, _STATES[message.state], message.step, message.next_step, kept, result)


def _result(message: run_pb2.StepResult) -> StepResult:
    return StepResult(
        step=message.step,
        trial=message.trial,
        hyperparameters=hp.map_from_proto(message.hyperparameters),
        rounds=message.rounds,
        rounds_behind=message.rounds_behind,
        value=message.value if message.HasField("value") else None,
        metrics=dict(message.metrics),
        model_sha256=message.model_sha256,
        failed=message.failed,
    )
