"""optuna-dashboard over the coordinator's database, as a child process that ends with the coordinator.

optuna-dashboard has no mode for reading only: whoever reaches it could rename and delete studies under the tuner's
hands. So what would change something is refused here, although its buttons stay.
"""

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from fedstep.common.errors import InvalidInputError, UnavailableError

log = logging.getLogger(__name__)

STARTED_WITHIN_S = 60.0
ENDED_WITHIN_S = 5.0

_READING = ("GET", "HEAD", "OPTIONS")

Answer = Iterable[bytes]
App = Callable[[dict[str, Any], Callable[..., Any]], Answer]


class Dashboard:
    """The child process.

    Args:
        url: SQLAlchemy's URL of the database. It may hold a password, so the child reads it from its standard input.
        host: The address it listens on.
        port: 0 for any free one.
    """

    def __init__(self, url: str, host: str, port: int) -> None:
        self._settings = {"url": url, "host": host, "port": port}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> str:
        """Starts it; answers with its address as a browser takes it, once it listens.

        Raises:
            InvalidInputError: optuna-dashboard is not installed.
            UnavailableError: It does not come up.
        """
        if importlib.util.find_spec("optuna_dashboard") is None:
            raise InvalidInputError(
                '--dashboard-port needs optuna-dashboard: install it with `pip install "fedstep[dashboard]"`, '
                "or leave it out."
            )
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "fedstep.server.dashboard")
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=pipe,
            stdout=pipe,
            start_new_session=True,  # Ctrl-C is the coordinator's
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(self._settings).encode() + b"\n")
        told: dict[str, Any] = {}
        with contextlib.suppress(TimeoutError, ValueError, ConnectionError):
            async with asyncio.timeout(STARTED_WITHIN_S):
                told = json.loads(await self._process.stdout.readline())
        if "listening" not in told:
            await self.stop()
            why = told.get("error", "it ended by itself; the lines above say why")
            host, port = self._settings["host"], self._settings["port"]
            raise UnavailableError(
                f"optuna-dashboard cannot be served on {host}:{port}: {why}. Choose others with --dashboard-host and "
                "--dashboard-port, or leave it out."
            )
        return str(told["listening"])

    async def watch(self) -> None:
        """Says so in the log where it ends before it is told to."""
        assert self._process is not None
        code = await self._process.wait()
        log.warning("optuna-dashboard has ended with status %d; studies go on without it", code)

    async def stop(self) -> None:
        """Ends it."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(ENDED_WITHIN_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


class _Threaded(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """A line a request is nobody's interest."""


def read_only(app: App) -> App:
    """The app, but for all that would change something."""

    def guarded(environment: dict[str, Any], start_response: Callable[..., Any]) -> Answer:
        if environment["REQUEST_METHOD"] in _READING:
            return app(environment, start_response)
        body = json.dumps({"reason": "This dashboard is for reading: the study belongs to fedstep's coordinator."})
        start_response("405 Method Not Allowed", [("Content-Type", "application/json"), ("Allow", ", ".join(_READING))])
        return [body.encode()]

    return guarded


def _main() -> None:
    """Serves until the coordinator ends it, or has gone: then standard input is at its end."""
    settings = json.loads(sys.stdin.readline())
    from optuna_dashboard import wsgi

    from fedstep.server.tuning.optuna_storage import open_storage

    try:
        app = read_only(wsgi(open_storage(settings["url"])))
        server = make_server(settings["host"], settings["port"], app, _Threaded, _Silent)
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error)
        print(json.dumps({"error": reason.rstrip(".")}), flush=True)
        sys.exit(1)
    print(json.dumps({"listening": f"http://{settings['host']}:{server.server_port}/"}), flush=True)
    threading.Thread(target=_end_with_the_coordinator, daemon=True).start()
    server.serve_forever()


def _end_with_the_coordinator() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    _main()
