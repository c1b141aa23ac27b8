"""torchvision's classification models for images of any number of channels, and for small ones where they can."""

from collections.abc import Callable

import torch
from torch import nn

from fedstep.client.networks import channels_last
from fedstep.client.vision import load_torchvision
from fedstep.common.errors import InvalidInputError

_WITHOUT_AUXILIARIES = ("googlenet", "inception_v3")
"""Models whose second heads would make them answer with more than one tensor in training."""


def vision_models() -> list[str]:
    """The names of torchvision's classification models, sorted.

    Raises:
        InvalidInputError: torchvision is not installed.
    """
    models = load_torchvision("models")
    names: list[str] = models.list_models(module=models)
    return names


def vision_model(
    name: str, channels: int, side: int, classes: int, adapt: Callable[[nn.Module], nn.Module]
) -> nn.Module:
    """A model of torchvision's with fresh weights, for images [samples, channels, side, side].

    Two things are not as in torchvision: it has so many outputs, and where the images do not have three channels its
    first convolution takes as many as they have. Everything else, such as how often it halves an image, is as it was
    made for photographs of 224×224.

    Args:
        name: One of `vision_models`.
        channels: Of the images.
        side: Of the images.
        classes: Outputs.
        adapt: Changes the model before it is tried.

    Raises:
        InvalidInputError: It cannot take such images.
    """
    extra = {"aux_logits": False, "init_weights": True} if name in _WITHOUT_AUXILIARIES else {}
    model: nn.Module = load_torchvision("models").get_model(name, weights=None, num_classes=classes, **extra)
    if channels != 3:
        _replace_first_convolution(model, channels)
    model = channels_last(adapt(model))
    _try(model, name, (channels, side, side), classes)
    return model


def _replace_first_convolution(model: nn.Module, channels: int) -> None:
    parent, place, first = next(
        (parent, place, child)
        for parent in model.modules()
        for place, child in parent.named_children()
        if isinstance(child, nn.Conv2d)
    )
    padding = first.padding if isinstance(first.padding, str) else (first.padding[0], first.padding[1])
    replaced = nn.Conv2d(
        channels,
        first.out_channels,
        (first.kernel_size[0], first.kernel_size[1]),
        (first.stride[0], first.stride[1]),
        padding,
        bias=first.bias is not None,
    )
    # As the model draws it: torchvision initialises its convolutions itself.
    nn.init.normal_(replaced.weight, std=float(first.weight.detach().std()) * (first.in_channels / channels) ** 0.5)
    if replaced.bias is not None:
        nn.init.zeros_(replaced.bias)
    setattr(parent, place, replaced)


def _try(model: nn.Module, name: str, shape: tuple[int, int, int], classes: int) -> None:
    """One image through the model: whether it fits is known to nobody but its layers."""
    said = f"The model {name} cannot take images of {'×'.join(map(str, shape))}"
    training = model.training
    try:
        with torch.inference_mode():
            outputs = model.eval()(torch.zeros(1, *shape))
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0].rstrip(".")
        raise InvalidInputError(f"{said} ({reason}): take another, such as resnet18.") from error
    finally:
        model.train(training)
    if not isinstance(outputs, torch.Tensor) or outputs.shape != (1, classes):
        raise InvalidInputError(f"{said}: it does not answer with {classes} numbers; take another, such as resnet18.")
