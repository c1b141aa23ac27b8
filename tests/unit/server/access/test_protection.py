"""A coordinator's options, and whether it may listen where it is told to."""

from datetime import timedelta
from pathlib import Path

import pytest

from fedstep.common.errors import InvalidInputError, PreconditionError
from fedstep.common.identity import Role
from fedstep.common.tls import read_authorities, read_pair
from fedstep.server.api.access import Tokens
from fedstep.server.authority import make_authority, make_coordinator
from fedstep.server.protection import Callers, Protection, is_loopback, read_protection

DAY = timedelta(days=1)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    ca = make_authority(tmp_path, DAY * 2)
    made = make_coordinator(tmp_path, ["a.example"], "coordinator", DAY)
    found = {"cert": made.certificate, "key": made.key, "ca": ca.certificate}
    for name, letter in (("clients", "c"), ("operators", "o"), ("same", "c")):
        found[name] = tmp_path / name
        found[name].write_text(letter * 40)
    return found


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "unix:/run/fedstep.sock"])
def test_this_machine_alone(host: str) -> None:
    assert is_loopback(host)
    Protection().check(host, 7433)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "203.0.113.7", ""])
def test_an_open_coordinator_off_loopback_is_refused(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(PreconditionError) as caught:
        Protection().check(host, 7433)
    assert f"{host}:7433 without TLS" in caught.value.message
    assert "`fedstep pki init`" in caught.value.message
    assert "--insecure" in caught.value.message
    Protection(insecure=True).check(host, 7433)


def test_tls_alone_does_not_say_who_calls(files: dict[str, Path]) -> None:
    pair = read_pair(files["cert"], files["key"])
    with pytest.raises(PreconditionError, match="without knowing who calls"):
        Protection(pair).check("0.0.0.0", 7433)
    Protection(pair, read_authorities(files["ca"])).check("0.0.0.0", 7433)
    Protection(pair, tokens=Tokens({})).check("0.0.0.0", 7433)


def test_the_first_line_says_what_it_is_open_to(files: dict[str, Path]) -> None:
    pair = read_pair(files["cert"], files["key"])
    known = Protection(pair, read_authorities(files["ca"]))
    assert Protection().words("127.0.0.1") == ""
    assert Protection(insecure=True).words("0.0.0.0") == " (no TLS; OPEN to whoever reaches that address)"
    assert known.words("0.0.0.0") == f" (TLS until {pair.ends:%Y-%m-%d}; callers are known by their certificates)"
    assert Protection(pair).words("127.0.0.1").endswith("; open to this machine)")


def test_what_the_options_say(files: dict[str, Path]) -> None:
    cert, key, ca = files["cert"], files["key"], files["ca"]
    clients, operators = files["clients"], files["operators"]
    plain = read_protection(None, None, None, None, None, False)
    assert (plain, plain.callers, plain.credentials()) == (Protection(), Callers.UNKNOWN, None)
    assert plain.interceptors() == []
    by_certificates = read_protection(cert, key, ca, None, None, False)
    assert by_certificates.callers is Callers.CERTIFICATES
    assert len(by_certificates.interceptors()) == 1
    by_tokens = read_protection(cert, key, None, clients, operators, False)
    assert by_tokens.callers is Callers.TOKENS
    assert by_tokens.tokens is not None
    assert by_tokens.tokens.role_of("c" * 40) is Role.CLIENT
    assert by_tokens.tokens.role_of("o" * 40) is Role.OPERATOR
    assert by_tokens.tokens.role_of("c" * 39) is None
    assert "cccc" not in repr(by_tokens)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("cert", None, None, None, None), "--tls-cert is given without --tls-key"),
        ((None, "key", None, None, None), "--tls-key is given without --tls-cert"),
        ((None, None, "ca", None, None), "--tls-ca is given without --tls-cert"),
        (("cert", "key", None, "clients", None), "There is no --operator-token-file"),
        (("cert", "key", None, None, "operators"), "There is no --client-token-file"),
        ((None, None, None, "clients", "operators"), "over TLS only"),
        (("cert", "key", "ca", "clients", "operators"), "leave one out"),
        (("cert", "key", None, "clients", "same"), "hold the same token"),
    ],
)
def test_options_that_do_not_go_together(files: dict[str, Path], given: tuple[str | None, ...], words: str) -> None:
    cert, key, ca, clients, operators = (files[name] if name else None for name in given)
    with pytest.raises(InvalidInputError) as caught:
        read_protection(cert, key, ca, clients, operators, False)
    assert words in caught.value.message
    assert "cccc" not in caught.value.message
