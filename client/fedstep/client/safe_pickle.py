"""Reads pickles of arrays, and runs nothing that they name."""

import pickle
from typing import BinaryIO

import numpy as np


def load_arrays(file: BinaryIO) -> object:
    """Arrays, lists, dicts, numbers and texts, as Python 2 wrote them or as Python 3 does.

    Raises:
        pickle.UnpicklingError: It is no pickle, or it names something else, which is refused before it is run.
        EOFError: It ends too early.
    """
    content: object = _ArrayUnpickler(file, encoding="latin1").load()
    return content


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        """All that arrays need."""
        match module, name:
            case "numpy", "ndarray":
                return np.ndarray
            case "numpy", "dtype":
                return np.dtype
            case "numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct":
                return np.empty(0).__reduce__()[0]
            case "numpy.core.numeric" | "numpy._core.numeric", "_frombuffer":
                return np.empty(0).__reduce_ex__(5)[0]
            case "_codecs", "encode":
                return _latin1
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _latin1(text: str, _: str) -> bytes:
    """Bytes, as Python 3 writes them for Python 2."""
    return text.encode("latin1")
