"""`fedstep pki`: certificates and tokens, as files to copy where they are used."""

import secrets
import sys
from datetime import timedelta
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

from fedstep.common.errors import InvalidInputError
from fedstep.common.identity import Identity, Role
from fedstep.server.cli.show import json_option, print_json

if TYPE_CHECKING:
    from fedstep.server.authority import Made

_dir_option = click.option(
    "--dir",
    "folder",
    default="fedstep-pki",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Holds the CA.",
)
_days_option = click.option(
    "--days", default=365, show_default=True, type=click.IntRange(1, 3650), help="How long the certificate is valid."
)
_hosts_argument = click.argument("hosts", nargs=-1, required=True, metavar="HOST...")


@click.group()
def pki() -> None:
    """Make the certificates by which a coordinator and its callers know each other."""


@pki.command()
@_hosts_argument
@_dir_option
@_days_option
@click.option(
    "--ca-days", default=3650, show_default=True, type=click.IntRange(1, 7300), help="How long the CA is valid."
)
@json_option
def init(hosts: tuple[str, ...], folder: Path, days: int, ca_days: int, as_json: bool) -> None:
    """Make a CA, and a coordinator's certificate.

    HOST is what callers dial: a name or an IP address of the coordinator's machine. Nothing is ever overwritten.
    """
    from fedstep.server.authority import COORDINATOR_NAME, make_authority, make_coordinator

    if days > ca_days:
        raise InvalidInputError(f"--days {days} is more than --ca-days {ca_days}: no certificate outlives its CA.")
    ca = make_authority(folder, timedelta(days=ca_days))
    made = make_coordinator(folder, hosts, COORDINATOR_NAME, timedelta(days=days))
    if as_json:
        _print_made("ca", ca)
        _print_made("coordinator", made)
        return
    start = f"fedstep coordinator --host 0.0.0.0 --tls-cert {made.certificate.name} --tls-key {made.key.name}"
    print(
        f"{ca.key}  signs certificates: keep it here and copy it nowhere\n"
        f"{ca.certificate}  to the coordinator, to every client and to every operator\n"
        f"{made.certificate}, {made.key}  to the coordinator's machine\n\n"
        f"There: {start} --tls-ca {ca.certificate.name}\n"
        f"Here, for every client: fedstep pki enroll NAME --role client{_dir_words(folder)}\n"
        f"and for every operator: fedstep pki enroll NAME --role operator{_dir_words(folder)}"
    )


@pki.command()
@_hosts_argument
@click.option("--name", default="coordinator", show_default=True, help="Of the files: NAME.crt and NAME.key.")
@_dir_option
@_days_option
@json_option
def coordinator(hosts: tuple[str, ...], name: str, folder: Path, days: int, as_json: bool) -> None:
    """Make another certificate for a coordinator: the last one ends, or its HOSTs have changed."""
    from fedstep.server.authority import make_coordinator

    if name != Path(name).name:
        raise InvalidInputError(f"--name {name} is a path: give the name of a file, the folder goes with --dir.")
    made = make_coordinator(folder, hosts, name, timedelta(days=days))
    if as_json:
        _print_made("coordinator", made)
        return
    print(f"{made.certificate}, {made.key}  to the coordinator's machine, which is then started again with them")


@pki.command()
@click.argument("name")
@click.option(
    "--role",
    required=True,
    type=click.Choice([str(role) for role in Role]),
    help="A client trains; an operator runs studies and looks at the fleet.",
)
@_dir_option
@_days_option
@json_option
def enroll(name: str, role: str, folder: Path, days: int, as_json: bool) -> None:
    """Make the certificate of a client or an operator.

    NAME is what a client is called in the fleet (`fedstep client --name`): with this certificate it can be no other.
    """
    from fedstep.server.authority import CA_NAME, enroll

    made = enroll(folder, Identity(Role(role), name), timedelta(days=days))
    if as_json:
        _print_made(role, made)
        return
    authority = f"{CA_NAME}.crt"
    command = "fedstep client --task TASK" if role == Role.CLIENT else "fedstep study list"
    files = f"--tls-ca {authority} --tls-cert {quote(made.certificate.name)} --tls-key {quote(made.key.name)}"
    print(
        f"{made.certificate}, {made.key} and {folder / authority}  to the machine of {role} {name}\n\n"
        f"There: {command} --coordinator HOST:PORT {files}\n"
        "or once: export FEDSTEP_TLS_CA=… FEDSTEP_TLS_CERT=… FEDSTEP_TLS_KEY=…"
    )


@pki.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def token(file: Path) -> None:
    """Write a new token into FILE, for a coordinator that is to know its callers by tokens."""
    from fedstep.server.authority import write_secret

    write_secret(file, secrets.token_urlsafe(32).encode() + b"\n")
    print(f"{file}  to the coordinator and to whoever is to have its role; it is shown nowhere", file=sys.stderr)


def _print_made(what: str, made: "Made") -> None:
    print_json({"made": what, "certificate": str(made.certificate), "key": str(made.key)})


def _dir_words(folder: Path) -> str:
    return "" if folder == Path("fedstep-pki") else f" --dir {quote(str(folder))}"
