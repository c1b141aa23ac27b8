"""A client's own share: drawn from its name where it has no partition, and cut into training and validation."""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from torch.utils.data import TensorDataset

from fedstep.client.partitions import Indices
from fedstep.common.errors import InvalidInputError
from fedstep.common.task import ClientData

_FEWEST_VALIDATION = 4


def named_share(labels: Indices, name: str, seed: int, part: float = 0.125) -> Indices:
    """A share of a client's own, drawn from its name: about that part of everything, with its own mix of labels.

    Shares of different names may overlap.

    Args:
        labels: [samples].
        name: The client's.
        seed: The same seed and name give the same share.
        part: How much of everything.
    """
    rng = name_generator(name, seed)
    kinds, of = np.unique(labels, return_inverse=True)
    weights = rng.dirichlet(np.ones(len(kinds)))[of] + 1e-6
    size = max(1, round(part * len(labels)))
    return np.sort(rng.choice(len(labels), size=size, replace=False, p=weights / weights.sum()))


def name_generator(name: str, seed: int) -> np.random.Generator:
    """A generator of a name's own, the same in every process."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])


def client_data(inputs: torch.Tensor, targets: torch.Tensor, seed: int, validation: float) -> ClientData:
    """A share as training and validation samples.

    Args:
        inputs: [samples, ...].
        targets: [samples].
        seed: Draws which.
        validation: The part kept for validation, at least four samples where there are eight. With 0 every sample is
            both, as where those who measure a generation do not train in it.
    """
    if validation == 0:
        every = TensorDataset(inputs, targets)
        return ClientData(every, every)
    count = len(targets)
    size = max(round(validation * count), min(_FEWEST_VALIDATION, count // 2))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    kept, rest = order[:size], order[size:]
    return ClientData(TensorDataset(inputs[rest], targets[rest]), TensorDataset(inputs[kept], targets[kept]))


def validation_share(options: Mapping[str, str], default: float = 0.15) -> float:
    """The task option `validation`: the part of a client's samples that it keeps for validation.

    Raises:
        InvalidInputError: It is no number from 0 to below 1.
    """
    text = options.get("validation", str(default))
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise InvalidInputError(
            f"validation = {text!r} is no part of a client's samples: give a number from 0 to below 1, such as 0.15."
        )
    return share
