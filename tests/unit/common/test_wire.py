import mmap
import os
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from fedstep.common.wire import CHUNK_BYTES, deserializer, frame, frames, serialize
from fedstep.v1 import fleet_pb2 as pb

KINDS = [pb.FetchModelResponse, pb.PushUpdateRequest]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
Kind = type[pb.FetchModelResponse] | type[pb.PushUpdateRequest]

# Lengths around every change of the length's own length, up to several hundred KB.
lengths = st.one_of(
    st.integers(0, 300),
    st.integers((1 << 14) - 3, (1 << 14) + 3),
    st.integers((1 << 21) - 3, (1 << 21) + 3),
    st.integers(0, 600_000),
)


def chunk_of(length: int) -> bytes:
    return bytes(range(256)) * (length // 256) + bytes(range(length % 256))


@kinds
@given(length=lengths)
def test_a_frame_is_what_protobuf_writes(kind: Kind, length: int) -> None:
    chunk = chunk_of(length)
    framed = frame(chunk)
    assert framed == frame(memoryview(chunk)) == kind(chunk=chunk).SerializeToString()
    assert kind.FromString(framed).chunk == chunk


@kinds
@given(length=lengths)
def test_a_chunk_is_read_as_a_view_of_its_bytes(kind: Kind, length: int) -> None:
    chunk = chunk_of(length)
    framed = kind(chunk=chunk).SerializeToString()
    read = deserializer(kind)(framed)
    assert isinstance(read, memoryview)
    assert read == chunk
    assert read.obj is framed  # not a copy


def agrees(kind: Kind, data: bytes) -> None:
    """The deserializer reads what protobuf reads, and refuses what protobuf refuses."""
    try:
        message = kind.FromString(data)
    except DecodeError:
        with pytest.raises(DecodeError):
            deserializer(kind)(data)
        return
    read = deserializer(kind)(data)
    if message.WhichOneof("part") == "chunk":
        assert isinstance(read, memoryview)
        assert read == message.chunk
    else:
        assert read == message


@kinds
@given(data=st.binary(max_size=40) | st.binary(max_size=40).map(lambda rest: b"\x12" + rest))
def test_any_bytes_are_read_as_protobuf_reads_them(kind: Kind, data: bytes) -> None:
    agrees(kind, data)


@kinds
@given(chunk=st.binary(max_size=300), before=st.binary(max_size=6), after=st.binary(max_size=6))
def test_what_merely_looks_like_a_chunk_is_read_as_protobuf_reads_it(
    kind: Kind, chunk: bytes, before: bytes, after: bytes
) -> None:
    framed = frame(chunk)
    for data in (
        before + framed,
        framed + after,
        framed[:-1],
        framed + framed,
        framed + frame(b""),
        frame(b"") + framed,
    ):
        agrees(kind, data)


@kinds
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x12",
        b"\x12\x00",
        b"\x12\x80\x00",  # a length of 0 in two bytes: odd, but legal
        b"\x12\x83\x80\x80\x80\x80\x80\x80\x80\x80\x00abc",  # … of 3 in ten
        b"\x12\x83\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00abc",  # … in eleven
        b"\x12\xff\xff\xff\xff\x0f",
        b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x12\x80",
        b"\x12\x80\x80\x80\x80\x80\x80",
        b"\x12\x03ab",
        b"\x12\x02abc",
        b"\x12\x02ab\x12\x01c",  # the later one counts
        b"\x12\x02ab\x98\x06\x01",  # a field of a later version behind it
        b"\x98\x06\x01\x12\x02ab",  # … before it
        b"\x12\x02ab\x0a\x00",  # a header behind a chunk: the header counts
        b"\x0a\x00\x12\x02ab",
        b"\x10\x02ab",
    ],
)
def test_odd_encodings_are_read_as_protobuf_reads_them(kind: Kind, data: bytes) -> None:
    agrees(kind, data)


@kinds
def test_a_header_is_a_message(kind: Kind) -> None:
    message = kind()
    message.header.checksum = b"\x12\x02" * 16
    message.header.offset = 1 << 40
    assert deserializer(kind)(serialize(message)) == message


def test_serialize_passes_a_frame_as_it_is() -> None:
    framed = frame(b"abc")
    assert serialize(framed) is framed
    assert serialize(pb.PushUpdateResponse(received_bytes=7)) == b"\x08\x07"


def payload_of(framed: list[bytes]) -> bytes:
    return b"".join(pb.FetchModelResponse.FromString(one).chunk for one in framed)


@given(
    length=st.integers(0, 10) | st.integers(2 * CHUNK_BYTES - 2, 2 * CHUNK_BYTES + 2) | st.integers(0, 3 * CHUNK_BYTES),
    data=st.data(),
)
def test_frames_from_any_offset_are_the_rest_of_the_payload(length: int, data: st.DataObject) -> None:
    payload = chunk_of(length)
    offset = data.draw(st.integers(0, length) | st.sampled_from([0, length, length + 1, length + CHUNK_BYTES, 1 << 63]))
    made = list(frames(memoryview(payload), offset))
    assert payload_of(made) == payload[offset:]
    rest = max(0, length - offset)
    assert len(made) == -(-rest // CHUNK_BYTES)
    assert all(len(pb.FetchModelResponse.FromString(one).chunk) == CHUNK_BYTES for one in made[:-1])


def test_a_payload_over_four_gib_resumes_at_any_offset(tmp_path: Path) -> None:
    # A file of holes: nothing is read but the chunks asked for.
    size = (4 << 30) + 2 * CHUNK_BYTES + 7
    path = tmp_path / "payload"
    with path.open("w+b") as file:
        os.truncate(path, size)
        with mmap.mmap(file.fileno(), 0) as mapped:
            for edge in (1 << 31, 1 << 32):
                mapped[edge - 4 : edge + 4] = b"before+!"
            mapped[size - 3 : size] = b"end"
            with memoryview(mapped) as payload:
                for edge in (1 << 31, 1 << 32):
                    first = next(frames(payload, edge - 4))
                    assert len(first) == len(frame(bytes(CHUNK_BYTES)))
                    assert payload_of([first])[:8] == b"before+!"
                    assert payload_of([next(frames(payload, edge))])[:4] == b"re+!"
                tail = list(frames(payload, (1 << 32) + 1))
                assert [len(payload_of([one])) for one in tail] == [CHUNK_BYTES, CHUNK_BYTES, 6]
                assert payload_of(tail)[-3:] == b"end"
                assert list(frames(payload, size)) == []
