"""What `fedstep pki` makes."""

import stat
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from fedstep.common.errors import AlreadyExistsError, InvalidInputError
from fedstep.common.identity import Identity, Role
from fedstep.common.tls import read_pair, read_tokens
from fedstep.server.authority import Made, enroll, make_authority, make_coordinator, write_secret

YEAR = timedelta(days=365)


def certificate(made: Made) -> x509.Certificate:
    return x509.load_pem_x509_certificate(made.certificate.read_bytes())


def names_of(found: x509.Certificate) -> x509.SubjectAlternativeName:
    return found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_authority(tmp_path / "pki", 10 * YEAR)
    return tmp_path / "pki"


def test_keys_are_their_owners_alone_and_the_cas_is_its_own(folder: Path) -> None:
    server = make_coordinator(folder, ["a.example"], "coordinator", YEAR)
    client = enroll(folder, Identity(Role.CLIENT, "ann"), YEAR)
    keys = [folder / "ca.key", server.key, client.key]
    assert [stat.S_IMODE(key.stat().st_mode) for key in keys] == [0o600] * 3
    assert len({key.read_bytes() for key in keys}) == 3
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_nothing_is_ever_overwritten(folder: Path) -> None:
    make_coordinator(folder, ["a.example"], "coordinator", YEAR)
    enroll(folder, Identity(Role.CLIENT, "ann"), YEAR)
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    for again in (
        lambda: make_authority(folder, YEAR),
        lambda: make_coordinator(folder, ["b.example"], "coordinator", YEAR),
        lambda: enroll(folder, Identity(Role.CLIENT, "ann"), YEAR),
        lambda: write_secret(folder / "ca.key", b"x"),
    ):
        with pytest.raises(AlreadyExistsError, match="nothing is overwritten"):
            again()
    (folder / "client" / "ann.key").unlink()  # the certificate that is left is not written over either
    with pytest.raises(AlreadyExistsError, match=r"ann\.crt"):
        enroll(folder, Identity(Role.CLIENT, "ann"), YEAR)
    assert all(path.read_bytes() == content for path, content in before.items() if path.exists())


def test_the_cas_certificate_signs_others_and_no_ca(folder: Path) -> None:
    found = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
    constraints = found.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, 0)
    left = found.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=3649) < left <= 10 * YEAR


def test_a_coordinators_certificate_holds_what_is_dialled(folder: Path) -> None:
    found = certificate(make_coordinator(folder, ["a.example", "10.0.0.5", "fd00::5"], "coordinator", YEAR))
    names = names_of(found)
    assert names.get_values_for_type(x509.DNSName) == ["a.example", "localhost"]
    addresses = [ip_address(text) for text in ("10.0.0.5", "fd00::5", "127.0.0.1", "::1")]
    assert names.get_values_for_type(x509.IPAddress) == addresses
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    key = found.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"


@pytest.mark.parametrize("host", ["a.example:7433", "https://a.example", "", "a b", "ä.example"])
def test_a_host_that_cannot_be_one(folder: Path, host: str) -> None:
    with pytest.raises(InvalidInputError, match="neither the name of a machine nor an IP address"):
        make_coordinator(folder, [host], "coordinator", YEAR)


@pytest.mark.parametrize("name", ["ann", "Klinik Süd/3", "..", "n" * 128])
def test_a_callers_certificate_holds_role_and_name(folder: Path, name: str) -> None:
    made = enroll(folder, Identity(Role.OPERATOR, name), YEAR)
    assert made.key.parent == folder / "operator"
    assert read_pair(made.certificate, made.key).identity == Identity(Role.OPERATOR, name)
    found = certificate(made)
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    found.verify_directly_issued_by(x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes()))


def test_who_cannot_be_enrolled(folder: Path, tmp_path: Path) -> None:
    for name in ("", "n" * 129, "a\nb"):
        with pytest.raises(InvalidInputError, match="A name has 1 to 128 printable characters"):
            enroll(folder, Identity(Role.CLIENT, name), YEAR)
    with pytest.raises(InvalidInputError, match="`fedstep pki init`"):
        enroll(tmp_path, Identity(Role.CLIENT, "ann"), YEAR)
    with pytest.raises(InvalidInputError, match="--days"):
        enroll(folder, Identity(Role.CLIENT, "ann"), 11 * YEAR)


def test_a_secret_is_its_owners_alone(tmp_path: Path) -> None:
    write_secret(tmp_path / "token", b"t" * 40)
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert read_tokens(tmp_path / "token") == ["t" * 40]
