"""A model on its way into a safetensors file: verified, and whole or not there at all.

safetensors is a length of 8 bytes, a JSON that says which tensors follow, and the tensors: the payload of the protocol
as it is, with another table of contents before it. So neither torch nor safetensors is needed to write one.
"""

import hashlib
import json
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from fedstep.api.calls import request
from fedstep.common.errors import DataLossError, InvalidInputError, StorageError
from fedstep.common.validation import path_of
from fedstep.v1 import study_pb2 as pb
from fedstep.v1 import tensors_pb2

_TYPES = {
    tensors_pb2.DATA_TYPE_FLOAT32: "F32",
    tensors_pb2.DATA_TYPE_FLOAT64: "F64",
    tensors_pb2.DATA_TYPE_FLOAT16: "F16",
    tensors_pb2.DATA_TYPE_BFLOAT16: "BF16",
    tensors_pb2.DATA_TYPE_INT64: "I64",
    tensors_pb2.DATA_TYPE_INT32: "I32",
    tensors_pb2.DATA_TYPE_INT16: "I16",
    tensors_pb2.DATA_TYPE_INT8: "I8",
    tensors_pb2.DATA_TYPE_UINT8: "U8",
    tensors_pb2.DATA_TYPE_BOOL: "BOOL",
}
_ALIGNMENT = 8


@dataclass(frozen=True)
class Downloaded:
    """A model that has come.

    Attributes:
        path: Its file.
        sha256: Of its payload, in hexadecimal: the model's name.
        payload_bytes: The size of the payload.
        tensors: How many it holds.
    """

    path: Path
    sha256: str
    payload_bytes: int
    tensors: int


class ModelFile:
    """Takes in the parts of a model, over as many calls as it needs.

    Args:
        path: The file to be; replaced when the model is whole.
        study: Of which study; "" for any.
        sha256: Which model; b"" for the study's final model, or its best so far.

    Attributes:
        received: Bytes of the payload that are here.
        size: Bytes that it will have; 0 while nobody has said so.

    Raises:
        InvalidInputError: The path is none, or a folder, a device, or something else that is no file to replace.
    """

    def __init__(self, path: str | Path, study: str, sha256: bytes = b"") -> None:
        self._path = path_of(path)
        _check_ordinary(self._path)
        self._target = Path(os.path.realpath(self._path))  # a link stays, and what it leads to is replaced
        self._part = self._target.with_name(f"{self._target.name}.part")
        self._study = study
        self._sha256 = sha256
        self._manifest: tensors_pb2.TensorManifest | None = None
        self._digest = hashlib.sha256()
        self._file: BinaryIO | None = None
        self.received = 0
        self.size = 0

    def __enter__(self) -> Self:
        try:
            self._file = self._part.open("wb")
        except OSError as error:
            raise _cannot_write(self._path, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        with suppress(OSError):  # on a full disk: what is in its buffer yet is of no use
            self._file.close()
        with suppress(OSError):
            self._part.unlink(missing_ok=True)

    def request(self) -> pb.DownloadModelRequest:
        """Asks for what is missing: from the second call on for the model that the first one named."""
        return request(pb.DownloadModelRequest, study=self._study, sha256=self._sha256, offset=self.received)

    def take(self, part: pb.DownloadModelResponse) -> None:
        """Takes in the next part.

        Raises:
            DataLossError: It is not a part of this model.
            StorageError: It cannot be written.
        """
        if part.WhichOneof("part") == "header":
            self._begin(part.header)
            return
        if self._manifest is None or self.received + len(part.chunk) > self.size:
            raise DataLossError("More bytes came than the model has: the coordinator speaks another protocol.")
        self._digest.update(part.chunk)
        self._write(part.chunk)
        self.received += len(part.chunk)

    def finish(self) -> Downloaded | None:
        """The model, when it is whole; None while bytes are missing.

        Raises:
            DataLossError: What came is not what the digest says.
            StorageError: It cannot be written.
        """
        if self._manifest is None or self.received < self.size:
            return None
        if self._digest.digest() != self._sha256:
            raise DataLossError(
                f"What came is not the model {self._sha256.hex()[:16]}: its SHA-256 is "
                f"{self._digest.hexdigest()[:16]}. Download it again."
            )
        assert self._file is not None
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._part.replace(self._target)
        except OSError as error:
            raise _cannot_write(self._path, error) from error
        return Downloaded(self._path, self._sha256.hex(), self.size, len(self._manifest.tensors))

    def _begin(self, header: pb.ModelPart) -> None:
        if self._manifest is None:
            if self._sha256 and header.sha256 != self._sha256:
                raise DataLossError("Another model came than the one that was asked for: ask again.")
            self._manifest, self._sha256 = header.manifest, header.sha256
            self.size = header.manifest.payload_bytes
            self._write(_contents(header.manifest, header.sha256))
        elif header.sha256 != self._sha256 or header.offset != self.received:
            raise DataLossError("Another part of the model came than the one that was asked for: ask again.")

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        try:
            self._file.write(data)
        except OSError as error:
            raise _cannot_write(self._path, error) from error


def _contents(manifest: tensors_pb2.TensorManifest, sha256: bytes) -> bytes:
    """What stands before the tensors, padded so that they are aligned."""
    table: dict[str, object] = {"__metadata__": {"format": "pt", "sha256": sha256.hex()}}
    ends = [*[tensor.offset_bytes for tensor in manifest.tensors][1:], manifest.payload_bytes]
    for tensor, end in zip(manifest.tensors, ends, strict=True):
        if tensor.data_type not in _TYPES:
            raise InvalidInputError(
                f"The tensor {tensor.name} is of a type that this fedstep does not know ({tensor.data_type}): "
                "use the version that the coordinator has."
            )
        table[tensor.name] = {
            "dtype": _TYPES[tensor.data_type],
            "shape": list(tensor.shape),
            "data_offsets": [tensor.offset_bytes, end],
        }
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _check_ordinary(path: Path) -> None:
    try:
        ordinary = path.is_file() or not path.exists()
    except OSError as error:
        raise _cannot_write(path, error) from error
    if not ordinary:
        raise InvalidInputError(f"{path} is no ordinary file: name another one.")


def _cannot_write(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"The file {path} cannot be written ({(error.strerror or str(error)).lower()}): give another path."
    )
