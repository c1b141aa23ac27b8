"""What every study of a coordinator works with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedstep.common.clock import Clock
from fedstep.server.coordination.events import EventFeed
from fedstep.server.coordination.executors import Executors
from fedstep.server.coordination.fleet import Fleet
from fedstep.server.coordination.lag import LoopLag
from fedstep.server.coordination.ledger import Ledger
from fedstep.server.coordination.pacing import PaceBook
from fedstep.server.coordination.shelf import Shelf
from fedstep.server.coordination.stopwatch import Running
from fedstep.server.storage.base import Store
from fedstep.server.storage.blobs import BlobStore


@dataclass(frozen=True)
class Parts:
    """The coordinator's parts, made once.

    Attributes:
        database_url: Of the store, for the Optuna study beside it.
        folder: Where results are written, one folder a study; None to write none.
        task_options: For the held-out data of tasks.
        overhead: What studies take of the coordinator.
        simulated: Where clients and time are simulated, the command that does it again, "" where none is known; else
            None.
    """

    store: Store
    blobs: BlobStore
    fleet: Fleet
    ledger: Ledger
    paces: PaceBook
    shelf: Shelf
    feed: EventFeed
    executors: Executors
    clock: Clock
    lag: LoopLag
    database_url: str = field(repr=False)  # may hold a password
    folder: Path | None
    task_options: Mapping[str, str]
    overhead: Running = field(default_factory=Running)
    simulated: str | None = None
