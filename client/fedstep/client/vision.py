"""The only place that imports torchvision.

PyPI's torchvision wheel is built for CUDA. Next to a CPU-only torch its compiled operators do not load, and then
`import torchvision` fails: it registers what `nms` does on meta tensors, and nobody has declared `nms`
("operator torchvision::nms does not exist"). Declaring the operators' schemas first is enough: data sets, transforms
and models work. Only detection models, which call the operators, do not.
"""

import functools
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import torch
import torch.library

from fedstep.common.errors import InvalidInputError

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def load_torchvision(submodule: str = "") -> ModuleType:
    """torchvision, or one of its modules, on any build of torch.

    Args:
        submodule: Such as `transforms` or `models`; empty for the package.

    Raises:
        InvalidInputError: torchvision is not installed.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise InvalidInputError('This task needs torchvision: install it with `pip install "fedstep[vision]"`.')
    if not _operators_load(Path(spec.origin).parent):
        _declare_operators()
    return importlib.import_module(f"torchvision.{submodule}" if submodule else "torchvision")


@functools.cache
def _operators_load(package: Path) -> bool:
    """Whether torchvision's own operators can be loaded here; if so they are loaded."""
    for library in sorted(package.glob("_C*")):
        try:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]  # torch does not annotate it
        except (ImportError, OSError):
            continue
        return True
    return False


@functools.cache
def _declare_operators() -> torch.library.Library:
    """Declares what is missing. The library is kept for as long as the process runs: its schemas go with it."""
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]  # as above
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)  # type: ignore[no-untyped-call]  # as above
    return library
