"""Chunks on the bulk calls, without protobuf's copies.

`FetchModelResponse` and `PushUpdateRequest` carry their chunk in field 2. Such a message is a tag,
a length and the bytes, so both sides write and read it by hand: a chunk is cut once for all
receivers, and read as a view. Every other message goes through protobuf. Other languages see
plain protobuf on the wire (docs/adr/0004-chunks.md).
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

from google.protobuf.message import Message

from fedstep.v1 import fleet_pb2 as pb

CHUNK_BYTES = 1 << 20
"""What a sender cuts a payload into: past this nothing is gained, before it calls cost more."""

_TAG = b"\x12"  # field 2, length-delimited
_LONGEST_LENGTH = 10  # bytes of a varint of 64 bits
M = TypeVar("M", pb.FetchModelResponse, pb.PushUpdateRequest)


def frame(chunk: bytes | memoryview) -> bytes:
    """One chunk as a serialised message."""
    return b"".join((_TAG, _varint(len(chunk)), chunk))


def frames(payload: memoryview, offset: int = 0) -> Iterator[bytes]:
    """The payload from an offset on, as serialised messages of one chunk each; none when it ends there.

    Args:
        payload: Bytes, as `tensors.as_bytes` gives them.
        offset: The first byte wanted, from 0.
    """
    for start in range(offset, len(payload), CHUNK_BYTES):
        yield frame(payload[start : start + CHUNK_BYTES])


def serialize(part: Message | bytes) -> bytes:
    """For a gRPC method handler: a frame passes as it is."""
    return part if isinstance(part, bytes) else part.SerializeToString()


def deserializer(kind: type[M]) -> Callable[[bytes], M | memoryview]:
    """For a gRPC method handler: a chunk becomes a view of its bytes, all else a message of `kind`.

    A chunk that another language wrote in its own way, say with fields this side does not know, costs a copy and is
    read all the same: the message never holds a chunk.

    Args:
        kind: `FetchModelResponse` or `PushUpdateRequest`.
    """

    def deserialize(data: bytes) -> M | memoryview:
        chunk = _lone_chunk(data)
        if chunk is not None:
            return chunk
        message = kind.FromString(data)
        return memoryview(message.chunk) if message.WhichOneof("part") == "chunk" else message

    return deserialize


def _lone_chunk(data: bytes) -> memoryview | None:
    if data[:1] != _TAG:
        return None
    length = shift = 0
    for position in range(1, min(len(data), 1 + _LONGEST_LENGTH)):
        byte = data[position]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return memoryview(data)[position + 1 :] if position + 1 + length == len(data) else None
    return None


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
