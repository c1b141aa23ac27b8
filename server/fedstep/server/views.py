"""What lets others look into a coordinator: metrics, event files, optuna-dashboard; each only where asked for."""

import asyncio
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fedstep.server.coordination.parts import Parts
from fedstep.server.coordination.studies import Studies
from fedstep.server.dashboard import Dashboard
from fedstep.server.metrics.tensorboard import TensorBoard, need_tensorboard

if TYPE_CHECKING:
    from fedstep.server.metrics.exporter import Exporter

log = logging.getLogger(__name__)


class Wanted(Protocol):
    """What was asked for, see `CoordinatorConfig`."""

    @property
    def metrics(self) -> tuple[str, int] | None: ...  # noqa: D102

    @property
    def dashboard(self) -> tuple[str, int] | None: ...  # noqa: D102

    @property
    def tensorboard(self) -> Path | None: ...  # noqa: D102

    @property
    def url(self) -> str: ...  # noqa: D102


class Views:
    """Those of one coordinator: `start`, then `stop`.

    Attributes:
        addresses: By what it is, where it is found.
    """

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}
        self._exporter: Exporter | None = None
        self._board: TensorBoard | None = None
        self._dashboard: Dashboard | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, wanted: Wanted, parts: Parts, studies: Studies) -> None:
        """Starts those that are wanted.

        Raises:
            InvalidInputError: What one of them needs is not installed.
            UnavailableError: One cannot listen.
        """
        if wanted.tensorboard is not None:
            need_tensorboard()
            self._board = TensorBoard(wanted.tensorboard, parts)
            self.addresses["tensorboard"] = str(wanted.tensorboard)
            self._keep(self._board.keep_up(), "TensorBoard's files")
        if wanted.metrics is not None:
            from fedstep.server.metrics.exporter import Exporter  # late: nobody else needs its library

            self._exporter = Exporter(parts, studies)
            self.addresses["metrics"] = f"http://{self._exporter.start(*wanted.metrics)}/metrics"
            self._keep(self._exporter.keep_up(), "metrics")
        if wanted.dashboard is not None:
            self._dashboard = Dashboard(wanted.url, *wanted.dashboard)
            self.addresses["dashboard"] = await self._dashboard.start()
            self._keep(self._dashboard.watch(), "the dashboard")

    async def stop(self) -> None:
        """Ends them, the last events written."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._board is not None:
            await self._board.close()
        if self._dashboard is not None:
            await self._dashboard.stop()
        if self._exporter is not None:
            await asyncio.to_thread(self._exporter.stop)

    def _keep(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Has something run until `stop`. Where it fails, studies go on without it."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("%s will not be kept up to date any more", name, exc_info=error)

        task = asyncio.create_task(work, name=name)
        task.add_done_callback(ended)
        self._tasks.append(task)
