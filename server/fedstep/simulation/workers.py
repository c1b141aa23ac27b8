"""Processes that carry out jobs, one each at a time, until there are none left."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

import torch

from fedstep.common.errors import FedstepError, InternalError

J = TypeVar("J")
R = TypeVar("R")

_TICK_S = 5.0
_GRACE_S = 5.0


class _Worker(Generic[J, R]):
    """A process and what it is doing."""

    def __init__(self, process: BaseProcess, connection: "Connection[J | None, R | FedstepError]", job: J) -> None:
        self.process = process
        self.connection = connection
        self.job = job


def carry_out(jobs: deque[J], make: Callable[[], Callable[[J], R]], count: int) -> Iterator[R]:
    """The results of jobs, as they come. More jobs may be added between two results.

    One process is this one; more are started, and ended however the caller leaves. Ctrl-C is theirs to ignore: the
    one that started them is told.

    Args:
        jobs: First come, first served; can be pickled, as the results can.
        make: Makes, in each process, what does a job; can be pickled unless there is one process.
        count: How many processes.

    Raises:
        FedstepError: What a job raised.
        InternalError: A process came to an end in the middle of a job.
    """
    if count == 1:
        work = make()
        while jobs:
            yield work(jobs.popleft())
        return
    workers: list[_Worker[J, R]] = []
    try:
        while jobs or workers:
            while jobs and len(workers) < count:
                workers.append(_start(make, jobs.popleft()))
            ready = wait([worker.connection for worker in workers], timeout=_TICK_S)
            for worker in [worker for worker in workers if worker.connection in ready]:
                yield _result(worker)
                if jobs:
                    worker.job = jobs.popleft()
                    worker.connection.send(worker.job)
                else:
                    worker.connection.send(None)
                    workers.remove(worker)
                    worker.process.join(_GRACE_S)
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join(_GRACE_S)


def _start(make: Callable[[], Callable[[J], R]], job: J) -> _Worker[J, R]:
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, make), daemon=True)
    process.start()
    theirs.close()
    ours.send(job)
    return _Worker(process, ours, job)


def _result(worker: _Worker[J, R]) -> R:
    try:
        result = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join(_GRACE_S)
        raise InternalError(
            f"The process of {worker.job} ended by itself (exit code {worker.process.exitcode}): see what it printed, "
            "give fewer --jobs if memory was short, and run the same command again."
        ) from None
    if isinstance(result, FedstepError):
        raise type(result)(f"{worker.job}: {result.message}", result.violations)
    return result


def _serve(connection: "Connection[R | FedstepError, J | None]", make: Callable[[], Callable[[J], R]]) -> None:
    """A worker's life. It ends when it is told so, and when the one that started it has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    work: Callable[[J], R] | None = None
    try:
        while (job := connection.recv()) is not None:
            try:
                work = work or make()
                connection.send(work(job))
            except FedstepError as error:
                connection.send(error)
    except (EOFError, BrokenPipeError):
        return


def _leave_with_parent() -> None:
    """Ends this process, also in the middle of a job, when the one that wants its result was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
