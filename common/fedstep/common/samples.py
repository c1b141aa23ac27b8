"""What a task may hand over as data: data sets of PyTorch's, arrays, or data sets of Hugging Face's."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch.utils.data import Dataset, TensorDataset

from fedstep.common.errors import InvalidInputError

Samples = Dataset[tuple[torch.Tensor, ...]]
"""A data set of (input, target) pairs; a `TensorDataset` is the fastest."""

Array = np.ndarray[Any, np.dtype[Any]] | torch.Tensor
"""[samples, ...]."""

_TARGETS = ("label", "labels", "target", "targets")
_BRIGHTEST = 255.0


@runtime_checkable
class Columns(Protocol):
    """What is used of a `datasets.Dataset`, Hugging Face's, which need not be installed."""

    column_names: Any
    features: Any
    format: Any

    def with_format(self, type: str) -> Any:
        """The same rows as arrays."""


Data = Samples | tuple[Array, Array] | Columns
"""What a task may hand over: see `as_samples`."""


def as_samples(data: Data) -> Samples:
    """Any kind of data as a data set of (input, target) pairs.

    - A map-style `torch.utils.data.Dataset` stays as it is.
    - A pair of arrays, of NumPy's or tensors: inputs [samples, ...] and targets [samples, ...].
    - A `datasets.Dataset` with two columns: the target is called `label`, `labels`, `target` or `targets`, the input as
      it likes. Pictures come as torchvision's `ToTensor` has them, float32 [channels, height, width] in [0, 1]. All of
      it is read into memory.

    Arrays and columns become tensors: real numbers float32, whole ones int64. What is a tensor already keeps its type.

    Raises:
        InvalidInputError: It is none of these, or its rows cannot be one tensor.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, Columns):
        return _of_columns(data)
    pair: object = data
    if isinstance(pair, tuple | list) and len(pair) == 2:
        return _paired(_tensor(pair[0], "inputs"), _tensor(pair[1], "targets"))
    raise InvalidInputError(
        f"A task handed over a {type(data).__name__} as data: make it a torch.utils.data.Dataset, a pair of arrays "
        "(inputs, targets), or a data set of Hugging Face's."
    )


def _paired(inputs: torch.Tensor, targets: torch.Tensor) -> Samples:
    if len(inputs) != len(targets):
        raise InvalidInputError(
            f"A task handed over {len(inputs)} inputs and {len(targets)} targets: give as many of each."
        )
    return TensorDataset(inputs, targets)


def _tensor(array: object, what: str) -> torch.Tensor:
    """The array as a tensor, of its own memory where its type is right already."""
    if isinstance(array, torch.Tensor):
        return array
    values = np.asarray(array)
    if values.dtype.kind == "f":
        return torch.from_numpy(np.require(values, np.float32, ["C", "W"]))
    if values.dtype.kind in "iub":
        return torch.from_numpy(np.require(values, np.int64, ["C", "W"]))
    raise InvalidInputError(
        f"The {what} that a task handed over are {values.dtype}, not numbers of one shape: pad or encode them first."
    )


def _of_columns(data: Columns) -> Samples:
    names: Sequence[str] = list(data.column_names)
    target = next((name for name in _TARGETS if name in names), None)
    others = [name for name in names if name != target]
    if target is None or len(others) != 1:
        raise InvalidInputError(
            f"A task handed over a data set with the columns {', '.join(names)}: leave one input and one target named "
            f"{_TARGETS[0]}, with select_columns() and rename_column()."
        )
    if dict(data.format).get("type") == "custom":
        raise InvalidInputError(
            "A task handed over a data set with a transform of its own, which would be applied once and for all: apply "
            "it with map(), or wrap it into a torch.utils.data.Dataset."
        )
    columns: Mapping[str, object] = data.with_format("numpy")[:]
    inputs = columns[others[0]]
    if type(data.features[others[0]]).__name__ == "Image":
        return _paired(_pictures(np.asarray(inputs)), _tensor(columns[target], f"column {target}"))
    return _paired(_tensor(inputs, f"column {others[0]}"), _tensor(columns[target], f"column {target}"))


def _pictures(pixels: np.ndarray[Any, np.dtype[Any]]) -> torch.Tensor:
    """Pictures [samples, height, width] or [samples, height, width, channels] as ToTensor has them."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        raise InvalidInputError(
            "The pictures that a task handed over differ in size or kind: bring them to one size with map() first."
        )
    channels = pixels[:, None] if pixels.ndim == 3 else np.moveaxis(pixels, -1, 1)
    return torch.from_numpy(np.require(channels, requirements=["C", "W"])).to(torch.float32) / _BRIGHTEST
