"""Keys, certificates and tokens from files, checked before they are used: gRPC would not say what is wrong."""

import logging
import os
import ssl
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fedstep.common.errors import InvalidInputError
from fedstep.common.identity import Identity, identity_of

if TYPE_CHECKING:
    from cryptography import x509

MIN_TOKEN_LENGTH = 32

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key.

    Attributes:
        certificate: PEM; what signed it may follow it.
        key: PEM, not encrypted.
        file: Where the certificate was.
        key_file: Where the key was.
        ends: When it expires.
        identity: Whom it names; None where it is not a client's or an operator's.
    """

    certificate: bytes
    key: bytes = field(repr=False)
    file: Path
    key_file: Path
    ends: datetime
    identity: Identity | None

    def check_ends(self) -> None:
        """Raises unless it is still valid.

        Raises:
            InvalidInputError: It has expired.
        """
        if self.ends <= datetime.now(UTC):
            raise InvalidInputError(
                f"The certificate {self.file} expired on {self.ends:%Y-%m-%d}: make a new one with `fedstep pki`."
            )


def read_authorities(path: Path) -> bytes:
    """The certificates of CAs in a file, as PEM.

    Raises:
        InvalidInputError: It cannot be read, or holds none.
    """
    pem = _read(path, "the CA's certificate")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:  # ValueError: it is empty
        raise _no_certificate(path) from error
    return pem


def check_both(certificate: Path | None, key: Path | None) -> None:
    """Raises where `--tls-cert` or `--tls-key` is given alone.

    Raises:
        InvalidInputError: One is.
    """
    if (certificate is None) != (key is None):
        given, missing = ("--tls-cert", "--tls-key") if key is None else ("--tls-key", "--tls-cert")
        raise InvalidInputError(f"{given} is given without {missing}: a certificate is used with its key, give both.")


def read_pair(certificate: Path, key: Path) -> Pair:
    """A certificate and its key.

    Raises:
        InvalidInputError: One cannot be read, they do not belong together, or the certificate is not valid now.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    pem, key_pem = _read(certificate, "the certificate"), _read(key, "the private key")
    leaf = _certificates(pem, certificate)[0]
    try:
        private = load_pem_private_key(key_pem, None)
    except (ValueError, TypeError) as error:
        raise InvalidInputError(
            f"{key} holds no private key in PEM without a password: give the .key that `fedstep pki` made."
        ) from error

    def spki(public: object) -> bytes:
        made: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]  # every kind of key has it
        return made

    if spki(private.public_key()) != spki(leaf.public_key()):
        raise InvalidInputError(
            f"The key {key} is not that of the certificate {certificate}: give the two made together."
        )
    if os.name == "posix" and key.stat().st_mode & stat.S_IROTH:
        log.warning("The private key %s can be read by everybody on this machine: chmod 600 %s", key, key)
    pair = Pair(pem, key_pem, certificate, key, leaf.not_valid_after_utc, identity_of(_uris(leaf)))
    pair.check_ends()
    if leaf.not_valid_before_utc > datetime.now(UTC):
        raise InvalidInputError(
            f"The certificate {certificate} is valid from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on, "
            "which is still to come: set this machine's clock."
        )
    return pair


def read_tokens(path: Path) -> list[str]:
    """The tokens in a file, one a line; empty lines and lines that begin with # are passed over.

    Raises:
        InvalidInputError: It cannot be read, holds none, or one is too short or no plain text. No message repeats it.
    """
    try:
        lines = [line.strip() for line in _read(path, "the tokens").decode("ascii").splitlines()]
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is no plain text: write a token a line into it.") from error
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise InvalidInputError(f"{path} holds no token: make one with `fedstep pki token {path}`.")
    for token in found:
        check_token(token, str(path))
    return found


def check_token(token: str, where: str) -> None:
    """Raises unless it may stand in a header and is too long to be guessed.

    Args:
        token: It.
        where: Where it came from, for the sentence.

    Raises:
        InvalidInputError: It does not, or is not; the message does not repeat it.
    """
    if len(token) < MIN_TOKEN_LENGTH or not token.isascii() or any(not "!" <= letter <= "~" for letter in token):
        raise InvalidInputError(
            f"{where} holds what is no token: one has at least {MIN_TOKEN_LENGTH} letters and digits without a space; "
            "make one with `fedstep pki token`."
        )


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInputError(
            f"{path} cannot be read for {what} ({(error.strerror or str(error)).lower()}): give a file that is there."
        ) from error


def _certificates(pem: bytes, path: Path) -> "list[x509.Certificate]":
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise _no_certificate(path) from error


def _no_certificate(path: Path) -> InvalidInputError:
    return InvalidInputError(f"{path} holds no certificate in PEM: give the .crt that `fedstep pki` made.")


def _uris(certificate: "x509.Certificate") -> list[str]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)
