"""A small certificate authority: one key, which signs the coordinator's certificate and its callers'."""

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedstep.common.errors import AlreadyExistsError, InvalidInputError, StorageError
from fedstep.common.identity import MAX_NAME_LENGTH, Identity, uri_of
from fedstep.common.tls import read_pair

CA_NAME = "ca"
COORDINATOR_NAME = "coordinator"
THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
"""Names that every coordinator's certificate holds: it is dialled by them on its own machine and through tunnels."""

_EARLIER = timedelta(hours=1)
"""Certificates are valid from a little before they are made: clocks differ."""
_MOST_COMMON_NAME = 64


@dataclass(frozen=True)
class Made:
    """A certificate and its key that now lie in files.

    Attributes:
        certificate: `NAME.crt`.
        key: `NAME.key`, which only its owner may read.
    """

    certificate: Path
    key: Path


@dataclass(frozen=True)
class _Signer:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_authority(folder: Path, lifetime: timedelta) -> Made:
    """A new CA in a folder.

    Raises:
        AlreadyExistsError: There is one; a key is never overwritten.
        StorageError: The folder cannot be written to.
    """
    made = _files(folder, CA_NAME)
    _check_free(made)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"fedstep CA {datetime.now(UTC):%Y-%m-%d}")])
    certificate = (
        _builder(name, name, key.public_key(), lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(made, key, certificate)
    return made


def make_coordinator(folder: Path, hosts: Sequence[str], name: str, lifetime: timedelta) -> Made:
    """A certificate for a coordinator, signed by the folder's CA.

    Args:
        folder: The CA's.
        hosts: Names and IP addresses that callers dial; those of the machine itself are added.
        name: Of the files.
        lifetime: How long it is valid.

    Raises:
        InvalidInputError: A host is neither a name nor an address, or there is no CA in the folder.
        AlreadyExistsError: The files are there.
        StorageError: The folder cannot be written to.
    """
    names = [_host(host) for host in dict.fromkeys([*hosts, *THIS_MACHINE])]
    return _signed(folder, folder, name, name, names, ExtendedKeyUsageOID.SERVER_AUTH, lifetime)


def enroll(folder: Path, identity: Identity, lifetime: timedelta) -> Made:
    """A certificate for a client or an operator, signed by the folder's CA, in a folder by its role.

    Raises:
        InvalidInputError: The name cannot be one, or there is no CA in the folder.
        AlreadyExistsError: Somebody is enrolled by that name.
        StorageError: The folder cannot be written to.
    """
    name = identity.name or ""
    if not 0 < len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidInputError(
            f"A name has 1 to {MAX_NAME_LENGTH} printable characters, not {name!r:.80}: give another."
        )
    uri = uri_of(identity)
    file = uri.rpartition("/")[2]
    names = [x509.UniformResourceIdentifier(uri)]
    return _signed(folder, folder / identity.role, file, name, names, ExtendedKeyUsageOID.CLIENT_AUTH, lifetime)


def write_secret(path: Path, content: bytes) -> None:
    """A new file that only its owner may read.

    Raises:
        AlreadyExistsError: It is there; nothing is overwritten.
        StorageError: It cannot be written.
    """
    _create(path, content, 0o600)


def _signed(
    folder: Path,
    into: Path,
    file: str,
    name: str,
    names: Sequence[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
    lifetime: timedelta,
) -> Made:
    signer = _signer(folder)
    ends = signer.certificate.not_valid_after_utc
    if datetime.now(UTC) + lifetime > ends:
        raise InvalidInputError(
            f"The CA in {folder} ends on {ends:%Y-%m-%d}, before the certificate would: give fewer --days, "
            "or make another CA with `fedstep pki init`."
        )
    made = _files(into, file)
    _check_free(made)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:_MOST_COMMON_NAME])])
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
    certificate = (
        _builder(subject, signer.certificate.subject, key.public_key(), lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(authority, critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(signer.key, hashes.SHA256())
    )
    _write(made, key, certificate)
    return made


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    labels = host.removeprefix("*.").split(".")
    if not all(label and label.isascii() and label.replace("-", "").replace("_", "").isalnum() for label in labels):
        raise InvalidInputError(
            f"{host} is neither the name of a machine nor an IP address: give what callers dial, without a port."
        )
    return x509.DNSName(host)


def _signer(folder: Path) -> _Signer:
    files = _files(folder, CA_NAME)
    if not files.key.exists():
        raise InvalidInputError(f"There is no CA in {folder} ({files.key}): make one with `fedstep pki init`.")
    pair = read_pair(files.certificate, files.key)
    key = serialization.load_pem_private_key(pair.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return _Signer(x509.load_pem_x509_certificate(pair.certificate), key)


def _files(folder: Path, name: str) -> Made:
    return Made(folder / f"{name}.crt", folder / f"{name}.key")


def _check_free(made: Made) -> None:
    for path in (made.key, made.certificate):
        if path.exists():
            raise _taken(path)


def _write(made: Made, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _create(made.key, private, 0o600)
    _create(made.certificate, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _create(path: Path, content: bytes, mode: int) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
    except FileExistsError as error:
        raise _taken(path) from error
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written ({(error.strerror or str(error)).lower()}): give another folder with --dir."
        ) from error


def _taken(path: Path) -> AlreadyExistsError:
    return AlreadyExistsError(
        f"{path} is there already and nothing is overwritten: move it away first, or give another name or folder."
    )
