"""What is kept of every study of a comparison, one JSON line each."""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from fedstep.common.errors import InvalidInputError, StorageError
from fedstep.common.hyperparameters import Value

_RESULTS, _SETTING = "results.jsonl", "comparison.json"

Protocol = Literal["delivered", "retrained"]
"""What was measured: the model that the tuner delivers, or its schedule trained again from scratch."""


class _Kept(BaseModel):
    """Frozen, and JSON where infinite and undefined numbers survive."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Key(_Kept):
    """Which study of a comparison.

    Attributes:
        tuner: As `--tuners` wrote it.
        seed: Of the tuning.
        budget: In rounds of the study's cohort.
        trial_rounds: Rounds of a full trial.
        protocol: What was measured.
    """

    tuner: str
    seed: int
    budget: int
    trial_rounds: int
    protocol: Protocol = "delivered"


class Point(_Kept):
    """A point of a curve.

    Attributes:
        rounds: Spent so far, tuning included: client-rounds by the size of a cohort.
        seconds: Of virtual time.
        value: Of the model that would have been delivered then, on the held-out set.
    """

    rounds: float
    seconds: float
    value: float


class Leg(_Kept):
    """A stretch of the training that made the delivered model.

    Attributes:
        hyperparameters: The point of the space.
        rounds: Trained with it, one after the other.
    """

    hyperparameters: dict[str, Value]
    rounds: int


class Outcome(_Kept):
    """What one study gave.

    Attributes:
        key: Which study.
        value: Of the model delivered, on the held-out set.
        metrics: All of the held-out set.
        curve: From the initial model to the one delivered.
        schedule: How the model delivered was trained, from the initial one on; empty when it is the initial one.
        average: Decay of the averaged model that was kept beside; 0 when there was none.
        note: Why there is no model but the initial one; "" when there is.
        wall_s: Seconds the simulation took.
    """

    key: Key
    value: float
    metrics: dict[str, float]
    curve: tuple[Point, ...]
    schedule: tuple[Leg, ...]
    average: float = 0.0
    note: str = ""
    wall_s: float = 0.0


class Journal:
    """The outcomes of a comparison in a folder: a line each, written at once, so that an interrupted one goes on."""

    def __init__(self, folder: Path, setting: Mapping[str, object]) -> None:
        """Opens the folder, or makes it.

        Args:
            folder: Where results are kept.
            setting: What every outcome in it depends on, of JSON types.

        Raises:
            InvalidInputError: The folder holds a comparison in another setting.
            StorageError: It cannot be read or written, or another process writes to it.
        """
        self._path = folder / _RESULTS
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+b")
            self._take(folder)
            _check_setting(folder, setting)
            self.outcomes = self._read()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise StorageError(f"The folder {folder} cannot be used ({reason}): give another with --out.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, outcome: Outcome) -> None:
        """Keeps an outcome, on the disk when this returns."""
        self._file.write(outcome.model_dump_json().encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.outcomes[outcome.key] = outcome

    def _take(self, folder: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"Another comparison is writing to {folder}: wait for its end, or give another folder with --out."
            ) from None

    def _read(self) -> dict[Key, Outcome]:
        """What is there; a last line that a crash cut short is taken away."""
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._file.truncate(len(whole))
        found = {}
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                outcome = Outcome.model_validate_json(line)
            except ValidationError:
                raise StorageError(
                    f"{self._path}, line {number}, is not an outcome of this version: delete the line, or give "
                    "another folder with --out."
                ) from None
            found[outcome.key] = outcome
        return found


def _check_setting(folder: Path, setting: Mapping[str, object]) -> None:
    """Writes the setting down, or compares it with the one there."""
    path = folder / _SETTING
    wanted = json.loads(json.dumps(setting))
    if not path.exists():
        part = path.with_suffix(".part")
        part.write_text(json.dumps(wanted, indent=2) + "\n")
        part.replace(path)
        return
    try:
        found = json.loads(path.read_text())
    except ValueError:
        raise StorageError(f"{path} is not JSON: delete the folder, or give another with --out.") from None
    differing = sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
    if differing:
        raise InvalidInputError(
            f"{folder} holds a comparison that differs in {', '.join(differing)}: give another folder with --out, or "
            "set it back."
        )
