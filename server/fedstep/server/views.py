"""What lets others look into a coordinator: metrics, event files, optuna-dashboard; each only where asked for."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fedstep.server.coordination.parts import Parts
from fedstep.server.coordination.studies import Studies
from fedstep.server.dashboard import Dashboard
from fedstep.server.metrics.tensorboard import TensorBoard, need_tensorboard

if TYPE_CHECKING:
    from fedstep.server.metrics.exporter import Exporter


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

    async def start(self, wanted: Wanted, parts: Parts, studies: Studies) -> list[asyncio.Task[None]]:
        """Starts those that are wanted; answers with their tasks, which run until they are cancelled.

        Raises:
            InvalidInputError: What one of them needs is not installed.
            UnavailableError: One cannot listen.
        """
        tasks = []
        if wanted.tensorboard is not None:
            need_tensorboard()
            self._board = TensorBoard(wanted.tensorboard, parts)
            self.addresses["tensorboard"] = str(wanted.tensorboard)
            tasks.append(asyncio.create_task(self._board.keep_up(), name="tensorboard"))
        if wanted.metrics is not None:
            from fedstep.server.metrics.exporter import Exporter  # late: nobody else needs its library

            self._exporter = Exporter(parts, studies)
            self.addresses["metrics"] = f"http://{self._exporter.start(*wanted.metrics)}/metrics"
            tasks.append(asyncio.create_task(self._exporter.keep_up(), name="metrics"))
        if wanted.dashboard is not None:
            self._dashboard = Dashboard(wanted.url, *wanted.dashboard)
            self.addresses["dashboard"] = await self._dashboard.start()
            tasks.append(asyncio.create_task(self._dashboard.watch(), name="dashboard"))
        return tasks

    async def stop(self) -> None:
        """Ends them, the last events written."""
        if self._board is not None:
            await self._board.close()
        if self._dashboard is not None:
            await self._dashboard.stop()
        if self._exporter is not None:
            await asyncio.to_thread(self._exporter.stop)
