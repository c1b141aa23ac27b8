"""Samples in batches, and a model measured on them: the same on a client and on the coordinator."""

from collections.abc import Callable, Iterator, Mapping, Sized

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fedstep.common.errors import InvalidInputError
from fedstep.common.raised import kind_of, somebodys_code
from fedstep.common.samples import as_samples
from fedstep.common.task import Batch, Samples, Task


def evaluate(
    task: Task,
    model: nn.Module,
    samples: Samples,
    device: torch.device,
    batch_size: int = 512,
    before_batch: Callable[[], None] = lambda: None,
) -> tuple[dict[str, float], int]:
    """The task's metrics of a model: means weighted by samples, in eval mode.

    Args:
        task: Whose metrics.
        model: Moved to the device; left in the mode it came in.
        samples: What it is measured on.
        device: Where.
        batch_size: Samples at once.
        before_batch: Called before every batch; it may raise to stop.

    Returns:
        Metrics by name and the number of samples; no metrics where there are no samples.

    Raises:
        InvalidInputError: The task measures no loss, which tuners compare by.
    """
    model.to(device)
    training = model.training
    model.eval()
    totals: dict[str, float] = {}
    count = 0
    try:
        with torch.inference_mode():
            for batch in batches(samples, batch_size, None, device):
                before_batch()
                size = len(batch[0])
                for name, mean in _metrics(task, model, batch).items():
                    totals[name] = totals.get(name, 0.0) + mean * size
                count += size
    finally:
        model.train(training)
    if count and "loss" not in totals:
        measured = ", ".join(sorted(totals)) or "nothing"
        raise InvalidInputError(f"The task {task.name} measures {measured}: let its metrics() return a loss as well.")
    return {name: total / count for name, total in totals.items()}, count


def _metrics(task: Task, model: nn.Module, batch: Batch) -> dict[str, float]:
    """The task's metrics of a batch, as numbers."""
    metrics: object = task.metrics(model, batch)
    if not isinstance(metrics, Mapping):
        raise InvalidInputError(
            f"The metrics() of the task {task.name} returned {kind_of(metrics)}: let it return means by name."
        )
    means = {}
    for name, mean in metrics.items():
        try:
            if isinstance(mean, torch.Tensor) and mean.numel() != 1:
                raise ValueError
            means[str(name)] = float(mean)
        except (TypeError, ValueError, OverflowError):  # no RuntimeError: a device's own come up here, too
            raise InvalidInputError(
                f"The metrics() of the task {task.name} returned {kind_of(mean)} as {name}: let it be one number that "
                "a float can hold."
            ) from None
    return means


def batches(
    samples: Samples, batch_size: int, generator: torch.Generator | None, device: torch.device
) -> Iterator[Batch]:
    """One pass over the samples; the last batch may be short, nothing is dropped.

    A `TensorDataset` is indexed directly: many times faster than a DataLoader for small samples.
    Where it lies on the device already, nothing is copied.

    Args:
        samples: What to pass over.
        batch_size: Samples in a batch.
        generator: A CPU generator that shuffles them; None for their own order.
        device: Where the batches shall lie.
    """
    count = sample_count(samples)
    if not count:
        return
    if isinstance(samples, TensorDataset):
        inputs, targets = samples.tensors
        here = inputs.device == targets.device == device
        order = None if generator is None else torch.randperm(count, generator=generator).to(inputs.device)
        for start in range(0, count, batch_size):
            part: slice | torch.Tensor = slice(start, start + batch_size)
            if order is not None:
                part = order[part]
            if here:
                yield inputs[part], targets[part]
            else:
                yield inputs[part].to(device, non_blocking=True), targets[part].to(device, non_blocking=True)
        return
    # A generator of its own even unshuffled: a loader without one draws from torch's global one, which belongs to
    # the training.
    loader: DataLoader[tuple[torch.Tensor, ...]] = DataLoader(
        samples, batch_size, shuffle=generator is not None, generator=generator or torch.Generator()
    )
    seen = 0
    for drawn in loader:
        if not isinstance(drawn, tuple | list) or len(drawn) != 2:
            raise InvalidInputError(
                f"The data set {type(samples).__name__} gives no pairs: let its __getitem__ return (input, target)."
            )
        seen += len(drawn[0])
        yield drawn[0].to(device), drawn[1].to(device)
    if seen < count:
        raise InvalidInputError(
            f"The data set {type(samples).__name__} gave {seen} of its {count} samples: a StopIteration in its "
            "__getitem__ ends it."
        )


def held_out_samples(task: Task, options: Mapping[str, str]) -> Samples | None:
    """A task's samples that no client trains on, of whatever kind it hands over; None where it has none.

    Args:
        task: Whose.
        options: See `Task.load_held_out`.
    """
    with somebodys_code(f"The task {task.name} cannot load its held-out data"):
        data = task.load_held_out(options)
    return None if data is None else as_samples(data)


def sample_count(samples: Samples) -> int:
    """How many samples there are.

    Raises:
        InvalidInputError: The data set does not know; one sentence.
    """
    if not isinstance(samples, Sized):
        raise InvalidInputError(
            f"The data set {type(samples).__name__} has no length: give it a __len__, as map-style data sets have."
        )
    with somebodys_code(f"The data set {type(samples).__name__} does not tell its length"):
        return len(samples)
