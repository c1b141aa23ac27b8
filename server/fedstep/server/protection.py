"""What stands between a coordinator and whoever reaches its port."""

import ipaddress
import socket
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import grpc
import grpc.aio

from fedstep.common.errors import InvalidInputError, PreconditionError
from fedstep.common.identity import Role
from fedstep.common.tls import Pair, check_both, read_authorities, read_pair, read_tokens
from fedstep.server.api.access import AccessInterceptor, Tokens


class Callers(StrEnum):
    """How a coordinator knows who calls."""

    UNKNOWN = "open"
    """Not at all: everybody may do everything."""
    CERTIFICATES = "certificates"
    TOKENS = "tokens"


@dataclass(frozen=True)
class Protection:
    """How a coordinator is protected. As it stands, not at all: for loopback only.

    Attributes:
        pair: The coordinator's certificate and key; None for no TLS.
        authorities: The CAs that sign its callers' certificates, as PEM; None where callers need none.
        tokens: What they show in place of certificates; None where they show none.
        insecure: It may be open to whoever reaches it.
    """

    pair: Pair | None = None
    authorities: bytes | None = None
    tokens: Tokens | None = field(default=None, repr=False)
    insecure: bool = False

    @property
    def callers(self) -> Callers:
        """How callers are known."""
        if self.authorities is not None:
            return Callers.CERTIFICATES
        return Callers.UNKNOWN if self.tokens is None else Callers.TOKENS

    def interceptors(self) -> list[grpc.aio.ServerInterceptor]:
        """What holds calls against the table; nothing where callers are not known."""
        return [] if self.callers is Callers.UNKNOWN else [AccessInterceptor(self.tokens)]

    def credentials(self) -> grpc.ServerCredentials | None:
        """What the port is opened with; None for no TLS. gRPC takes TLS 1.2 and 1.3."""
        if self.pair is None:
            return None
        return grpc.ssl_server_credentials(
            [(self.pair.key, self.pair.certificate)], self.authorities, self.authorities is not None
        )

    def words(self, host: str) -> str:
        """What a person who starts the coordinator there should know, in brackets; "" on loopback without TLS."""
        exposed = self.callers is Callers.UNKNOWN and not is_loopback(host)
        if self.pair is None and not exposed:
            return ""
        tls = f"TLS until {self.pair.ends:%Y-%m-%d}" if self.pair else "no TLS"
        if self.callers is not Callers.UNKNOWN:
            return f" ({tls}; callers are known by their {self.callers})"
        return f" ({tls}; {'OPEN to whoever reaches that address' if exposed else 'open to this machine'})"

    def check(self, host: str, port: int) -> None:
        """Raises where strangers could reach the coordinator and nobody has said that they may.

        Blocks while a name is looked up.

        Args:
            host: Where it is to listen.
            port: The same.

        Raises:
            PreconditionError: They could.
        """
        if self.insecure or self.callers is not Callers.UNKNOWN or is_loopback(host):
            return
        fault = "without TLS" if self.pair is None else "with TLS but without knowing who calls"
        raise PreconditionError(
            f"The coordinator would listen on {host}:{port} {fault}, open to whoever reaches that address: give "
            "--tls-cert, --tls-key and --tls-ca, which `fedstep pki init` makes, or say --insecure to have it so."
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address, as far as it can be told; a name counts by all it stands for."""
    if host.startswith("unix:"):
        return True
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
        return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)
    except (OSError, ValueError):
        return False


def read_protection(
    certificate: Path | None,
    key: Path | None,
    ca: Path | None,
    client_tokens: Path | None,
    operator_tokens: Path | None,
    insecure: bool,
) -> Protection:
    """What the coordinator's options say.

    Args:
        certificate: `--tls-cert`.
        key: `--tls-key`.
        ca: `--tls-ca`.
        client_tokens: `--client-token-file`.
        operator_tokens: `--operator-token-file`.
        insecure: `--insecure`.

    Raises:
        InvalidInputError: They do not go together, or a file cannot be used.
    """
    check_both(certificate, key)
    if certificate is None and ca is not None:
        raise InvalidInputError("--tls-ca is given without --tls-cert: give the coordinator's certificate and key too.")
    if (client_tokens is None) != (operator_tokens is None):
        missing = "--operator-token-file" if operator_tokens is None else "--client-token-file"
        raise InvalidInputError(
            f"There is no {missing}: whoever takes tokens takes them of both roles, make it with `fedstep pki token`."
        )
    tokens = None
    if client_tokens and operator_tokens:
        if certificate is None:
            raise InvalidInputError(
                "--client-token-file is given without --tls-cert: a token is taken over TLS only, where nobody on the "
                "way reads it."
            )
        if ca is not None:
            raise InvalidInputError(
                "--tls-ca and --client-token-file are both given: a coordinator knows its callers by certificates or "
                "by tokens, leave one out."
            )
        by_role = {Role.CLIENT: read_tokens(client_tokens), Role.OPERATOR: read_tokens(operator_tokens)}
        if set(by_role[Role.CLIENT]) & set(by_role[Role.OPERATOR]):
            raise InvalidInputError(
                f"{client_tokens} and {operator_tokens} hold the same token: every client would be an operator, "
                "make another one with `fedstep pki token`."
            )
        tokens = Tokens(by_role)
    return Protection(
        pair=read_pair(certificate, key) if certificate and key else None,
        authorities=read_authorities(ca) if ca else None,
        tokens=tokens,
        insecure=insecure,
    )
