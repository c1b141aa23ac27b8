"""Watches a study to its end on a terminal: events and snapshots come in, a few times a second the picture is drawn."""

import asyncio

from rich.console import Console
from rich.live import Live

from fedstep.api.aio import AsyncFedstep
from fedstep.api.waiting import LONGEST_S
from fedstep.common.errors import UnavailableError
from fedstep.server.cli.live.screen import Screen
from fedstep.server.cli.progress import Worth
from fedstep.v1 import study_pb2

SNAPSHOT_EVERY_S = 0.5
DRAW_EVERY_S = 0.25


def can_draw(console: Console) -> bool:
    """Whether there is a terminal that a picture can be drawn on."""
    return console.file.isatty() and console.is_terminal and not console.is_dumb_terminal


async def watch_live(remote: AsyncFedstep, study: study_pb2.Study, console: Console, hint: str, after: int = 0) -> None:
    """Shows a study until it ends; the terminal is then as it was before.

    Args:
        remote: Its coordinator.
        study: As it stands.
        console: Of the terminal.
        hint: What Ctrl-C does, in a sentence.
        after: Only events with a greater number are told.
    """
    await _Watching(remote, study, Screen(study.spec.name, hint), console).to_the_end(after)


class _Watching:
    def __init__(self, remote: AsyncFedstep, study: study_pb2.Study, screen: Screen, console: Console) -> None:
        self._remote = remote
        self._name = study.spec.name
        self._worth = Worth(small=False)
        self._screen = screen
        # Drawn by this alone, and only where something has changed: nothing flickers.
        self._live = Live(self._screen, console=console, screen=True, auto_refresh=False)
        self._changed = asyncio.Event()

    async def to_the_end(self, after: int) -> None:
        with self._live:
            beside = [asyncio.create_task(work()) for work in (self._look, self._draw)]
            events = asyncio.create_task(self._listen(after))
            try:
                done, _ = await asyncio.wait([events, *beside], return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                await events
            finally:
                for task in (events, *beside):
                    task.cancel()
                await asyncio.gather(events, *beside, return_exceptions=True)

    async def _listen(self, after: int) -> None:
        async for event in self._remote.watch(self._name, self._lost, after):
            self._screen.note = ""
            if self._worth.telling(event):
                self._screen.tell(event)
            self._changed.set()

    def _lost(self, error: UnavailableError) -> None:
        self._screen.note = f"Lost the coordinator at {self._remote.address}; waiting for it to come back."
        self._changed.set()

    async def _look(self) -> None:
        """Takes in snapshots for as long as there are any; that the coordinator is away is told elsewhere."""
        while True:
            try:
                async for snapshot in self._remote.snapshots(self._name, SNAPSHOT_EVERY_S):
                    self._screen.snapshot, self._screen.note = snapshot, ""
                    self._changed.set()
            except UnavailableError:
                pass
            await asyncio.sleep(LONGEST_S)

    async def _draw(self) -> None:
        size = None
        while True:
            if self._changed.is_set() or size != self._live.console.size:
                self._changed.clear()
                size = self._live.console.size
                self._live.refresh()
            await asyncio.sleep(DRAW_EVERY_S)
