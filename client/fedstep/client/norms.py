"""Batch norm in federated learning: refused, replaced by group norm, or kept on purpose."""

import math
from enum import StrEnum

from torch import nn

from fedstep.common.errors import InvalidInputError

_GROUPS = 2
"""As in Hsieh et al. 2020 and Reddi et al. 2021."""


class Norm(StrEnum):
    """What becomes of a network's batch norm."""

    NONE = "none"
    """It must have none."""

    GROUP = "group"
    """Group norm takes its place (Wu and He 2018), with two groups. A network without batch norm stays as it is."""

    BATCH = "batch"
    """It stays: parameters and running statistics are averaged over the clients as everything else is."""


def normalised(model: nn.Module, norm: Norm, name: str) -> nn.Module:
    """The model with its batch norm as is wanted; changed in place.

    Args:
        model: Any.
        norm: What is wanted.
        name: The model's, for the sentence.

    Raises:
        InvalidInputError: It has batch norm, and none is wanted.
    """
    found = [(parent, child) for parent in model.modules() for child in parent.named_children() if _is_batch(child[1])]
    if found and norm is Norm.NONE:
        raise InvalidInputError(
            f"The model {name} has batch norm, and its running statistics, averaged over clients whose data differ, "
            'fit none of them: write norm = "group" for group norm in its place, or norm = "batch" to keep it.'
        )
    if norm is Norm.GROUP:
        for parent, (place, batch) in found:
            setattr(parent, place, _group_norm(batch))
    return model


def _is_batch(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def _group_norm(batch: nn.Module) -> nn.GroupNorm:
    """Over the same channels, with the same initial scale and shift."""
    assert isinstance(batch, nn.modules.batchnorm._BatchNorm)
    channels = batch.num_features
    group = nn.GroupNorm(math.gcd(_GROUPS, channels), channels, batch.eps, batch.affine)
    if batch.affine:
        group.load_state_dict({"weight": batch.weight, "bias": batch.bias})
    return group
