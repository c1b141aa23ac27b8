"""The options that say how a command reaches its coordinator safely: the same for clients and operators."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fedstep.common.security import Security, read_security

TOKEN_VARIABLE = "FEDSTEP_TOKEN"
VARIABLES = ("FEDSTEP_TLS_CA", "FEDSTEP_TLS_CERT", "FEDSTEP_TLS_KEY", "FEDSTEP_TOKEN_FILE", TOKEN_VARIABLE)
"""What commands take from the environment: whoever starts them for another coordinator leaves these out."""

_FILE = click.Path(dir_okay=False, path_type=Path)


def security_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command `--tls-ca`, `--tls-cert`, `--tls-key` and `--token-file`; it gets them as one `security`."""

    @unread_security_options
    @functools.wraps(command)
    def with_security(read: Callable[[], Security], **others: Any) -> Any:
        return command(security=read(), **others)

    return with_security


def unread_security_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same options for a command that goes on where their files cannot be used; it gets what reads them as `read`.

    `read` raises as `read_security` does.
    """

    @click.option(
        "--tls-ca",
        type=_FILE,
        envvar="FEDSTEP_TLS_CA",
        help="Use TLS, and trust a coordinator whose certificate this CA has signed.",
    )
    @click.option("--tls-cert", type=_FILE, envvar="FEDSTEP_TLS_CERT", help="The certificate that says who calls.")
    @click.option("--tls-key", type=_FILE, envvar="FEDSTEP_TLS_KEY", help="Its private key.")
    @click.option(
        "--token-file",
        type=_FILE,
        envvar="FEDSTEP_TOKEN_FILE",
        help=f"In place of a certificate: the token in this file, or in {TOKEN_VARIABLE}.",
    )
    @functools.wraps(command)
    def with_security(
        tls_ca: Path | None, tls_cert: Path | None, tls_key: Path | None, token_file: Path | None, **others: Any
    ) -> Any:
        # Never an option itself: everybody on the machine reads command lines.
        token = os.environ.get(TOKEN_VARIABLE)
        return command(read=lambda: read_security(tls_ca, tls_cert, tls_key, token_file, token), **others)

    return with_security
