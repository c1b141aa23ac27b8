"""Processes that carry out jobs."""

import os
import subprocess
import sys
from collections import deque
from functools import partial
from pathlib import Path

import pytest
from e2e.waiting import eventually

from fedstep.common.errors import InternalError, InvalidInputError
from fedstep.common.tasks import load_task
from fedstep.simulation.workers import carry_out

powers_of_two = partial(partial, pow, 2)


def test_one_process_is_this_one() -> None:
    assert list(carry_out(deque([1, 2, 3]), powers_of_two, 1)) == [2, 4, 8]


def test_jobs_may_be_added_between_results() -> None:
    jobs, results = deque([1]), []
    for result in carry_out(jobs, powers_of_two, 1):
        results.append(result)
        if len(results) < 4:
            jobs.append(len(results) + 1)
    assert results == [2, 4, 8, 16]


@pytest.mark.slow  # a process that imports torch
def test_several_processes_share_the_jobs() -> None:
    jobs, results = deque(range(5)), []
    for result in carry_out(jobs, powers_of_two, 2):
        if not results:
            jobs.append(10)
        results.append(result)
    assert sorted(results) == [1, 2, 4, 8, 16, 1024]


@pytest.mark.slow
def test_what_a_job_raises_comes_with_the_job() -> None:
    with pytest.raises(InvalidInputError, match=r"digts: There is no built-in task"):
        list(carry_out(deque(["digits", "digts"][1:] * 2), partial(partial, load_task), 2))


@pytest.mark.slow
def test_a_process_that_ends_by_itself_is_told() -> None:
    with pytest.raises(InternalError, match=r"The process of 3 ended by itself \(exit code 3\)"):
        list(carry_out(deque([3, 3]), partial(partial, os._exit), 2))


@pytest.mark.slow
def test_processes_leave_with_the_one_that_started_them_also_when_it_is_killed(tmp_path: Path) -> None:
    job = f"import os, pathlib, time; pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch(); time.sleep(600)"
    code = (
        "from collections import deque; from functools import partial; "
        "from fedstep.simulation.workers import carry_out; "
        f"list(carry_out(deque([{job!r}] * 2), partial(partial, exec), 2))"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as started:
        try:
            eventually(lambda: len(list(tmp_path.iterdir())) == 2, "two jobs begun")
        finally:
            started.kill()
    workers = [int(path.name) for path in tmp_path.iterdir()]
    eventually(lambda: not any(map(_runs, workers)), "no worker left")


def _runs(pid: int) -> bool:
    """Whether there is such a process; not one that only waits to be fetched."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
