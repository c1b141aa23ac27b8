"""Processes that carry out jobs."""

import os
from collections import deque
from functools import partial

import pytest

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
