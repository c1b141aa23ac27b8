"""Traces: when clients are away, from a file."""

from pathlib import Path

import pytest

from fedstep.common.errors import InvalidInputError
from fedstep.common.pauses import Pauses
from fedstep.common.trace import read_trace

HEAD = "client,away_from_s,away_until_s\n"


def test_every_client_has_its_intervals_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(HEAD + "b,0,7.5\na,100,200\n\na,10,20\n")
    assert read_trace(path) == {"a": Pauses(((10, 20), (100, 200))), "b": Pauses(((0, 7.5),))}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", ":1: the first line of a trace is client,away_from_s,away_until_s"),
        ("a,1,2\n", ":1: the first line"),
        (HEAD + "a,1,2\nb,3\n", ":3: b,3 is no interval"),
        (HEAD + "a,2,1\n", ":2: a,2,1 is no interval"),
        (HEAD + "a,-1,1\n", "is no interval"),
        (HEAD + "a,1,inf\n", "is no interval"),
        (HEAD + "a,one,2\n", "is no interval"),
        (HEAD + ",1,2\n", "is no interval"),
        (HEAD + "a,1,2,3\n", "is no interval"),
        (HEAD + "a,1,5\na,4,8\n", "a is away until 5 s and again from 4 s: make one interval"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(content)
    with pytest.raises(InvalidInputError) as refusal:
        read_trace(path)
    assert said in refusal.value.message
    assert str(path) in refusal.value.message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"none\.csv cannot be read \(no such file"):
        read_trace(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInputError, match=r"bytes\.csv cannot be read \(it is no text\)"):
        read_trace(tmp_path / "bytes.csv")
