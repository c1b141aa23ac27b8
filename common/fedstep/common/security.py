"""How a caller makes sure of its coordinator, and shows it who calls."""

from dataclasses import dataclass, field
from pathlib import Path

import grpc

from fedstep.common.errors import InvalidInputError
from fedstep.common.tls import Pair, check_both, check_token, read_authorities, read_pair, read_tokens


@dataclass(frozen=True)
class Security:
    """What a caller goes by. As it stands, plain text: for this machine, and for what another program protects.

    Attributes:
        authorities: The CAs that may have signed the coordinator's certificate, as PEM; None for no TLS.
        pair: The caller's certificate and key.
        token: Shown in place of a certificate, over TLS only.
    """

    authorities: bytes | None = None
    pair: Pair | None = None
    token: str | None = field(default=None, repr=False)

    def credentials(self) -> grpc.ChannelCredentials | None:
        """What a channel is opened with; None for no TLS."""
        if self.authorities is None:
            return None
        pair = self.pair
        tls = grpc.ssl_channel_credentials(
            self.authorities, pair.key if pair else None, pair.certificate if pair else None
        )
        if self.token is None:
            return tls
        # gRPC itself sends these over TLS only.
        return grpc.composite_channel_credentials(tls, grpc.access_token_call_credentials(self.token))


PLAIN = Security()
"""No TLS, and nothing shown."""


def read_security(
    ca: Path | None, certificate: Path | None, key: Path | None, token_file: Path | None, token: str | None
) -> Security:
    """What the options of a command say.

    Args:
        ca: `--tls-ca`.
        certificate: `--tls-cert`.
        key: `--tls-key`.
        token_file: `--token-file`.
        token: FEDSTEP_TOKEN; a file takes its place.

    Raises:
        InvalidInputError: They do not go together, or a file cannot be used.
    """
    check_both(certificate, key)
    if ca is None:
        if certificate is not None:
            raise InvalidInputError(
                "--tls-cert is given without --tls-ca: give the CA's ca.crt, which says whom to trust."
            )
        if token_file is not None or token:
            raise InvalidInputError(
                "A token is sent over TLS only, where nobody on the way reads it: give --tls-ca FILE too, "
                "or neither --token-file nor FEDSTEP_TOKEN."
            )
        return PLAIN
    if token_file is not None:
        tokens = read_tokens(token_file)
        if len(tokens) != 1:
            raise InvalidInputError(
                f"{token_file} holds {len(tokens)} tokens: a caller shows one, leave one in the file."
            )
        token = tokens[0]
    elif token:
        check_token(token, "FEDSTEP_TOKEN")
    pair = read_pair(certificate, key) if certificate and key else None
    return Security(read_authorities(ca), pair, token or None)
