"""How a study comes to stand still: told to pause, it finishes the rounds under way, and then it is paused.

What is asked for is committed at once, so that a coordinator that is killed meanwhile finds it again. All of these read
and commit on the storage thread in one go: nothing else comes between.
"""

from collections.abc import Collection
from typing import Any

from fedstep.common.errors import PreconditionError
from fedstep.server.storage.base import Change, Event, NewEvent, Store, StudyRecord, StudyState


class PausedError(Exception):
    """There is no next round for now: the study was told to pause."""


def ask_pause(store: Store, name: str) -> list[Event]:
    """Commits that a study is to stand still after the rounds under way; nothing where it does already. Blocks.

    Raises:
        NotFoundError: There is none of that name.
        PreconditionError: It has ended, or is stopping.
    """
    record = store.study(name)
    if record.state.ended:
        raise PreconditionError(f"Study {name} has ended ({record.state}): there is nothing to pause.")
    if record.state is StudyState.STOPPING:
        raise PreconditionError(f"Study {name} is stopping: it ends after the rounds under way and cannot be paused.")
    if record.state in (StudyState.PAUSING, StudyState.PAUSED):
        return []
    event = NewEvent("study_pausing", f"Study {name} is pausing: the rounds under way are finished first.")
    return store.commit(name, Change(state=StudyState.PAUSING, events=[event]))


def ask_resume(store: Store, name: str, tasks: Collection[str]) -> StudyRecord:
    """Commits that a study that stands still is to go on; any other stays as it is. Blocks.

    Args:
        store: Of the studies.
        name: The study's.
        tasks: Those that the coordinator has, by name.

    Raises:
        NotFoundError: There is none of that name.
        PreconditionError: It has ended, or its task is not here.
    """
    record = store.study(name)
    if record.state.ended:
        raise PreconditionError(
            f"Study {name} has ended ({record.state}) and cannot go on: start another one under another name."
        )
    if record.spec.task not in tasks:
        raise PreconditionError(
            f"This coordinator has no task {record.spec.task}: start it again with --task and the task's file, "
            f"then resume study {name}."
        )
    if record.state in (StudyState.PAUSING, StudyState.PAUSED):
        store.commit(name, Change(state=StudyState.RUNNING))
    return record


def commit_paused(
    store: Store, name: str, seconds: float = 0.0, tuner_state: dict[str, Any] | None = None
) -> list[Event]:
    """Commits that a pausing study stands still now; nothing where it was resumed or stopped meanwhile. Blocks.

    Args:
        store: Of the studies.
        name: The study's.
        seconds: That it took since its last commit.
        tuner_state: As it is left; None leaves the one there.
    """
    if store.study(name).state is not StudyState.PAUSING:
        return []
    event = NewEvent("study_paused", f"Study {name} is paused; go on with it: fedstep study resume {name}.")
    change = Change(state=StudyState.PAUSED, events=[event], seconds=seconds, tuner_state=tuner_state)
    return store.commit(name, change)
