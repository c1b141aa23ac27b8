import hashlib
import mmap
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedstep.common import tensors
from fedstep.common.errors import InvalidInputError
from fedstep.common.tensors import Manifest, TensorSpec, as_bytes, narrow, pack, sha256, unpack, widen
from fedstep.v1 import tensors_pb2 as pb

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]
State = dict[str, torch.Tensor]

shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@st.composite
def tensor(draw: st.DrawFn, values: st.SearchStrategy[int] | None = None) -> torch.Tensor:
    """A tensor of any type and shape, in any memory layout; random bytes unless values are given."""
    dtype, shape = draw(st.sampled_from(DTYPES)), draw(shapes)
    count = torch.Size(shape).numel()
    if values is not None:
        made = torch.tensor(draw(st.lists(values, min_size=count, max_size=count)), dtype=torch.float64).to(dtype)
    elif dtype is torch.bool:
        made = torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=torch.bool)
    else:
        size = count * dtype.itemsize
        made = torch.tensor(list(draw(st.binary(min_size=size, max_size=size))), dtype=torch.uint8).view(dtype)
    made = made.reshape(shape)
    if made.dim() > 1 and draw(st.booleans()):
        made = made.transpose(0, -1)
    if made.dim() and draw(st.booleans()):
        made = made.repeat_interleave(2, dim=0)[::2]
    return made


def states(values: st.SearchStrategy[int] | None = None) -> st.SearchStrategy[State]:
    """State dicts of up to six such tensors."""
    return st.dictionaries(st.text(max_size=12), tensor(values), max_size=6)


def bits(value: torch.Tensor) -> bytes:
    return bytes(as_bytes(value.contiguous()))


def same(a: State, b: State) -> bool:
    """Whether two states agree in names, order, shapes, types and every bit."""
    return list(a) == list(b) and all(
        a[name].shape == b[name].shape and a[name].dtype is b[name].dtype and bits(a[name]) == bits(b[name])
        for name in a
    )


@given(states())
def test_pack_and_unpack_give_back_every_bit(state: State) -> None:
    manifest = Manifest.of(state)
    payload = pack(state, manifest)
    assert payload.dtype is torch.uint8
    assert payload.shape == (manifest.payload_bytes,)
    assert same(unpack(payload, manifest), state)


@given(states())
def test_the_payload_is_the_tensors_one_after_the_other(state: State) -> None:
    manifest = Manifest.of(state)
    assert bits(pack(state, manifest)) == b"".join(bits(value) for value in state.values())


@given(states())
def test_a_manifest_survives_the_wire(state: State) -> None:
    manifest = Manifest.of(state)
    message = pb.TensorManifest.FromString(manifest.to_proto().SerializeToString())
    assert Manifest.from_proto(message) == manifest
    assert manifest.difference(Manifest.from_proto(message)) is None


@given(states(), st.integers(0, 9))
def test_a_payload_may_start_at_any_byte_of_a_buffer(state: State, start: int) -> None:
    manifest = Manifest.of(state)
    payload = pack(state, manifest)
    buffer = torch.zeros(start + payload.numel(), dtype=torch.uint8)
    buffer[start:] = payload
    assert same(unpack(buffer[start:], manifest), state)
    assert torch.equal(widen(buffer[start:], manifest).view(torch.uint8), widen(payload, manifest).view(torch.uint8))


@given(states(st.integers(0, 1)))
def test_widen_and_narrow_give_back_what_float32_can_hold(state: State) -> None:
    manifest = Manifest.of(state)
    payload = pack(state, manifest)
    flat = widen(payload, manifest)
    assert flat.dtype is torch.float32
    assert flat.shape == (manifest.elements,)
    assert 4 * manifest.elements == manifest.update_bytes
    assert torch.equal(narrow(flat, manifest), payload)


def test_widen_keeps_the_models_order() -> None:
    state = {"b": torch.tensor([[1, 2], [3, 4]], dtype=torch.int8), "a": torch.tensor(5.5, dtype=torch.bfloat16)}
    manifest = Manifest.of(state)
    assert widen(pack(state, manifest), manifest).tolist() == [1.0, 2.0, 3.0, 4.0, 5.5]


def test_an_int64_right_after_an_odd_number_of_float16_is_read_whole() -> None:
    state = {"half": torch.ones(3, dtype=torch.float16), "count": torch.tensor([2**62 + 1, -7])}
    manifest = Manifest.of(state)
    assert manifest.tensors[1].offset_bytes == 6
    assert unpack(pack(state, manifest), manifest)["count"].tolist() == [2**62 + 1, -7]


def test_a_real_model_goes_through_its_own_state_dict() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2).half())

    model, other = build(), build()
    model[1].num_batches_tracked.fill_(12)  # type: ignore[operator,union-attr]  # a buffer, to mypy a Module too
    manifest = Manifest.of(model.state_dict())
    other.load_state_dict(unpack(pack(model.state_dict(), manifest), manifest))
    assert same(dict(other.state_dict()), dict(model.state_dict()))


def test_a_model_of_float32_is_its_own_vector_without_a_copy() -> None:
    state = {"w": torch.randn(3, 4), "b": torch.randn(3)}
    manifest = Manifest.of(state)
    payload = pack(state, manifest)
    flat = widen(payload, manifest)
    assert manifest.is_float32
    assert flat.data_ptr() == payload.data_ptr() == narrow(flat, manifest).data_ptr()
    assert unpack(payload, manifest)["w"].data_ptr() == payload.data_ptr()


def test_integers_are_rounded_and_kept_within_their_type() -> None:
    manifest = Manifest.of(
        {
            "i8": torch.zeros(5, dtype=torch.int8),
            "u8": torch.zeros(2, dtype=torch.uint8),
            "i32": torch.zeros(2, dtype=torch.int32),
            "i64": torch.zeros(2, dtype=torch.int64),
            "bool": torch.zeros(4, dtype=torch.bool),
        }
    )
    flat = [300.0, -300.0, 1.6, -1.6, float("nan"), -1.0, 256.0, 3e9, -3e9, 1e30, -1e30, 0.4, 0.6, -1.0, 2.0]
    state = unpack(narrow(torch.tensor(flat), manifest), manifest)
    assert state["i8"].tolist() == [127, -128, 2, -2, 0]
    assert state["u8"].tolist() == [0, 255]
    assert state["i32"].tolist() == [2**31 - 1, -(2**31)]
    assert state["i64"].tolist() == [2**63 - 1024, -(2**63)]
    assert state["bool"].tolist() == [False, True, False, True]


def test_a_bool_byte_that_is_neither_0_nor_1_becomes_true() -> None:
    manifest = Manifest((TensorSpec("mask", (3,), torch.bool, 0),))
    state = unpack(torch.tensor([0, 1, 2], dtype=torch.uint8), manifest)
    assert bits(state["mask"]) == b"\x00\x01\x01"


def test_as_bytes_is_a_view() -> None:
    values = torch.zeros(2, dtype=torch.int16)
    view = as_bytes(values)
    assert len(view) == view.nbytes == 4
    values[1] = 0x0102
    assert bytes(view) == b"\x00\x00\x02\x01"
    assert bytes(as_bytes(torch.empty(0))) == b""


def test_as_bytes_refuses_what_does_not_lie_in_one_piece() -> None:
    with pytest.raises(ValueError, match="make it contiguous"):
        as_bytes(torch.zeros(2, 3).T)


@given(st.binary(max_size=200))
def test_the_digest_is_sha256_whatever_holds_the_bytes(data: bytes) -> None:
    expected = hashlib.sha256(data).digest()
    assert sha256(torch.tensor(list(data), dtype=torch.uint8)) == expected
    assert sha256(data) == sha256(bytearray(data)) == sha256(memoryview(data)) == expected


@pytest.mark.parametrize("length", [0, 11, 13])
def test_a_payload_of_the_wrong_length_is_refused(length: int) -> None:
    payload = torch.zeros(length, dtype=torch.uint8)
    for dtype in (torch.float32, torch.int32):
        manifest = Manifest.of({"w": torch.zeros(3, dtype=dtype)})
        for read in (unpack, widen):
            with pytest.raises(InvalidInputError, match=rf"{length} bytes where 12"):
                read(payload, manifest)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_vector_of_the_wrong_length_is_refused(dtype: torch.dtype) -> None:
    manifest = Manifest.of({"w": torch.zeros(3, dtype=dtype)})
    for length in (2, 4):
        with pytest.raises(InvalidInputError, match=rf"{length} elements where 3"):
            narrow(torch.zeros(length), manifest)


def test_a_type_that_has_no_place_in_the_protocol_is_named() -> None:
    with pytest.raises(InvalidInputError, match=r"tensor phase is torch\.complex64"):
        Manifest.of({"w": torch.zeros(1), "phase": torch.zeros(1, dtype=torch.complex64)})


BASE = {"w": torch.zeros(2, 3), "b": torch.zeros(3)}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"w": torch.zeros(2, 3)}, "b is missing"),
        ({"w": torch.zeros(3, 2), "b": torch.zeros(3)}, "w is [3, 2] instead of [2, 3]"),
        ({"w": torch.zeros(2, 3), "b": torch.zeros(3).half()}, "b is torch.float16 instead of torch.float32"),
        ({**BASE, "extra": torch.zeros(1)}, "extra is not in it"),
        ({"b": torch.zeros(3), "w": torch.zeros(2, 3)}, "the same tensors stand in another order"),
    ],
)
def test_a_model_laid_out_otherwise_is_refused_in_words(other: State, words: str) -> None:
    manifest = Manifest.of(BASE)
    assert manifest.difference(Manifest.of(other)) == words
    with pytest.raises(InvalidInputError) as caught:
        pack(other, manifest)
    assert words in str(caught.value)


def message(*specs: tuple[str, list[int], int, int], total: int) -> pb.TensorManifest:
    made = pb.TensorManifest(payload_bytes=total)
    for name, shape, data_type, offset in specs:
        made.tensors.add(name=name, shape=shape, data_type=data_type, offset_bytes=offset)  # type: ignore[arg-type]  # any int comes over the wire
    return made


F32, BOOL = pb.DATA_TYPE_FLOAT32, pb.DATA_TYPE_BOOL


@pytest.mark.parametrize(
    ("hostile", "words"),
    [
        (message(("w", [-1], F32, 0), total=0), "shape"),
        (message(("w", [-2, -3], F32, 0), total=24), "shape"),
        (message(("w", [1], 0, 0), total=4), "type 0"),
        (message(("w", [1], 99, 0), total=4), "type 99"),
        (message(("w", [2], F32, 4), total=8), "not right after"),
        (message(("w", [2], F32, 0), ("b", [1], F32, 12), total=12), "not right after"),
        (message(("w", [2], F32, 0), ("b", [1], F32, 4), total=12), "not right after"),
        (message(("w", [2], F32, 0), ("w", [1], F32, 8), total=12), "stands twice"),
        (message(("w", [2], F32, 0), total=7), "says 7"),
        (message(("w", [2], F32, 0), total=2**64 - 1), "says"),
        (message(total=1), "says 1"),
        (message(("w", [2**62], F32, 0), total=0), "too large"),
        (message(("w", [2**32, 2**32], F32, 0), total=0), "too large"),
        (message(("w", [2**62, 2**62, 0], F32, 0), total=0), "too large"),
        (message(("w", [2**39], F32, 0), total=2**41), "1024 GiB"),
        (message(("a", [2**40], BOOL, 0), ("b", [1], BOOL, 2**40), total=2**40 + 1), "1024 GiB"),
        (message(("w", [1] * 65, F32, 0), total=4), "65 dimensions"),
        (message(("w", [2**62] * 100_000, F32, 0), total=4), "100000 dimensions"),
        (message(("n" * 1001, [1], F32, 0), total=4), "1001 characters"),
    ],
)
def test_a_hostile_manifest_is_refused_in_a_short_sentence(hostile: pb.TensorManifest, words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Manifest.from_proto(hostile)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_too_many_tensors_are_refused() -> None:
    hostile = pb.TensorManifest()
    hostile.tensors.extend([pb.TensorSpec(name="w")] * (tensors.MAX_TENSORS + 1))
    with pytest.raises(InvalidInputError, match="100001 tensors"):
        Manifest.from_proto(hostile)


sizes = st.one_of(st.integers(-2, 5), st.integers(-(2**63), 2**63 - 1))


@given(
    st.lists(st.tuples(st.text(max_size=3), st.lists(sizes, max_size=5), st.integers(-1, 12), st.integers(0, 40))),
    st.integers(0, 2**64 - 1) | st.integers(0, 40),
)
def test_any_manifest_is_either_refused_or_can_be_unpacked(
    specs: list[tuple[str, list[int], int, int]], total: int
) -> None:
    try:
        manifest = Manifest.from_proto(message(*specs, total=total))
    except InvalidInputError:
        return
    assert manifest.payload_bytes == total
    if total < 1 << 20:
        unpack(torch.zeros(total, dtype=torch.uint8), manifest)


@settings(deadline=None, max_examples=10)
@given(st.sampled_from([1 << 31, 1 << 32, 5 << 30]), st.integers(-3, 3), st.sampled_from(DTYPES))
def test_offsets_beyond_two_and_four_gib_are_counted_right(size: int, odd: int, dtype: torch.dtype) -> None:
    manifest = Manifest((TensorSpec("big", (size + odd,), torch.int8, 0), TensorSpec("w", (2,), dtype, size + odd)))
    again = Manifest.from_proto(pb.TensorManifest.FromString(manifest.to_proto().SerializeToString()))
    assert again == manifest
    assert again.payload_bytes == size + odd + 2 * dtype.itemsize
    assert again.update_bytes == 4 * (size + odd + 2)


def test_a_model_over_four_gib_is_unpacked_in_place(tmp_path: Path) -> None:
    # A file of holes: nothing is allocated but the pages that are touched.
    size = (4 << 30) + 5
    manifest = Manifest((TensorSpec("big", (size,), torch.int8, 0), TensorSpec("w", (2,), torch.int32, size)))
    path = tmp_path / "payload"
    with path.open("w+b") as file:
        os.truncate(path, manifest.payload_bytes)
        with mmap.mmap(file.fileno(), 0) as mapped:
            mapped[size - 1 : size + 8] = b"\x09\x01\x00\x00\x00\xff\xff\xff\xff"
            payload = torch.frombuffer(mapped, dtype=torch.uint8)
            state = unpack(payload, manifest)
            assert state["big"][-1].item() == 9
            assert state["w"].tolist() == [1, -1]
            assert state["big"].data_ptr() == payload.data_ptr()
            del payload, state  # mmap refuses to close while they look into it
