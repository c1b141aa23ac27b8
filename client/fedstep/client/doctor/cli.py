"""The command `fedstep doctor`."""

import json
import shutil
import sys
import textwrap
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click
from rich.console import Console

from fedstep.client.cli import client, need_torch
from fedstep.client.doctor.checks import Finding, Status
from fedstep.common import loop
from fedstep.common.channel import Endpoint, check_address
from fedstep.common.errors import InvalidInputError
from fedstep.common.options import collecting_data
from fedstep.common.security import PLAIN, Security
from fedstep.common.security_options import unread_security_options

if TYPE_CHECKING:
    from fedstep.client.doctor.patient import Patient

_ITS_OWN = ("reference", "tls_ca", "tls_cert", "tls_key", "token_file")
_COLOURS = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "red", Status.SKIPPED: "bright_black"}
_TAKES = {
    "name": "10 s at most",
    "data": "as long as a client takes to load them",
    "throughput": "some seconds, 40 at most",
}
_NARROWEST, _WIDEST = 60, 120
EXIT_FAILED = 1


# What a client takes it takes too, word for word; what changes no check is passed over.
@click.command(params=[option for option in client.params if option.name not in _ITS_OWN])
@click.option("--task", "reference", metavar="TASK", help="What the client is to train: loads it and its data.")
@unread_security_options
@collecting_data
def doctor(
    coordinator: str,
    reference: str | None,
    name: str | None,
    partition: tuple[int, int] | None,
    options: dict[str, str],
    device: str | None,
    precision: str | None,
    threads: int | None,
    read: Callable[[], Security],
    as_json: bool,
    **_: object,
) -> None:
    """Find out why a client cannot connect or work: give it the client's own options.

    It asks and joins nothing: a study that is under way is not disturbed. Its exit status is 1 where a check failed.
    """
    check_address(coordinator)
    need_torch()
    from fedstep.client.doctor.examination import examine
    from fedstep.client.doctor.patient import Patient
    from fedstep.client.naming import default_name
    from fedstep.common.task import ClientInfo

    security, unusable = PLAIN, None
    try:
        security = read()
    except InvalidInputError as error:
        unusable = error
    enrolled = security.pair.identity if security.pair else None
    with ExitStack() as held:
        named = name or (enrolled and enrolled.name) or default_name(partition, held)
    info = ClientInfo(named, partition, options)
    patient = Patient(Endpoint(coordinator, security), reference, info, device, precision, threads, unusable)
    console = Console()
    if as_json or not console.is_terminal:
        findings = loop.run(examine(patient, _print_json if as_json else _print))
    else:
        findings = loop.run(_before_their_eyes(patient, console))
    failed = [finding.check for finding in findings if finding.status is Status.FAILED]
    if as_json:
        print(json.dumps({"ok": not failed, "failed": failed}), flush=True)
    else:
        print(f"\n{_summary(failed, len(findings))}", flush=True)
    sys.exit(EXIT_FAILED if failed else 0)


async def _before_their_eyes(patient: "Patient", console: Console) -> list[Finding]:
    """Examines, and says on the terminal which check it is at."""
    from fedstep.client.doctor.examination import examine

    with console.status("") as status:

        def begins(check: str) -> None:
            status.update(f"{check}: {_TAKES.get(check, 'a few seconds')}")
            status.start()

        def found(finding: Finding) -> None:
            status.stop()
            _print(finding)

        return await examine(patient, found, begins)


def _print_json(finding: Finding) -> None:
    print(json.dumps({"check": finding.check, "status": finding.status, "text": finding.text}), flush=True)


def _print(finding: Finding) -> None:
    width = min(_WIDEST, max(_NARROWEST, shutil.get_terminal_size((_WIDEST, 24)).columns))
    label = f"{finding.status:<9}{finding.check:<12}"
    lines = textwrap.wrap(finding.text, width - len(label), break_long_words=False, break_on_hyphens=False)
    for number, line in enumerate(lines):
        start = click.style(label, fg=_COLOURS[finding.status]) if number == 0 else " " * len(label)
        click.echo(f"{start}{line}")
    sys.stdout.flush()


def _summary(failed: list[str], count: int) -> str:
    if not failed:
        return "Nothing is in a client's way."
    return f"{len(failed)} of {count} checks failed ({', '.join(failed)}): mend the first, then ask again."
