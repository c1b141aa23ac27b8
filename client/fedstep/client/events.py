"""What a person or a program that watches a client is told."""

import contextlib
import json
import math
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TextIO

from fedstep.common.hyperparameters import Value


@dataclass(frozen=True)
class ClientEvent:
    """Something that happened on this client.

    Attributes:
        kind: For programs: `connected`, `disconnected`, `assignment`, `outcome`, `notice`, `drain`, `stopped`.
        text: One line for people.
        details: For programs.
    """

    kind: str
    text: str
    details: Mapping[str, Value] = field(default_factory=dict)


Listener = Callable[[ClientEvent], None]
"""Takes events on the event loop; must not block."""

_KEPT_LINES = 1000
_CLOSE_S = 0.5


class Printer:
    """Writes events as lines from a thread of its own: a terminal that is paused must not stop the heartbeats.

    Lines that a stuck reader keeps waiting beyond a thousand are dropped.
    """

    def __init__(self, out: TextIO, as_json: bool) -> None:
        """Starts the thread.

        Args:
            out: Where to write.
            as_json: One JSON object a line instead of text.
        """
        self._out = out
        self._as_json = as_json
        self._lines: queue.Queue[str | None] = queue.Queue(maxsize=_KEPT_LINES)
        self._thread = threading.Thread(target=self._write, name="fedstep-print", daemon=True)
        self._thread.start()

    def __call__(self, event: ClientEvent) -> None:
        """Takes one event; never waits."""
        line = event.text
        if self._as_json:
            details = {name: _json_value(value) for name, value in event.details.items()}
            line = json.dumps({**details, "event": event.kind, "text": event.text})
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(line)

    def close(self) -> None:
        """Writes what is left, for at most half a second."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(_CLOSE_S)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._out.write(line + "\n")
                self._out.flush()
            except (OSError, ValueError):
                return  # whoever read has gone


def _json_value(value: Value) -> Value | None:
    """The value as JSON can say it: there is no word for NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
