"""The coordinator's executors without threads: every call is made where it is asked for."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from fedstep.server.coordination.executors import Executor, Executors

P = ParamSpec("P")
R = TypeVar("R")


class InlineExecutor(Executor):
    """Calls at once. On a virtual loop nothing else could go on meanwhile: handing over would only cost time."""

    def __init__(self) -> None:
        """No threads, so no pool."""

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the function."""
        return function(*args, **kwargs)

    def shut_down(self) -> None:
        """There is nothing to wait for."""


class InlineExecutors(Executors):
    """One for every kind of work: their order is the order of the calls."""

    def __init__(self) -> None:
        self.storage = self.files = self.compute = self.bulk = self.drawing = InlineExecutor()
