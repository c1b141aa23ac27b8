"""Models of many clients as one: whether a model can be trained so, and its forward pass."""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.func import functional_call, vmap

from fedstep.common.tensors import Manifest

Forward = Callable[[Sequence[torch.Tensor], torch.Tensor], torch.Tensor]
"""Parameters, each [clients, ...], and inputs [clients, batch, ...]; outputs [clients, batch, ...]."""

_TRANSPARENT = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.Identity)
"""Layers that do the same to every number, whatever stands around it."""


def stacked_forward(model: nn.Module, manifest: Manifest, inputs: torch.Tensor) -> Forward | None:
    """The forward pass of many such models at once; None where that is impossible, or slower than one by one.

    Impossible: state that is no trained parameter, such as batch norm's; anything random, such as dropout; samples
    that see one another, since batches are padded; what `torch.func.vmap` cannot do. Slower: convolutions, which
    become grouped ones.

    Args:
        model: Any weights.
        manifest: Its layout.
        inputs: Two samples, [2, ...].
    """
    parameters = dict(model.named_parameters())
    if list(parameters) != [tensor.name for tensor in manifest.tensors] or not manifest.is_float32:
        return None
    if not all(parameter.requires_grad for parameter in parameters.values()):
        return None
    if any(isinstance(module, nn.modules.conv._ConvNd) for module in model.modules()):
        return None
    forward = _chain(model, inputs) or _mapped(model, list(parameters))
    return forward if _agrees(forward, model, inputs) else None


def _mapped(model: nn.Module, names: Sequence[str]) -> Forward:
    """Any model, by torch's own vectorising map. What is random in it raises an error there."""

    def one(parameters: Sequence[torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = functional_call(model, dict(zip(names, parameters, strict=True)), (inputs,))
        return outputs

    return vmap(one)


def _chain(model: nn.Module, inputs: torch.Tensor) -> Forward | None:
    """A plain chain of dense layers, in half the time of the general way; None for any other model."""
    if type(model) is not nn.Sequential:
        return None
    layers = list(model)
    if layers and isinstance(layers[0], nn.Flatten) and (layers[0].start_dim, layers[0].end_dim) == (1, -1):
        layers = layers[1:]
    elif inputs.dim() != 2:
        return None
    if not all(type(layer) in _TRANSPARENT or _is_dense(layer) for layer in layers):
        return None

    def forward(parameters: Sequence[torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        remaining = iter(parameters)
        # [clients, features, batch]: so the gradients come out in the order of the weights, which the optimizer needs.
        values = inputs.flatten(2).transpose(1, 2)
        for layer in layers:
            if isinstance(layer, nn.Linear):
                weight, bias = next(remaining), next(remaining)
                values = torch.baddbmm(bias.unsqueeze(2), weight, values)
            else:
                values = layer(values)
        return values.transpose(1, 2)

    return forward


def _is_dense(layer: nn.Module) -> bool:
    return type(layer) is nn.Linear and layer.bias is not None


def _agrees(forward: Forward, model: nn.Module, inputs: torch.Tensor) -> bool:
    """Whether two such models at once, given a sample twice and a pair, answer as the model does one by one."""
    stacked = [torch.stack([parameter.detach()] * 2) for parameter in model.parameters()]
    with torch.no_grad():
        try:
            alone = torch.cat([model(inputs[:1]), model(inputs[1:])])
            found = forward(stacked, torch.stack([inputs, inputs.flip(0)]))
        except Exception:  # the model is somebody's own code; what is wrong with it is told where it trains alone
            return False
    wanted = torch.stack([alone, alone.flip(0)])
    return found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)
