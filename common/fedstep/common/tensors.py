"""A model as a manifest and one contiguous buffer, named by its SHA-256.

The buffer holds the tensors of the model's state dict in order, little-endian, without gaps.
For an all-float32 model it *is* the flat float32 vector that aggregation works on: nothing is
copied between the wire, the disk and the arithmetic. Nothing is ever pickled.
"""

import hashlib
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
import xxhash

from fedstep.common.errors import InvalidInputError
from fedstep.v1 import tensors_pb2 as pb

MAX_TENSORS = 100_000
MAX_NAME_CHARACTERS = 1_000
MAX_DIMENSIONS = 64
MAX_PAYLOAD_BYTES = 1 << 40
CHECKSUM_BYTES = 16

_DTYPES: dict[int, torch.dtype] = {
    pb.DATA_TYPE_FLOAT32: torch.float32,
    pb.DATA_TYPE_FLOAT64: torch.float64,
    pb.DATA_TYPE_FLOAT16: torch.float16,
    pb.DATA_TYPE_BFLOAT16: torch.bfloat16,
    pb.DATA_TYPE_INT64: torch.int64,
    pb.DATA_TYPE_INT32: torch.int32,
    pb.DATA_TYPE_INT16: torch.int16,
    pb.DATA_TYPE_INT8: torch.int8,
    pb.DATA_TYPE_UINT8: torch.uint8,
    pb.DATA_TYPE_BOOL: torch.bool,
}
_NUMBERS = {dtype: number for number, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class TensorSpec:
    """One tensor in a payload: its name, shape, element type and first byte."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    offset_bytes: int

    @property
    def elements(self) -> int:
        """How many elements it has; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """How many bytes of the payload are its."""
        return self.elements * self.dtype.itemsize


@dataclass(frozen=True)
class Manifest:
    """The tensors of a payload, in order and without gaps."""

    tensors: tuple[TensorSpec, ...]

    @cached_property
    def payload_bytes(self) -> int:
        """The payload's length."""
        return sum(tensor.size_bytes for tensor in self.tensors)

    @cached_property
    def elements(self) -> int:
        """The length of the flat float32 vector: elements of all tensors together."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def update_bytes(self) -> int:
        """The length of an update's payload: float32 for every element."""
        return 4 * self.elements

    @cached_property
    def is_float32(self) -> bool:
        """Whether the payload is itself the flat float32 vector."""
        return all(tensor.dtype is torch.float32 for tensor in self.tensors)

    @classmethod
    def of(cls, state: Mapping[str, torch.Tensor]) -> "Manifest":
        """The manifest of a state dict.

        Raises:
            InvalidInputError: A tensor's type has no place in the protocol.
        """
        tensors, offset = [], 0
        for name, tensor in state.items():
            if tensor.dtype not in _NUMBERS:
                raise InvalidInputError(
                    f"The model's tensor {name} is {tensor.dtype}, which fedstep does not send: "
                    "make it float32, float64, float16, bfloat16, an integer or bool."
                )
            spec = TensorSpec(name, tuple(tensor.shape), tensor.dtype, offset)
            tensors.append(spec)
            offset += spec.size_bytes
        return cls(tuple(tensors))

    def to_proto(self) -> pb.TensorManifest:
        """The manifest as a message."""
        return pb.TensorManifest(
            tensors=[
                pb.TensorSpec(
                    name=t.name,
                    shape=t.shape,
                    data_type=_NUMBERS[t.dtype],  # type: ignore[arg-type]  # enum values are plain ints here
                    offset_bytes=t.offset_bytes,
                )
                for t in self.tensors
            ],
            payload_bytes=self.payload_bytes,
        )

    @classmethod
    def from_proto(cls, message: pb.TensorManifest) -> "Manifest":
        """The manifest a message holds, checked before anything is believed.

        Raises:
            InvalidInputError: Too many tensors, an unknown type, an impossible shape, a gap or a wrong total.
        """
        if len(message.tensors) > MAX_TENSORS:
            raise InvalidInputError(f"A manifest of {len(message.tensors)} tensors; at most {MAX_TENSORS} are taken.")
        tensors, offset, names = [], 0, set()
        for tensor in message.tensors:
            spec = _spec_from_proto(tensor, offset)
            if tensor.offset_bytes != offset or tensor.name in names:
                raise InvalidInputError(f"Tensor {tensor.name} stands twice, or not right after the one before it.")
            names.add(tensor.name)
            tensors.append(spec)
            offset += spec.size_bytes
            if offset > MAX_PAYLOAD_BYTES:
                raise InvalidInputError(f"A model of over {MAX_PAYLOAD_BYTES >> 30} GiB is not taken.")
        if message.payload_bytes != offset:
            raise InvalidInputError(f"A manifest of {offset} bytes that says {message.payload_bytes}.")
        return cls(tuple(tensors))

    def difference(self, other: "Manifest") -> str | None:
        """The first way in which the other manifest differs, in words; None when it does not."""
        if self is other or self == other:
            return None
        mine = {t.name: t for t in self.tensors}
        theirs = {t.name: t for t in other.tensors}
        for name, tensor in mine.items():
            if name not in theirs:
                return f"{name} is missing"
            if theirs[name].shape != tensor.shape:
                return f"{name} is {list(theirs[name].shape)} instead of {list(tensor.shape)}"
            if theirs[name].dtype is not tensor.dtype:
                return f"{name} is {theirs[name].dtype} instead of {tensor.dtype}"
        extra = next((name for name in theirs if name not in mine), None)
        if extra is not None:
            return f"{extra} is not in it"
        return "the same tensors stand in another order"


def _spec_from_proto(tensor: pb.TensorSpec, offset: int) -> TensorSpec:
    """One tensor of a manifest, refused before its numbers are multiplied or its words repeated."""
    if len(tensor.name) > MAX_NAME_CHARACTERS or len(tensor.shape) > MAX_DIMENSIONS:
        raise InvalidInputError(
            f"Tensor {tensor.name[:40]}… has a name of {len(tensor.name)} characters and {len(tensor.shape)} "
            f"dimensions; at most {MAX_NAME_CHARACTERS} and {MAX_DIMENSIONS} are taken."
        )
    dtype = _DTYPES.get(tensor.data_type)
    if dtype is None or min(tensor.shape, default=0) < 0:
        raise InvalidInputError(f"Tensor {tensor.name}: type {tensor.data_type}, shape {list(tensor.shape)}.")
    # A size of 0 hides the others from the total, but torch multiplies them into strides all the same.
    if math.prod(max(size, 1) for size in tensor.shape) > MAX_PAYLOAD_BYTES:
        raise InvalidInputError(f"Tensor {tensor.name} of shape {list(tensor.shape)} is too large to be taken.")
    return TensorSpec(tensor.name, tuple(tensor.shape), dtype, offset)


def sha256(buffer: torch.Tensor | bytes | bytearray | memoryview) -> bytes:
    """The digest that names a payload; 32 bytes. Releases the GIL while it computes."""
    return hashlib.sha256(as_bytes(buffer) if isinstance(buffer, torch.Tensor) else buffer).digest()


def checksum(update: torch.Tensor) -> bytes:
    """What shows that an update was not damaged on its way: XXH3-128, 16 bytes (docs/adr/0011-update-checksum.md)."""
    return xxhash.xxh3_128_digest(as_bytes(update))


def as_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, without a copy.

    Raises:
        ValueError: It is not contiguous.
    """
    if not tensor.is_contiguous():
        raise ValueError(
            f"A tensor of shape {list(tensor.shape)} and stride {tensor.stride()}: make it contiguous first."
        )
    return _flat_bytes(tensor.detach()).numpy().data


def pack(state: Mapping[str, torch.Tensor], manifest: Manifest) -> torch.Tensor:
    """A state dict as one payload: uint8 [payload_bytes].

    Raises:
        InvalidInputError: The state is not what the manifest says.
    """
    difference = manifest.difference(Manifest.of(state))
    if difference:
        raise InvalidInputError(f"The model is not laid out as expected: {difference}.")
    payload = torch.empty(manifest.payload_bytes, dtype=torch.uint8)
    for spec in manifest.tensors:
        tensor = state[spec.name].detach().to("cpu").contiguous()
        payload[spec.offset_bytes : spec.offset_bytes + spec.size_bytes] = _flat_bytes(tensor)
    return payload


def unpack(payload: torch.Tensor, manifest: Manifest) -> dict[str, torch.Tensor]:
    """The tensors of a payload, views into it wherever their alignment allows; bool is always copied.

    Args:
        payload: uint8 [payload_bytes].
        manifest: What it holds.

    Raises:
        InvalidInputError: The payload's length is not the manifest's.
    """
    _check_length(payload, manifest)
    state = {}
    for spec in manifest.tensors:
        part = payload[spec.offset_bytes : spec.offset_bytes + spec.size_bytes]
        if spec.dtype is torch.bool:
            # A byte that is neither 0 nor 1 must not become a bool that is neither false nor true.
            part = part.ne(0)
        state[spec.name] = _aligned(part, spec.dtype).view(spec.dtype).view(spec.shape)
    return state


def widen(payload: torch.Tensor, manifest: Manifest) -> torch.Tensor:
    """The payload as the flat vector of aggregation: float32 [elements]; a view when it already is one.

    Raises:
        InvalidInputError: The payload's length is not the manifest's.
    """
    if manifest.is_float32:
        _check_length(payload, manifest)
        return _aligned(payload, torch.float32).view(torch.float32)
    return torch.cat([tensor.reshape(-1).to(torch.float32) for tensor in unpack(payload, manifest).values()])


def narrow(flat: torch.Tensor, manifest: Manifest) -> torch.Tensor:
    """The payload of a flat vector: uint8 [payload_bytes]. A view when nothing changes.

    Integers are rounded and kept within their type's range; a bool is true from 0.5 on.

    Args:
        flat: float32 [elements].
        manifest: The layout and types wanted.

    Raises:
        InvalidInputError: The vector's length is not the manifest's.
    """
    if flat.numel() != manifest.elements:
        raise InvalidInputError(f"A vector of {flat.numel()} elements where {manifest.elements} were expected.")
    if manifest.is_float32:
        return flat.view(torch.uint8)
    payload = torch.empty(manifest.payload_bytes, dtype=torch.uint8)
    start = 0
    for spec in manifest.tensors:
        part = _cast(flat[start : start + spec.elements], spec.dtype)
        start += spec.elements
        payload[spec.offset_bytes : spec.offset_bytes + spec.size_bytes] = part.view(torch.uint8)
    return payload


def _check_length(payload: torch.Tensor, manifest: Manifest) -> None:
    if payload.numel() != manifest.payload_bytes:
        raise InvalidInputError(f"A payload of {payload.numel()} bytes where {manifest.payload_bytes} were expected.")


def _flat_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous tensor as uint8 [size_bytes], a view."""
    # Not view(-1): with one element or none every stride counts as contiguous, and view would keep it.
    return tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8)


def _aligned(part: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The bytes where they may be read as that type: themselves, or a copy when they start at the wrong byte."""
    misplaced = part.storage_offset() % dtype.itemsize or part.data_ptr() % dtype.itemsize
    return part.clone() if misplaced else part


def _cast(part: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Float32 values in a type of the payload; what C++ leaves undefined is defined: 300 is 127 as an int8, nan 0."""
    if dtype.is_floating_point:
        return part.to(dtype)
    if dtype is torch.bool:
        return part >= 0.5
    limits = torch.iinfo(dtype)
    # In float64 every bound but int64's upper one is exact; there the largest float64 below it stands in.
    highest = min(float(limits.max), math.nextafter(2.0**63, 0.0))
    return part.double().nan_to_num().round().clamp(float(limits.min), highest).to(dtype)


if sys.byteorder != "little":  # pragma: no cover
    raise ImportError("fedstep's payloads are little-endian and this machine is not")
