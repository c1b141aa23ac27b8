"""Snapshots of studies, for whoever watches: one for all of them, and none while nobody does."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from fedstep.server.api import snapshot
from fedstep.server.coordination.parts import Parts
from fedstep.server.coordination.studies import Studies
from fedstep.server.coordination.study import StudyRunner
from fedstep.v1 import progress_pb2

LEAST_INTERVAL_S = 0.25
MOST_INTERVAL_S = 60.0
USUAL_INTERVAL_S = 0.5

_SHARE = 0.05
"""Of the event loop's time at most goes into the snapshots of one study: large ones are taken less often."""


@dataclass(frozen=True)
class _Latest:
    message: progress_pb2.Snapshot
    good_until: float


class ProgressFeed:
    """What goes on in studies now.

    Nothing is kept of a study that is not watched, but its latest snapshot while it is run.

    Args:
        studies: The coordinator's.
        parts: What they work with.
    """

    def __init__(self, studies: Studies, parts: Parts) -> None:
        self._studies = studies
        self._parts = parts
        self._latest: dict[str, _Latest] = {}

    async def watch(self, name: str, interval_s: float) -> AsyncIterator[progress_pb2.Snapshot]:
        """A snapshot every so often, until the study is not run any more; the last one says how it was left.

        Args:
            name: The study's.
            interval_s: Between two of them; taken into bounds.

        Raises:
            NotFoundError: There is no study of that name.
        """
        await self._studies.record(name)
        interval_s = min(max(interval_s or USUAL_INTERVAL_S, LEAST_INTERVAL_S), MOST_INTERVAL_S)
        while (runner := self._studies.runner(name)) is not None:
            yield self._now(name, runner)
            await asyncio.sleep(interval_s)
        self._latest.pop(name, None)
        yield snapshot.at_rest(await self._studies.view(name), self._parts)

    def _now(self, name: str, runner: StudyRunner) -> progress_pb2.Snapshot:
        """The study at this moment, or a quarter of a second ago, where somebody has just asked."""
        now, latest = self._parts.clock.monotonic(), self._latest.get(name)
        if latest is not None and now < latest.good_until:
            return latest.message
        began = time.perf_counter()
        message = snapshot.running(runner, self._parts)
        took_s = time.perf_counter() - began
        self._latest[name] = _Latest(message, now + max(LEAST_INTERVAL_S, took_s / _SHARE))
        return message
