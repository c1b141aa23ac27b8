import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner

from fedstep.client.download import download
from fedstep.client.nist import ARCHIVES, Archive
from fedstep.common.errors import DataLossError, InvalidInputError, UnavailableError
from fedstep.simulation.data_cli import data

CONTENT = bytes(range(256)) * 10_000
MD5 = hashlib.md5(CONTENT).hexdigest()


@dataclass
class Site:
    """A server of one file, as bad as it is told to be.

    Attributes:
        address: Of the file.
        content: The file.
        cuts: After so many bytes each of the next transfers is cut.
        faults: Answers of the next requests, before any file is sent.
        ranges: Whether it knows Range.
        asked: The Range of every request.
    """

    address: str = ""
    content: bytes = CONTENT
    cuts: list[int] = field(default_factory=list)
    faults: list[int] = field(default_factory=list)
    ranges: bool = True
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the library's name
            wanted = self.headers.get("Range")
            site.asked.append(wanted)
            if site.faults:
                self.send_error(site.faults.pop(0))
                return
            found = re.fullmatch(r"bytes=(\d+)-", wanted or "") if site.ranges else None
            start = int(found[1]) if found else 0
            if found and start >= len(site.content):
                self.send_error(416)
                return
            body = site.content[start:]
            self.send_response(206 if found else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: site.cuts.pop(0)] if site.cuts else body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        site.address = f"http://127.0.0.1:{server.server_port}/by_write.zip"
        yield site
        server.shutdown()
        thread.join()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def fetch(site: Site, tmp_path: Path, waits: list[float]) -> Callable[..., Path]:
    def fetch(md5: str = MD5, on_bytes: Callable[[int, int], None] = lambda there, total: None) -> Path:
        path = tmp_path / "new" / "by_write.zip"
        download(site.address, path, md5, on_bytes, waits.append)
        return path

    return fetch


def part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def test_a_file_comes_whole_and_once(site: Site, fetch: Callable[..., Path]) -> None:
    seen: list[tuple[int, int]] = []
    path = fetch(on_bytes=lambda there, total: seen.append((there, total)))
    assert path.read_bytes() == CONTENT
    assert not part_of(path).exists()
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    fetch()
    assert site.asked == [None]


def test_a_transfer_that_is_cut_goes_on_where_it_was(
    site: Site, fetch: Callable[..., Path], waits: list[float]
) -> None:
    site.cuts = [1_000_000, 500_000]
    assert fetch().read_bytes() == CONTENT
    assert site.asked == [None, "bytes=1000000-", "bytes=1500000-"]
    assert len(waits) == 2
    assert max(waits) <= 1  # each brought something


def test_it_goes_on_in_a_later_run(site: Site, fetch: Callable[..., Path]) -> None:
    def give_up(there: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(on_bytes=give_up)
    assert fetch().read_bytes() == CONTENT
    assert site.asked[0] is None
    assert re.fullmatch(r"bytes=[1-9]\d+-", site.asked[-1] or "")


def test_a_server_that_knows_no_ranges_starts_again(site: Site, fetch: Callable[..., Path]) -> None:
    site.ranges, site.cuts = False, [1_000_000]
    assert fetch().read_bytes() == CONTENT


def test_a_server_that_is_ill_is_asked_again_but_not_for_ever(
    site: Site, fetch: Callable[..., Path], waits: list[float]
) -> None:
    site.faults = [503, 500]
    assert fetch().read_bytes() == CONTENT
    site.content = b"other"
    site.faults = [503] * 9
    with pytest.raises(UnavailableError, match=r"503 .*; 0 bytes of it are kept"):
        download(site.address, fetch().with_name("again.zip"), MD5, wait=waits.append)
    assert len(site.faults) == 4


def test_a_server_that_does_not_have_it_is_not_asked_again(site: Site, fetch: Callable[..., Path]) -> None:
    site.faults = [404]
    with pytest.raises(UnavailableError, match=r"404 Not Found\): check the address"):
        fetch()
    assert len(site.asked) == 1


def test_another_checksum_is_an_error_and_nothing_is_kept(
    site: Site, fetch: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(DataLossError, match=f"has the MD5 {MD5} instead of 00"):
        fetch(md5="00")
    assert not list((tmp_path / "new").iterdir())


def test_a_part_of_something_else_is_thrown_away(site: Site, fetch: Callable[..., Path], tmp_path: Path) -> None:
    part = tmp_path / "new" / "by_write.zip.part"
    part.parent.mkdir()
    for rubbish in (b"rubbish", bytes(len(CONTENT) + 5)):
        part.write_bytes(rubbish)
        with pytest.raises(DataLossError, match="try again"):
            fetch()
        assert not part.exists()
    assert fetch().read_bytes() == CONTENT


def test_a_file_that_is_there_and_wrong_is_left_alone(fetch: Callable[..., Path]) -> None:
    path = fetch()
    path.write_bytes(b"mine")
    with pytest.raises(DataLossError, match="move it away"):
        fetch()
    assert path.read_bytes() == b"mine"


def test_what_cannot_be_is_named(tmp_path: Path, site: Site, waits: list[float]) -> None:
    with pytest.raises(InvalidInputError, match="no address of http or https"):
        download("file:///etc/passwd", tmp_path / "x", MD5)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInputError, match="cannot be written"):
        download(site.address, tmp_path / "file" / "x", MD5)
    with pytest.raises(UnavailableError, match="cannot be fetched"):
        download("http://127.0.0.1:9/x", tmp_path / "x", MD5, wait=waits.append)
    assert len(waits) == 4


def test_the_command_gets_what_is_asked_for(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHIVES, "by_write", Archive("by_write.zip", MD5))  # type: ignore[arg-type]  # a dict
    mirror = site.address.rpartition("/")[0]
    arguments = ["download", str(tmp_path), "--archive", "by_write", "--mirror", mirror]
    result = CliRunner().invoke(data, arguments)
    assert result.exit_code == 0, result.output
    assert "by_write.zip is whole" in result.output
    assert (tmp_path / "by_write.zip").read_bytes() == CONTENT
    result = CliRunner().invoke(data, ["download", str(tmp_path), "--mirror", mirror])
    assert isinstance(result.exception, DataLossError)  # by_class is not what this server has
