"""StudyService for notebooks and scripts: no event loop, plain values, a bar that shows how far a study is."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import grpc

from fedstep.api import calls, values
from fedstep.api.bar import StudyBar, bytes_bar
from fedstep.api.calls import DOWNLOAD_TRIES, ENDED, LONG_TIMEOUT_S, Call, Page, RpcErrors
from fedstep.api.model_file import Downloaded, ModelFile
from fedstep.api.values import Event, Result, Trial
from fedstep.api.waiting import LONGEST_S, Patience
from fedstep.common.channel import open_blocking_channel
from fedstep.common.errors import FedstepError, InvalidInputError, UnavailableError
from fedstep.common.handshake import why_not
from fedstep.common.security import Security, read_security
from fedstep.common.spec import StudySpec
from fedstep.common.spec_proto import spec_from_proto, spec_to_proto
from fedstep.common.study_file import locate, read_study
from fedstep.v1 import study_pb2, study_pb2_grpc

T = TypeVar("T")


class Study:
    """A study of a coordinator. What it says is asked for anew each time.

    Args:
        fedstep: The coordinator.
        name: The study's.
    """

    def __init__(self, fedstep: "Fedstep", name: str) -> None:
        self._fedstep = fedstep
        self.name = name

    def __repr__(self) -> str:
        return f"Study({self.name!r} at {self._fedstep.address})"

    @property
    def message(self) -> study_pb2.Study:
        """Everything that is known of it, as the protocol has it."""
        return self._fedstep.ask(calls.get(self.name))

    @property
    def state(self) -> str:
        """Where it stands, such as "running", "paused" or "completed"."""
        return values.word(self.message.state, study_pb2.StudyState)

    @property
    def spec(self) -> StudySpec:
        """What it was created with."""
        return spec_from_proto(self.message.spec)

    @property
    def best(self) -> Trial | None:
        """The best trial so far; None before the first was evaluated."""
        message = self.message
        return values.trial(message.best_trial) if message.HasField("best_trial") else None

    @property
    def result(self) -> Result | None:
        """What it ended with; None while it has not, or where it ended without a model."""
        message = self.message
        return values.result(message.result) if message.HasField("result") else None

    @property
    def trials(self) -> list[Trial]:
        """All of its trials, by number."""
        return [values.trial(each) for each in self._fedstep.every(lambda token: calls.trials(self.name, token))]

    @property
    def participation(self) -> study_pb2.Participation:
        """Who has trained so far and who has not."""
        return self._fedstep.ask(calls.participation(self.name))

    @property
    def cost(self) -> study_pb2.Cost:
        """What it has cost so far, by what it was spent on and by client, and what tuning added."""
        return self._fedstep.ask(calls.cost(self.name))

    def events(self, after: int = 0) -> Iterator[Event]:
        """What happens in it, until it ends or stands still. None is missed, whatever cuts the connection.

        Args:
            after: Events with a greater number only: that of the last one that was seen.
        """
        for event in self._fedstep.watch(self.name, after):
            yield values.event(event)

    def watch(self) -> Self:
        """Waits until it ends or stands still, and shows how far it is. Interrupted, it goes on unwatched."""
        with StudyBar(self.message) as bar:
            for event in self._fedstep.watch(self.name, on_lost=bar.lost):
                bar.event(event)
        return self

    def pause(self) -> None:
        """Has it stand still after the rounds under way, until it is resumed."""
        self._fedstep.ask(calls.pause(self.name))

    def resume(self) -> None:
        """Goes on with it."""
        self._fedstep.ask(calls.resume(self.name))

    def stop(self) -> None:
        """Ends it after the rounds under way; what it found is kept."""
        self._fedstep.ask(calls.stop(self.name))

    def download(self, path: str | Path) -> Downloaded:
        """Its final model, or its best so far, as a safetensors file that was verified.

        Raises:
            PreconditionError: It has no model yet.
            DataLossError: What came is not what its digest says.
        """
        return self._fedstep.download(path, self.name)


class Fedstep:
    """A coordinator to steer. `connect` makes one.

    Args:
        address: `HOST:PORT`.
        security: How it is known, and what is shown to it.
    """

    def __init__(self, address: str, security: Security) -> None:
        self.address = address
        self._security = security
        self._channel = open_blocking_channel(address, security)
        self._stub = study_pb2_grpc.StudyServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hangs up. Studies go on."""
        self._channel.close()

    def create(self, study: str | Path | StudySpec) -> Study:
        """Starts a study; the same one again goes on with it, or finds its result.

        Args:
            study: A study file, or what would be in one.

        Raises:
            InvalidInputError: It cannot be run; the sentence names the line, the value and the fix.
            AlreadyExistsError: Another study has its name.
        """
        if isinstance(study, StudySpec):
            return Study(self, self.ask(calls.create(spec_to_proto(study))).spec.name)
        spec = read_study(study)
        try:
            return self.create(spec)
        except InvalidInputError as error:
            raise InvalidInputError(locate(study, error.violations) or error.message, error.violations) from None

    def study(self, name: str) -> Study:
        """A study that there is.

        Raises:
            NotFoundError: There is none of that name.
        """
        return Study(self, self.ask(calls.get(name)).spec.name)

    @property
    def studies(self) -> list[Study]:
        """All studies, by name."""
        return [Study(self, message.spec.name) for message in self.every(calls.studies)]

    @property
    def clients(self) -> list[study_pb2.Client]:
        """Every client ever heard of, by name."""
        return list(self.every(calls.clients))

    def drain(self, client: str) -> None:
        """Has a client finish what it has, and be given nothing new."""
        self.ask(calls.drain(client))

    def undrain(self, client: str) -> None:
        """Gives a drained client work again."""
        self.ask(calls.undrain(client))

    def watch(
        self, name: str, after: int = 0, on_lost: Callable[[UnavailableError], None] = lambda error: None
    ) -> Iterator[study_pb2.StudyEvent]:
        """As `fedstep.api.aio.AsyncFedstep.watch`."""
        patience = Patience()
        while True:
            call = self._stub.WatchStudy(calls.watch(name, after), timeout=LONG_TIMEOUT_S)
            try:
                with self._errors():
                    for answer in call:
                        patience.came()
                        after = answer.event.number
                        yield answer.event
                if self.ask(calls.get(name)).state in ENDED:
                    return
                time.sleep(LONGEST_S)  # it has not ended and nothing happens to it: ask again later
            except UnavailableError as error:
                if call.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    continue
                if patience.fresh:
                    on_lost(error)
                self.check()
                time.sleep(patience.next_s())
            finally:
                call.cancel()

    def download(self, path: str | Path, study: str = "", sha256: bytes = b"") -> Downloaded:
        """As `fedstep.api.aio.AsyncFedstep.download`."""
        patience = Patience(DOWNLOAD_TRIES)
        with ModelFile(path, study, sha256) as file, bytes_bar() as show:
            while (whole := file.finish()) is None:
                call = self._stub.DownloadModel(file.request(), timeout=LONG_TIMEOUT_S)
                try:
                    with self._errors():
                        for part in call:
                            patience.came()
                            file.take(part)
                            show(file.received, file.size)
                except UnavailableError:
                    self.check()
                    if patience.spent:
                        raise
                    time.sleep(patience.next_s())
                finally:
                    call.cancel()
            return whole

    def ask(self, call: Call[T]) -> T:
        """Makes a call of `fedstep.api.calls`.

        Raises:
            FedstepError: What the coordinator answered, as the error it stands for.
        """
        method: Callable[..., object] = getattr(self._stub, call.method)
        try:
            with self._errors():
                return call.pick(method(call.request, timeout=call.timeout_s))
        except UnavailableError:
            self.check()
            raise

    def every(self, page: Callable[[str], Call[Page[T]]]) -> Iterator[T]:
        """What lies on all pages of a list."""
        token = ""
        while True:
            items, token = self.ask(page(token))
            yield from items
            if not token:
                return

    def check(self) -> None:
        """Raises where a call that nobody answered will never be answered: one side does not take the other.

        Raises:
            UntrustedError: The coordinator is not the one that was meant.
            UnauthenticatedError: It does not take this caller.
        """
        found: list[FedstepError | None] = []
        # On a thread of its own: a notebook has an event loop on this one.
        asking = threading.Thread(target=lambda: found.append(asyncio.run(why_not(self.address, self._security))))
        asking.start()
        asking.join()
        if found and found[0] is not None:
            raise found[0]

    def _errors(self) -> RpcErrors:
        return RpcErrors(self.address)


def connect(
    address: str | None = None,
    *,
    tls_ca: str | Path | None = None,
    tls_cert: str | Path | None = None,
    tls_key: str | Path | None = None,
    token_file: str | Path | None = None,
    token: str | None = None,
) -> Fedstep:
    """A coordinator to steer; nothing is sent before the first call.

        with connect("host:7433") as fedstep:
            study = fedstep.create("study.toml").watch()
            study.download("model.safetensors")
            print(study.best.hyperparameters)

    What is not given is taken from the environment, as by the commands: FEDSTEP_COORDINATOR, FEDSTEP_TLS_CA,
    FEDSTEP_TLS_CERT, FEDSTEP_TLS_KEY, FEDSTEP_TOKEN_FILE, FEDSTEP_TOKEN.

    Args:
        address: `HOST:PORT`.
        tls_ca: Use TLS, and trust a coordinator whose certificate this CA has signed.
        tls_cert: The certificate that says who calls.
        tls_key: Its private key.
        token_file: In place of a certificate: the token in this file.
        token: Or the token itself.

    Raises:
        InvalidInputError: They do not go together, or a file cannot be used.
    """
    return Fedstep(
        address or os.environ.get("FEDSTEP_COORDINATOR") or "127.0.0.1:7433",
        security_of(tls_ca, tls_cert, tls_key, token_file, token),
    )


def security_of(
    tls_ca: str | Path | None = None,
    tls_cert: str | Path | None = None,
    tls_key: str | Path | None = None,
    token_file: str | Path | None = None,
    token: str | None = None,
) -> Security:
    """What is given, else what the environment says; as `connect` has it."""

    def path(given: str | Path | None, variable: str) -> Path | None:
        found = given or os.environ.get(variable)
        return Path(found) if found else None

    return read_security(
        path(tls_ca, "FEDSTEP_TLS_CA"),
        path(tls_cert, "FEDSTEP_TLS_CERT"),
        path(tls_key, "FEDSTEP_TLS_KEY"),
        None if token else path(token_file, "FEDSTEP_TOKEN_FILE"),
        token or os.environ.get("FEDSTEP_TOKEN"),
    )
