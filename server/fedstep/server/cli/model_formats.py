"""A downloaded model with its network: TorchScript or ONNX, made by the study's task."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from fedstep.common.errors import InvalidInputError, PreconditionError
from fedstep.common.evaluate import held_out_samples
from fedstep.common.hyperparameters import Hyperparameters
from fedstep.common.task import Task
from fedstep.common.tasks import build_model, full_hyperparameters, load_task


def convert(
    format_: str, source: Path, target: Path, task: str, hyperparameters: Hyperparameters, options: Mapping[str, str]
) -> None:
    """Writes the network and its weights in one file.

    Args:
        format_: "torchscript" or "onnx".
        source: The weights, as safetensors.
        target: The file; replaced.
        task: The study's task, by name or by file.
        hyperparameters: The study's and the trial's, which may shape the network.
        options: For the task's held-out data.

    Raises:
        InvalidInputError: The task cannot be loaded, or builds another network.
        PreconditionError: The network cannot be written in this format.
    """
    found = load_task(task)
    network = build_model(found, full_hyperparameters(found, hyperparameters))
    try:
        network.load_state_dict(load_file(source))
    except RuntimeError as error:
        raise InvalidInputError(
            f"The model is not one of task {found.name} as it is here ({str(error).splitlines()[-1].strip()}): "
            "give the task that the coordinator was started with, with --task FILE."
        ) from error
    network.eval()
    example = _example(found, options)
    part = target.with_name(f"{target.name}.part")
    try:
        _write(format_, network, example, part)
        part.replace(target)
    except OSError as error:
        raise InvalidInputError(f"--output {target}: it cannot be written ({error.strerror or error}).") from error
    except Exception as error:  # what a tracer says of networks that it cannot follow
        raise PreconditionError(
            f"The network of task {found.name} cannot be written as {format_} "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}): "
            "take --format safetensors."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _example(task: Task, options: Mapping[str, str]) -> torch.Tensor:
    """An input of the network: the first held-out sample.

    Raises:
        PreconditionError: The task has none.
    """
    samples = held_out_samples(task, options)
    if samples is None:
        raise PreconditionError(
            f"The task {task.name} has no held-out samples, and TorchScript and ONNX need one to follow the network: "
            "take --format safetensors."
        )
    inputs, _ = next(iter(torch.utils.data.DataLoader(samples, batch_size=1)))
    found: torch.Tensor = inputs
    return found


def _write(format_: str, network: nn.Module, example: torch.Tensor, path: Path) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's own, of what is to come in later versions
        if format_ == "torchscript":
            torch.jit.save(torch.jit.trace(network, example), str(path))  # type: ignore[no-untyped-call]
        else:
            batch = torch.export.Dim("batch")
            shapes = ({0: batch},)
            torch.onnx.export(network, (example,), str(path), dynamic_shapes=shapes, external_data=False, verbose=False)
