"""What a check is, and how one that another makes pointless is passed over."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

from fedstep.common.raised import RAISED, in_a_sentence

T = TypeVar("T")


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    """It works, and somebody should know of it."""
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """What a person or a program is told of a check.

    Attributes:
        check: Its name.
        status: How it ended.
        text: What was found; the fix, where there is something to mend; why it was passed over.
    """

    check: str
    status: Status
    text: str


@dataclass(frozen=True)
class Found(Generic[T]):
    """What a check that ended well has found.

    Attributes:
        value: For the checks after it.
        text: For people.
        warning: Whether somebody should do something about it.
    """

    value: T
    text: str
    warning: bool = False


class SkipError(Exception):
    """There is nothing to check; the message says why."""


@dataclass(frozen=True)
class Done(Generic[T]):
    """A check that is over.

    Attributes:
        name: The check's; of one that was passed over that of the one to mend first.
        found: What it found; None where it failed or was passed over.
    """

    name: str
    found: Found[T] | None

    @property
    def value(self) -> T:
        """What it found, for a check that comes after it."""
        assert self.found is not None
        return self.found.value


class Checkup:
    """Runs checks, one after the other.

    Args:
        listener: Is told of each finding at once: a check may take seconds.
        begins: Is told of each check that begins.

    Attributes:
        findings: All of them, in order.
    """

    def __init__(self, listener: Callable[[Finding], None], begins: Callable[[str], None] = lambda check: None) -> None:
        self.findings: list[Finding] = []
        self._listener = listener
        self._begins = begins

    async def run(self, name: str, check: Callable[[], Awaitable[Found[T]]], *after: Done[Any]) -> Done[T]:
        """Runs one check.

        Args:
            name: What it is called.
            check: Raises a FedstepError, or anything at all where it runs code that is the user's.
            after: What it builds on; where one of them found nothing, it is passed over.
        """
        missing = next((done for done in after if done.found is None), None)
        self._begins(name)
        status, text, found = await self._found(check, missing)
        finding = Finding(name, status, text)
        self.findings.append(finding)
        self._listener(finding)
        return Done(missing.name if missing else name, found)

    async def _found(
        self, check: Callable[[], Awaitable[Found[T]]], missing: Done[Any] | None
    ) -> tuple[Status, str, Found[T] | None]:
        if missing is not None:
            return Status.SKIPPED, f"it needs what the check {missing.name} finds", None
        try:
            found = await check()
        except SkipError as reason:
            return Status.SKIPPED, str(reason), None
        except RAISED as error:  # a task of the user's may raise anything
            return Status.FAILED, in_a_sentence(error), None
        return Status.WARNING if found.warning else Status.OK, found.text, found
