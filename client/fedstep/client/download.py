"""Large files from the web: resumed where they were cut, and held against their checksum."""

import hashlib
import http
import http.client
import random
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from fedstep.common.errors import DataLossError, InvalidInputError, UnavailableError

_CHUNK = 1 << 20
_TIMEOUT_S = 30.0
_TRIES = 5
"""In a row that bring nothing."""


def download(
    url: str,
    path: Path,
    md5: str,
    on_bytes: Callable[[int, int], None] = lambda there, total: None,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Fetches a file, unless it is there already.

    What has come lies beside it as `NAME.part`. A transfer that is cut, now or in an earlier run, goes on from there;
    the file has its own name only once it is whole and its checksum is right.

    Args:
        url: Of http or https.
        path: Where to; its folder is made.
        md5: The checksum it must have, in hexadecimal.
        on_bytes: Called with the bytes that are there and the bytes there will be, 0 if the server does not say.
        wait: Waits so many seconds between tries.

    Raises:
        UnavailableError: The server cannot be reached, or it cuts every transfer; what has come is kept.
        DataLossError: The file has another checksum; it is thrown away, or left alone where it was there before.
        InvalidInputError: It cannot be written.
    """
    if not url.startswith(("http://", "https://")):
        raise InvalidInputError(
            f"{url} is no address of http or https: give one such as https://example.org/{path.name}."
        )
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            found = md5_of(path)
            if found != md5:
                raise DataLossError(
                    f"{path} is there, and its MD5 is {found} instead of {md5}: move it away, and it is fetched anew."
                )
            return
        _fetch_all(url, part, on_bytes, wait)
        found = md5_of(part)
        if found != md5:
            part.unlink()
            raise DataLossError(
                f"What came from {url} has the MD5 {found} instead of {md5} and was thrown away: try again, and if it "
                "comes out the same, the file at that address is another one."
            )
        part.replace(path)
    except OSError as error:
        raise InvalidInputError(
            f"{path} cannot be written ({error.strerror or error}): give another folder, with room."
        ) from error


def _fetch_all(url: str, part: Path, on_bytes: Callable[[int, int], None], wait: Callable[[float], None]) -> None:
    """Goes on with the part until all of it is there."""
    tries = 0
    while True:
        before = _size(part)
        reason = _fetch(url, part, on_bytes)
        if not reason:
            return
        tries = 1 if _size(part) > before else tries + 1
        if tries == _TRIES:
            raise UnavailableError(
                f"{url} cannot be fetched ({reason}); {_size(part):,} bytes of it are kept: try again, and it goes on "
                "from there."
            )
        wait(2 ** (tries - 1) * random.uniform(0.5, 1.0))


def _fetch(url: str, part: Path, on_bytes: Callable[[int, int], None]) -> str:
    """One transfer, from where the part ends; what cut it, or nothing."""
    start = _size(part)
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urlopen(request, timeout=_TIMEOUT_S)
    except HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return ""  # nothing is left to fetch: the checksum tells whether it is the file
        if error.code < http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise UnavailableError(
                f"{url} cannot be fetched ({error.code} {error.reason}): check the address."
            ) from error
        return f"{error.code} {error.reason}"
    except (http.client.HTTPException, OSError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        there = start if resumed else 0
        length = response.headers.get("Content-Length", "")
        total = there + int(length) if length.isdecimal() else 0
        with part.open("ab" if resumed else "wb") as file:
            while True:
                try:
                    chunk = response.read(_CHUNK)
                except (http.client.HTTPException, OSError) as error:
                    return str(error) or type(error).__name__
                if not chunk:
                    break
                file.write(chunk)
                there += len(chunk)
                on_bytes(there, total)
    return "" if not total or there >= total else "the transfer was cut"


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def md5_of(path: Path) -> str:
    """A file's MD5, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
