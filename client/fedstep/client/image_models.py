"""The networks that a study may choose for any task on images, by the hyper-parameters `model`, `hidden` and `norm`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from fedstep.client.networks import cifar_cnn, fedavg_cnn, leaf_cnn, perceptron, small_cnn
from fedstep.client.norms import Norm, normalised
from fedstep.client.vision_models import vision_model, vision_models
from fedstep.common.errors import InvalidInputError
from fedstep.common.hyperparameters import Hyperparameters, Value
from fedstep.common.validation import one_of, show


@dataclass(frozen=True)
class ImageKind:
    """What a network is for: images [samples, channels, side, side] in so many classes."""

    channels: int
    side: int
    classes: int


def model_defaults(model: str, hidden: int) -> Mapping[str, Value]:
    """The hyper-parameters of a task on images that choose its network, for `Task.defaults`.

    Args:
        model: The network where a study says nothing.
        hidden: The width of its dense layer.
    """
    return {"model": model, "hidden": hidden, "norm": Norm.NONE.value}


def image_model(kind: ImageKind, hyperparameters: Hyperparameters) -> nn.Module:
    """The network that the hyper-parameters name.

    Args:
        kind: What it is for.
        hyperparameters: With `model`: one of `leaf_cnn`, `cifar_cnn`, `fedavg_cnn`, `small_cnn` and `mlp`, see
            `fedstep.client.networks`, or a classification model of `torchvision.models`. With `hidden`: the width of
            the dense layers of `leaf_cnn`, `small_cnn` and `mlp`, which has two of them. With `norm`: see `Norm`.

    Raises:
        InvalidInputError: There is no such network, it does not suit such images, or it has batch norm and nobody has
            said what to do about it.
    """
    name, hidden = str(hyperparameters["model"]), int(hyperparameters["hidden"])
    if hidden < 1:
        raise InvalidInputError(f"The hyper-parameter hidden is {hidden}: it must be at least 1.")
    norm = _norm(str(hyperparameters["norm"]))
    own = _own(kind, hidden)
    if name in own:
        return own[name]()
    known = vision_models()
    if name not in known:
        said = one_of(name, [*own, *known])
        raise InvalidInputError(f"The hyper-parameter model is {show(name)}, and there is no such network: {said}")
    return vision_model(name, kind.channels, kind.side, kind.classes, lambda model: normalised(model, norm, name))


def _own(kind: ImageKind, hidden: int) -> Mapping[str, Callable[[], nn.Module]]:
    """The networks of the federated literature, none of which has batch norm."""
    classes, channels, side = kind.classes, kind.channels, kind.side
    return {
        "leaf_cnn": lambda: leaf_cnn(classes, hidden, channels, side),
        "cifar_cnn": lambda: cifar_cnn(classes, channels, side),
        "fedavg_cnn": lambda: fedavg_cnn(classes, channels, side),
        "small_cnn": lambda: small_cnn(classes, hidden, channels, side),
        "mlp": lambda: nn.Sequential(nn.Flatten(), perceptron(channels * side * side, (hidden, hidden), classes)),
    }


def _norm(name: str) -> Norm:
    try:
        return Norm(name)
    except ValueError:
        raise InvalidInputError(f"The hyper-parameter norm is {show(name)}: {one_of(name, list(Norm))}") from None
