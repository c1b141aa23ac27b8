"""The coordinator: everything put together, started, served and shut down."""

import asyncio
import errno
import logging
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
import torch
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from fedstep.common.channel import DEFAULT_PORT, SERVER_OPTIONS
from fedstep.common.clock import SystemClock
from fedstep.common.errors import StorageError, UnavailableError
from fedstep.common.task import Task
from fedstep.server.api.errors import ErrorInterceptor
from fedstep.server.api.fleet_service import FleetService
from fedstep.server.api.probe import Probe
from fedstep.server.api.run_service import RunService
from fedstep.server.api.study_service import StudyService
from fedstep.server.coordination.events import EventFeed
from fedstep.server.coordination.executors import Executors
from fedstep.server.coordination.fleet import Fleet, LeasePolicy
from fedstep.server.coordination.lag import LoopLag
from fedstep.server.coordination.ledger import Ledger
from fedstep.server.coordination.outside import OutsideRuns
from fedstep.server.coordination.pacing import PaceBook
from fedstep.server.coordination.parts import Parts
from fedstep.server.coordination.shelf import Shelf
from fedstep.server.coordination.studies import Studies
from fedstep.server.protection import Protection
from fedstep.server.storage.blobs import BlobStore
from fedstep.server.storage.sql_store import open_store
from fedstep.server.views import Views
from fedstep.v1 import fleet_pb2, run_pb2, run_pb2_grpc, study_pb2, study_pb2_grpc

log = logging.getLogger(__name__)

SERVICES = (
    fleet_pb2.DESCRIPTOR.services_by_name["FleetService"].full_name,
    study_pb2.DESCRIPTOR.services_by_name["StudyService"].full_name,
    run_pb2.DESCRIPTOR.services_by_name["RunService"].full_name,
)
SAVE_CLIENTS_EVERY_S = 10.0
GRACE_S = 2.0
SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep the interpreter while the event loop waits for it; Python's own 5 ms show in the lag."""


@dataclass(frozen=True)
class CoordinatorConfig:
    """How a coordinator is started.

    Attributes:
        folder: Holds the database, the models and the results, unless a database is named.
        results_folder: Holds final models and pictures in place of `folder`.
        tasks: What it may run, by name.
        host: The address it listens on.
        port: 0 for any free one.
        database_url: An SQLAlchemy URL; "" for SQLite in the folder.
        task_options: For the held-out data of tasks.
        lease: The terms of a client's session.
        protection: TLS, and who may call what.
        metrics: Where Prometheus finds it; None to tell it nothing.
        dashboard: Where optuna-dashboard listens; None for none.
        tensorboard: Where event files are written; None to write none.
    """

    folder: Path
    tasks: Mapping[str, Task]
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    database_url: str = field(default="", repr=False)
    task_options: Mapping[str, str] = field(default_factory=dict)
    lease: LeasePolicy = field(default_factory=LeasePolicy)
    protection: Protection = field(default_factory=Protection)
    results_folder: Path | None = None
    metrics: tuple[str, int] | None = None
    dashboard: tuple[str, int] | None = None
    tensorboard: Path | None = None

    @property
    def url(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{self.folder / 'fedstep.db'}"


class Coordinator:
    """A coordinator process: `start`, then `serve` until it is cancelled, then `shut_down`."""

    def __init__(self, config: CoordinatorConfig) -> None:
        self._config = config
        self._executors = Executors()
        self._owned: list[asyncio.Task[None]] = []
        self._server: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()
        self._parts: Parts | None = None
        self.studies: Studies | None = None
        self.port = 0
        self.views = Views()

    @property
    def address(self) -> str:
        """`HOST:PORT`, once started."""
        return f"{self._config.host}:{self.port}"

    @property
    def parts(self) -> Parts:
        """What studies work with, once started."""
        if self._parts is None:
            raise UnavailableError("The coordinator has not started.")
        return self._parts

    async def start(self) -> list[str]:
        """Opens the database, listens, and goes on with interrupted studies; answers with their names.

        Raises:
            PreconditionError: Strangers could reach it, and nobody has said that they may.
            StorageError: The database cannot be used.
            UnavailableError: The port is taken.
        """
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        torch.set_num_threads(1)  # two threads on a busy core slowed aggregation 17-fold
        try:
            await self._check_address()
            await asyncio.to_thread(self._config.protection.check, self._config.host, self._config.port)
            self._parts = parts = await self._make_parts()
            self.studies = Studies(dict(self._config.tasks), parts)
            self._server = self._make_server(parts, self.studies)
            self._owned = [
                asyncio.create_task(parts.fleet.expire_leases(), name="leases"),
                asyncio.create_task(parts.lag.measure(), name="loop lag"),
                asyncio.create_task(self._save_clients(), name="clients"),
            ]
            await self.views.start(self._config, parts, self.studies)
            resumed = await self.studies.resume_all()
            await self._server.start()  # last: whoever asks for a study finds it under way
        except BaseException:
            await self.shut_down("the coordinator could not start")
            raise
        for service in ("", *SERVICES):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return resumed

    async def _make_parts(self) -> Parts:
        config, executors = self._config, self._executors
        _make_folder(config.folder, "--data-dir")
        results = config.results_folder or config.folder
        _make_folder(results, "--results-dir")
        if config.tensorboard is not None:
            _make_folder(config.tensorboard, "--tensorboard")
        store = await executors.storage.run(open_store, config.url)
        identity = await executors.storage.run(store.identity)
        blobs = await executors.files.run(BlobStore, config.folder / "models", identity)
        clock = SystemClock()
        fleet = Fleet(clock, config.lease, await executors.storage.run(store.clients))
        ledger = Ledger(fleet, clock)
        paces = PaceBook(fleet, ledger, await executors.storage.run(store.paces))
        return Parts(
            store=store,
            blobs=blobs,
            fleet=fleet,
            ledger=ledger,
            paces=paces,
            shelf=Shelf(),
            feed=EventFeed(store, executors.storage),
            executors=executors,
            clock=clock,
            lag=LoopLag(),
            database_url=config.url,
            folder=results,
            task_options=config.task_options,
        )

    async def _check_address(self) -> None:
        """Tries the address before gRPC does, which would write into the log and not say what is wrong.

        Raises:
            UnavailableError: Nothing can listen there.
        """
        host, port = self._config.host, self._config.port
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            family, kind, protocol, _, address = found[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                probe.listen()
        except OSError as error:
            raise _cannot_listen(f"{host}:{port}", error) from error

    def _make_server(self, parts: Parts, studies: Studies) -> grpc.aio.Server:
        """The server, not started yet, with a port of its own.

        Raises:
            UnavailableError: The port was taken a moment ago.
        """
        protection = self._config.protection
        interceptors = [ErrorInterceptor(), *protection.interceptors()]
        server = grpc.aio.server(options=SERVER_OPTIONS, interceptors=interceptors)
        probe = Probe(list(self._config.tasks), protection.callers)
        fleet_service = FleetService(parts.fleet, parts.ledger, parts.shelf, self._executors, probe)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICES[0], fleet_service.handlers()),))
        study_pb2_grpc.add_StudyServiceServicer_to_server(StudyService(studies, parts), server)
        run_pb2_grpc.add_RunServiceServicer_to_server(RunService(OutsideRuns(studies, parts)), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        asked = f"{self._config.host}:{self._config.port}"
        try:
            credentials = protection.credentials()
            self.port = server.add_secure_port(asked, credentials) if credentials else server.add_insecure_port(asked)
        except RuntimeError as error:
            raise _cannot_listen(asked, OSError(errno.EADDRINUSE, "address in use")) from error
        return server

    async def _save_clients(self) -> None:
        while True:
            await asyncio.sleep(SAVE_CLIENTS_EVERY_S)
            try:
                await self._save_now(self.parts)
            except StorageError as error:  # bookkeeping: the next time will do
                log.warning("the clients could not be saved: %s", error)

    async def _save_now(self, parts: Parts) -> None:
        await self._executors.storage.run(parts.store.save_clients, parts.fleet.records())
        learnt = parts.paces.unsaved()
        try:
            await self._executors.storage.run(parts.store.save_paces, learnt)
        except StorageError:
            parts.paces.not_saved(learnt)
            raise

    async def serve(self) -> None:
        """Serves until it is cancelled; ends early when one of the coordinator's own tasks fails."""
        done, _ = await asyncio.wait(self._owned, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def shut_down(self, reason: str = "the coordinator is shutting down") -> list[str]:
        """Drains, commits and closes, in this order; answers with the studies that were interrupted."""
        interrupted: list[str] = []
        await self._health.enter_graceful_shutdown()
        if self.studies is not None:
            interrupted = await self.studies.drain()
        if self._parts is not None:
            self._parts.fleet.drain(reason)
        if self._server is not None:
            await self._server.stop(GRACE_S)
        for task in self._owned:
            task.cancel()
        await asyncio.gather(*self._owned, return_exceptions=True)
        await self.views.stop()
        if self._parts is not None:
            try:
                await self._save_now(self._parts)
            except StorageError as error:  # all else is to be closed, and nothing committed is lost
                log.warning("the clients could not be saved: %s", error)
            await self._executors.storage.run(self._parts.store.close)
        await asyncio.to_thread(self._executors.shut_down)
        return interrupted


def _make_folder(folder: Path, option: str) -> None:
    """Makes a folder that the coordinator will write to, now or at the end of a study.

    Raises:
        StorageError: It cannot be made, or may not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"The folder {folder} cannot be made ({(error.strerror or str(error)).lower()}): "
            f"give another with {option}."
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StorageError(
            f"The folder {folder} may not be written to: give this user the right to, or another with {option}."
        )


def _cannot_listen(address: str, error: OSError) -> UnavailableError:
    if error.errno == errno.EADDRINUSE:
        why = "another program has the port: end that program, or choose another port with --port"
    elif error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        why = "it is no address of this machine's: give one with --host, such as 127.0.0.1 or 0.0.0.0"
    elif error.errno == errno.EACCES:
        why = "this user may not use that port: choose one above 1023 with --port"
    else:
        why = f"{(error.strerror or str(error)).lower()}: give other ones with --host and --port"
    return UnavailableError(f"Nothing can listen on {address}: {why}.")
