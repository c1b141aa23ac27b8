"""A client that is made slow by options, as a process, beside one that is not."""

from pathlib import Path

from e2e.inside import Inside, inside
from e2e.processes import Programs
from e2e.studies import spec

from fedstep.common.tasks import load_task
from fedstep.server.storage.base import StudyState

TASK = Path(__file__).parent / "timed_task.py"
SLOWDOWN = 6.0


async def told_and_own(host: Inside, client: str, times: Path) -> tuple[list[float], list[float], float]:
    """Milliseconds of every step as the coordinator was told and as the task took by itself, and of the assignments."""
    assignments = [a for a in await host.assignments("s", client) if a.work == "train"]
    told = [ms for assignment in assignments if assignment.steps for ms in assignment.steps.step_ms]
    own = [float(line) for line in (times / f"{client}.txt").read_text().split()]
    return told, own, 1000 * sum(assignment.elapsed_s for assignment in assignments)


async def test_a_slowed_clients_steps_take_what_its_slowdown_says_of_its_own(tmp_path: Path) -> None:
    async with inside(tmp_path / "data", tasks=[load_task(str(TASK))]) as host:
        with Programs(tmp_path / "logs") as programs:
            of_the_task = ("--option", f"times={tmp_path}")
            hindered = ("--slowdown", str(SLOWDOWN), "--stall-every", "2s:50ms", "--bandwidth", "1MiB/s")
            programs.client(host.address, "slow", *of_the_task, *hindered, task=TASK)
            programs.client(host.address, "quick", *of_the_task, task=TASK)
            study = spec(task="timed", round={"min_clients": 2, "cohort_size": 2}, budget={"rounds_per_trial": 2})
            await host.create(study)
            assert (await host.until_over("s")).state is StudyState.COMPLETED
        told, own, elapsed_ms = await told_and_own(host, "slow", tmp_path)
        assert len(told) == len(own) > 0
        # No step is told shorter than that, and all are real time: together no longer than what the coordinator saw.
        for told_ms, own_ms in zip(told, own, strict=True):
            assert told_ms * (1 + 1e-6) >= SLOWDOWN * own_ms  # they are told as float32
        assert sum(told) <= elapsed_ms
        told, own, elapsed_ms = await told_and_own(host, "quick", tmp_path)
        assert len(told) == len(own) > 0
        assert sum(told) <= elapsed_ms
