"""Keys, certificates and tokens from files: what is wrong with them is said before they are used."""

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from fedstep.common.errors import FedstepError, InvalidInputError
from fedstep.common.identity import Identity, Role, identity_of, uri_of
from fedstep.common.security import PLAIN, Security, read_security
from fedstep.common.security_options import VARIABLES, security_options
from fedstep.common.tls import read_authorities, read_pair, read_tokens
from fedstep.server.authority import Made, enroll, make_authority

DAY = timedelta(days=1)
TOKEN = "t" * 40


@pytest.fixture
def ca(tmp_path: Path) -> Made:
    return make_authority(tmp_path / "pki", 10 * DAY)


@pytest.fixture
def ann(tmp_path: Path, ca: Made) -> Made:
    return enroll(ca.key.parent, Identity(Role.CLIENT, "ann"), DAY)


def sentence(call: Callable[[], object], *words: str) -> None:
    """It is refused in one sentence with these words."""
    with pytest.raises(InvalidInputError) as caught:
        call()
    assert "\n" not in caught.value.message
    for word in words:
        assert word in caught.value.message


# identities ----------------------------------------------------------------------------------------------------------


@given(role=st.sampled_from(Role), name=st.text(min_size=1, max_size=128).filter(str.isprintable))
def test_a_name_survives_the_way_through_a_certificate(role: Role, name: str) -> None:
    identity = Identity(role, name)
    uri = uri_of(identity)
    assert uri.isascii()
    assert identity_of(["https://elsewhere", uri]) == identity


@pytest.mark.parametrize(
    "uris",
    [
        [],
        ["https://client/ann"],
        ["fedstep://client/"],
        ["fedstep://client"],
        ["fedstep://root/ann"],
        ["fedstep://client/ann/b"],
        ["fedstep://client/%61nn"],
        ["fedstep://client/ann", "fedstep://operator/ann"],
    ],
)
def test_what_names_nobody_or_two(uris: list[str]) -> None:
    assert identity_of(uris) is None


# files ---------------------------------------------------------------------------------------------------------------


def test_a_certificate_says_who_it_is_and_hides_its_key(ann: Made) -> None:
    pair = read_pair(ann.certificate, ann.key)
    assert pair.identity == Identity(Role.CLIENT, "ann")
    assert "PRIVATE" not in repr(pair)


def test_files_that_are_not_what_they_should_be(tmp_path: Path, ca: Made, ann: Made) -> None:
    nothing, text = tmp_path / "nothing", tmp_path / "text"
    text.write_text("no PEM")
    sentence(lambda: read_pair(nothing, ann.key), str(nothing), "no such file")
    sentence(lambda: read_pair(text, ann.key), str(text), "no certificate in PEM")
    sentence(lambda: read_pair(ann.certificate, text), str(text), "no private key")
    sentence(lambda: read_pair(ann.certificate, ca.key), str(ca.key), "not that of")
    sentence(lambda: read_authorities(text), str(text), "no certificate")


def test_a_key_that_everybody_may_read_is_told_of(ann: Made, caplog: pytest.LogCaptureFixture) -> None:
    read_pair(ann.certificate, ann.key)
    assert not caplog.messages
    ann.key.chmod(0o644)
    read_pair(ann.certificate, ann.key)
    ann.key.chmod(0o600)
    assert caplog.messages == [
        f"The private key {ann.key} can be read by everybody on this machine: chmod 600 {ann.key}"
    ]


def test_a_certificate_that_has_expired(ca: Made) -> None:
    made = enroll(ca.key.parent, Identity(Role.CLIENT, "old"), timedelta(minutes=-1))
    sentence(lambda: read_pair(made.certificate, made.key), "old.crt", "expired on", "fedstep pki")


def test_tokens_a_line_each(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# the new one\n{TOKEN}\n\n  {TOKEN}2  \n")
    assert read_tokens(file) == [TOKEN, f"{TOKEN}2"]


@pytest.mark.parametrize("content", ["", "# none\n", "short\n", f"{TOKEN} {TOKEN}\n", "ü" * 40])
def test_what_is_no_token_is_refused_and_not_repeated(tmp_path: Path, content: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(content)
    with pytest.raises(InvalidInputError, match="token") as caught:
        read_tokens(file)
    assert "short" not in caught.value.message
    assert TOKEN not in caught.value.message


# a caller's options --------------------------------------------------------------------------------------------------


def given_options(arguments: list[str], variables: Mapping[str, str] | None = None) -> Security | FedstepError:
    """What a command gets, or is told."""
    got: list[Security] = []

    @click.command()
    @security_options
    def command(security: Security) -> None:
        got.append(security)

    environment: dict[str, Any] = {**dict.fromkeys(VARIABLES), **(variables or {})}
    result = CliRunner().invoke(command, arguments, env=environment)
    if isinstance(result.exception, FedstepError):
        return result.exception
    assert result.exit_code == 0, result.output
    return got[0]


def test_without_options_there_is_no_tls() -> None:
    assert given_options([]) == PLAIN
    assert PLAIN.credentials() is None


def test_options_and_variables_say_the_same(ca: Made, ann: Made) -> None:
    files = {"CA": ca.certificate, "CERT": ann.certificate, "KEY": ann.key}
    by_options = given_options([word for name, file in files.items() for word in (f"--tls-{name.lower()}", str(file))])
    by_variables = given_options([], {f"FEDSTEP_TLS_{name}": str(file) for name, file in files.items()})
    assert by_options == by_variables
    assert isinstance(by_options, Security)
    assert by_options.pair is not None
    assert by_options.credentials() is not None


def test_a_token_from_a_file_or_the_environment(tmp_path: Path, ca: Made) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    trust = ["--tls-ca", str(ca.certificate)]
    for found in (
        given_options([*trust, "--token-file", str(file)]),
        given_options(trust, {"FEDSTEP_TOKEN": TOKEN}),
        given_options([*trust, "--token-file", str(file)], {"FEDSTEP_TOKEN": "u" * 40}),
    ):
        assert isinstance(found, Security)
        assert found.token == TOKEN
        assert TOKEN not in repr(found)


def test_options_that_do_not_go_together(tmp_path: Path, ca: Made, ann: Made) -> None:
    trusted, certificate, key, file = ca.certificate, ann.certificate, ann.key, tmp_path / "tokens"
    file.write_text(f"{TOKEN}\n{TOKEN}2\n")
    sentence(lambda: read_security(trusted, certificate, None, None, None), "--tls-cert", "without --tls-key")
    sentence(lambda: read_security(trusted, None, key, None, None), "--tls-key", "without --tls-cert")
    sentence(lambda: read_security(None, certificate, key, None, None), "without --tls-ca")
    sentence(lambda: read_security(None, None, None, file, None), "over TLS only", "--tls-ca")
    sentence(lambda: read_security(None, None, None, None, TOKEN), "over TLS only", "FEDSTEP_TOKEN")
    sentence(lambda: read_security(trusted, None, None, file, None), "holds 2 tokens")
    sentence(lambda: read_security(trusted, None, None, None, "short"), "FEDSTEP_TOKEN", "32")


def test_no_token_can_be_given_on_a_command_line(ca: Made) -> None:
    assert os.environ.get("FEDSTEP_TOKEN") is None
    result = CliRunner().invoke(click.command()(security_options(lambda security: None)), ["--token", TOKEN])
    assert "No such option" in result.output
