"""Watching on a real terminal: a pseudo-terminal of the kernel's, with `fedstep study watch` on its other end."""

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from e2e.inside import inside
from e2e.processes import FEDSTEP, environment
from e2e.studies import spec
from e2e.tiny import TinyWork, tiny_agent
from e2e.waiting import PATIENCE_S, until

OPENED, CLOSED = "\x1b[?1049h", "\x1b[?1049l"
"""Of the screen beside the one that a terminal scrolls."""


class Terminal:
    """A terminal, the program on it, and what it was sent."""

    def __init__(self, *arguments: str, columns: int, lines: int) -> None:
        self._end, other = pty.openpty()
        self.resize(columns, lines)
        variables = {name: value for name, value in environment().items() if name not in ("COLUMNS", "LINES")}
        self.program = subprocess.Popen(
            [FEDSTEP, *arguments],
            stdin=other,
            stdout=other,
            stderr=other,
            env={**variables, "TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(other)
        os.set_blocking(self._end, False)
        self.sent = ""
        asyncio.get_running_loop().add_reader(self._end, self._read)

    def _read(self) -> None:
        try:
            more = os.read(self._end, 1 << 16)
        except BlockingIOError:
            return
        except OSError:  # the program has closed its end
            more = b""
        if not more:
            asyncio.get_running_loop().remove_reader(self._end)
        self.sent += more.decode(errors="replace")

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    @property
    def frame(self) -> list[str]:
        """What was drawn last, line by line, without its colours."""
        drawn = self.sent.rsplit("\x1b[H", 1)[-1]
        return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn).split("\n")]

    def interrupt(self) -> None:
        """Ctrl-C, as a terminal sends it."""
        self.program.send_signal(signal.SIGINT)

    async def ended(self) -> int:
        await until(lambda: self.program.poll() is not None, "the program ends", PATIENCE_S)
        code = self.program.returncode
        assert code is not None
        await asyncio.sleep(0)
        return code

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._end)
        if self.program.poll() is None:
            self.program.kill()
            self.program.wait()
        os.close(self._end)


@asynccontextmanager
async def terminal(*arguments: str, columns: int = 80, lines: int = 24) -> AsyncIterator[Terminal]:
    """Until the end of the block."""
    opened = Terminal(*arguments, columns=columns, lines=lines)
    try:
        yield opened
    finally:
        opened.close()


async def test_it_is_drawn_at_any_size_and_ctrl_c_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    work = TinyWork()
    work.gate.clear()
    async with inside(tmp_path) as host, tiny_agent(host.address, "ann", work):
        await host.create(spec())
        async with terminal("study", "watch", "s", "--coordinator", host.address) as shown:
            await until(lambda: any("ann" in line for line in shown.frame), "the client is drawn")
            assert shown.sent.count(OPENED) == 1
            assert len(shown.frame) == 24
            shown.resize(60, 12)
            await until(lambda: len(shown.frame) == 12, "it is drawn anew where the terminal's size changes")
            assert max(map(len, shown.frame)) <= 60
            shown.interrupt()
            assert await shown.ended() == 130
            await until(lambda: "fedstep study stop s" in shown.sent, "it says how to go on")
            assert shown.sent.count(CLOSED) == 1
            after = shown.sent.rsplit(CLOSED, 1)[-1]
            assert "Study s goes on without being watched" in after
            assert "\x1b[?25h" in shown.sent.rsplit("\x1b[?25l", 1)[-1]  # there is a cursor again
        assert not (await host.record("s")).state.ended
        work.gate.set()
        await host.until_over("s")


async def test_at_the_end_there_is_the_result_on_the_terminal_that_was(tmp_path: Path) -> None:
    work = TinyWork()
    work.gate.clear()
    async with inside(tmp_path) as host, tiny_agent(host.address, "ann", work):
        await host.create(spec())
        async with terminal("study", "watch", "s", "--coordinator", host.address) as shown:
            await until(lambda: any("ann" in line for line in shown.frame), "the client is drawn")
            work.gate.set()
            assert await shown.ended() == 0
            await until(lambda: "study database" in shown.sent, "the result is told")
            assert "Best hyper-parameters" in shown.sent.rsplit(CLOSED, 1)[-1]


async def test_plain_lines_are_had_by_asking(tmp_path: Path) -> None:
    async with inside(tmp_path) as host, tiny_agent(host.address, "ann"):
        await host.create(spec())
        await host.until_over("s")
        arguments = ("study", "watch", "s", "--coordinator", host.address, "--plain")
        async with terminal(*arguments) as shown:
            assert await shown.ended() == 0
            await until(lambda: "study database" in shown.sent, "the result is told")
            assert OPENED not in shown.sent
            assert "Trial 0 is complete at accuracy 0.5000 after 2 rounds." in shown.sent


async def test_a_coordinator_that_goes_away_is_told_and_watched_on_when_it_is_back(tmp_path: Path) -> None:
    async with AsyncExitStack() as opened:
        async with inside(tmp_path) as host:
            port = host.coordinator.port
            await host.create(spec())
            shown = await opened.enter_async_context(terminal("study", "watch", "s", "--coordinator", host.address))
            await until(lambda: "Waiting for clients." in shown.frame, "the study is drawn")
        await until(lambda: any("Lost the coordinator" in line for line in shown.frame), "it is told")
        async with inside(tmp_path, port=port):
            await until(
                lambda: "Waiting for clients." in shown.frame and not any("Lost" in line for line in shown.frame),
                "it is watched on",
            )
            shown.interrupt()
            assert await shown.ended() == 130
