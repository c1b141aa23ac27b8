"""`fedstep model`: the models that studies found."""

import importlib.util
from pathlib import Path

import click

from fedstep.api.aio import connect
from fedstep.api.bar import bytes_bar
from fedstep.common import hyperparameters as hp
from fedstep.common.channel import Endpoint
from fedstep.common.errors import InvalidInputError, PreconditionError
from fedstep.common.loop import run as run_loop
from fedstep.common.options import data_options
from fedstep.server.cli.show import coordinator_option, json_option, print_json

FORMATS = {"safetensors": ".safetensors", "torchscript": ".pt", "onnx": ".onnx"}


@click.group()
def model() -> None:
    """Get the models that studies found."""


@model.command()
@click.argument("study")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write; one that is there is replaced.  [default: STUDY.safetensors, .pt or .onnx]",
)
@click.option("--digest", default="", metavar="SHA256", help="This model of the study, in place of its best.")
@click.option(
    "--format",
    "format_",
    type=click.Choice([*FORMATS]),
    default="safetensors",
    show_default=True,
    help="TorchScript and ONNX hold the network too: the study's task must be installed here, or given with --task.",
)
@click.option("--task", default="", metavar="FILE|MODULE", help="The study's task, for TorchScript and ONNX.")
@data_options
@coordinator_option
@json_option
def download(
    study: str,
    output: Path | None,
    digest: str,
    format_: str,
    task: str,
    options: dict[str, str],
    coordinator: Endpoint,
    as_json: bool,
) -> None:
    """Download a model of STUDY: the final one, or the best so far.

    Its SHA-256 is compared with the coordinator's; the file is there whole, or not at all. TorchScript and ONNX need
    the first sample of the task's held-out data, which --data and --option are for; ONNX also needs the packages onnx
    and onnxscript.
    """
    path = output or Path(f"{study}{FORMATS[format_]}")
    sha256 = _digest(digest)
    if path.exists() and not path.is_file():
        raise InvalidInputError(f"--output {path} is no ordinary file: name another one.")
    if format_ == "onnx":
        _check_onnx()
    plain = path if format_ == "safetensors" else path.with_name(f"{path.name}.safetensors")

    async def fetch() -> None:
        async with connect(coordinator.address, coordinator.security) as fedstep:
            found = await fedstep.get(study)
            with bytes_bar() as show:
                downloaded = await fedstep.download(plain, study, sha256, show)
        if plain != path:
            from fedstep.server.cli.model_formats import convert  # torch, which the plain format does without

            values = {
                **hp.map_from_proto(found.spec.hyperparameters),
                **hp.map_from_proto(found.best_trial.hyperparameters),
            }
            try:
                convert(format_, plain, path, task or found.spec.task, values, options)
            finally:
                plain.unlink(missing_ok=True)
        if as_json:
            print_json({"path": str(path), "sha256": downloaded.sha256, "payload_bytes": downloaded.payload_bytes})
        else:
            size = f"{downloaded.tensors} tensors, {downloaded.payload_bytes:,} bytes"
            print(f"{path}: {size}; the SHA-256 of these, not of the file: {downloaded.sha256}.")

    run_loop(fetch())


def _check_onnx() -> None:
    """Raises before anything is downloaded.

    Raises:
        PreconditionError: What PyTorch writes ONNX with is not installed.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise PreconditionError(
            f"ONNX needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            'pip install "fedstep[onnx]", or take --format torchscript.'
        )


def _digest(text: str) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b"?"
    if text and len(digest) != 32:
        raise InvalidInputError(
            f"--digest {text:.80}: a SHA-256 has 64 hexadecimal digits; leave it out for the best model."
        )
    return digest
