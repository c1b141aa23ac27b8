"""Who has what: the samples of every client of a federation, counted by class."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from fedstep.common.errors import InvalidInputError
from fedstep.common.evaluate import batches
from fedstep.common.task import ClientInfo, Samples, Task
from fedstep.common.tasks import load_client_data
from fedstep.simulation.population import names_of

_AT_ONCE = 4096


@dataclass(frozen=True)
class Holdings:
    """The clients' samples, counted.

    Attributes:
        clients: Their shares, as `--partition` names them: 1/3, 2/3, 3/3.
        classes: The labels that anybody has.
        counts: [clients, classes], training and validation samples together.
        validation: How many of each client's are for validation, [clients].
    """

    clients: tuple[str, ...]
    classes: tuple[int, ...]
    counts: np.ndarray[tuple[int, int], np.dtype[np.int64]]
    validation: np.ndarray[tuple[int], np.dtype[np.int64]]

    @property
    def sizes(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """How many samples each client has, [clients]."""
        sizes: np.ndarray[tuple[int], np.dtype[np.int64]] = self.counts.sum(axis=1)
        return sizes

    def summary(self) -> str:
        """All of it in one line."""
        sizes, kinds = self.sizes, (self.counts > 0).sum(axis=1)
        return (
            f"{int(sizes.sum()):,} samples, {_range(sizes)} a client; {len(self.classes)} "
            f"{'class' if len(self.classes) == 1 else 'classes'}, {_range(kinds)} a client."
        )


def count_holdings(
    task: Task, clients: int, options: Mapping[str, str], tell: Callable[[int], None] = lambda counted: None
) -> Holdings:
    """Loads every client's share, as a client would, and counts; one share at a time is in memory.

    Args:
        task: Whose data.
        clients: In the federation: client i of n is given the partition (i, n).
        options: The task's.
        tell: Is told after each share how many there are.

    Raises:
        InvalidInputError: The task cannot load a share, or its targets are no classes.
    """
    names = names_of(clients)
    counted: list[dict[int, int]] = []
    validation = np.zeros(clients, dtype=np.int64)
    with task.loading_many():
        for number, name in enumerate(names):
            data = load_client_data(task, ClientInfo(name, (number, clients), options))
            kept = _count(task, data.validation)
            # With validation=0 both are the same samples.
            train = {} if data.train is data.validation else _count(task, data.train)
            validation[number] = sum(kept.values())
            counted.append({label: train.get(label, 0) + kept.get(label, 0) for label in {**train, **kept}})
            tell(number + 1)
    classes = sorted({label for one in counted for label in one})
    counts = np.array([[one.get(label, 0) for label in classes] for one in counted], dtype=np.int64)
    shares = tuple(f"{number}/{clients}" for number in range(1, clients + 1))
    return Holdings(shares, tuple(classes), counts.reshape(clients, len(classes)), validation)


def _count(task: Task, samples: Samples) -> dict[int, int]:
    """How many samples of each label there are."""
    found: dict[int, int] = {}
    for _, targets in batches(samples, _AT_ONCE, None, torch.device("cpu")):
        if targets.ndim != 1 or targets.is_floating_point():
            raise InvalidInputError(
                f"The targets of the task {task.name} are {str(targets.dtype).removeprefix('torch.')} "
                f"{['samples', *targets.shape[1:]]}, not classes: there is nothing to count by."
            )
        labels, counts = np.unique(targets.numpy(), return_counts=True)
        for label, count in zip(labels.tolist(), counts.tolist(), strict=True):
            found[label] = found.get(label, 0) + count
    return found


def _range(values: np.ndarray) -> str:
    low, middle, high = int(values.min()), float(np.median(values)), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,} (median {middle:,.0f})"
