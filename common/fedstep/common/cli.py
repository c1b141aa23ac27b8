"""`fedstep`: finds its commands, and says what went wrong in one sentence.

A command is an entry point of the group `fedstep.commands`, imported only when it is asked for: a device that only
trains has neither Optuna nor SQLAlchemy.
"""

import difflib
import json
import os
import re
import sys
from importlib.metadata import EntryPoint, entry_points

import click

from fedstep.common.version import VERSION

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


class _Commands(click.Group):
    """The installed commands by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, sorted."""
        return sorted(_found())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One command, imported now; None when there is none of that name."""
        entry = _found().get(cmd_name)
        if entry is None:
            return None
        try:
            command = entry.load()
        except ModuleNotFoundError as error:
            return _missing(cmd_name, error.name or "a package")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest name for a misspelt one."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise click.UsageError(error.message + hint, ctx) from None


def _found() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="fedstep.commands")}


def _with_address_hint(error: click.ClickException) -> click.ClickException:
    """The mistake, with the option's name where an address stands without it."""
    found = re.search(r"unexpected extra argument \((\S+:\d+)\)", error.message)
    if not (found and isinstance(error, click.UsageError) and error.ctx):
        return error
    if not any("--coordinator" in option.opts for option in error.ctx.command.params):
        return error
    return click.UsageError(f"{error.message}. Did you mean --coordinator {found[1]}?", error.ctx)


def _missing(name: str, package: str) -> click.Command:
    """Stands in for a command whose packages are not installed: says which to install."""
    extra = (
        "client"
        if name in ("client", "doctor")
        else "client,server"
        if name in ("compare", "data", "demo", "simulate")
        else "server"
    )
    text = f'`fedstep {name}` needs {package}, which is not installed: pip install "fedstep[{extra}]".'

    def fail(**_: object) -> None:
        raise click.ClickException(text)

    return click.Command(
        name,
        callback=fail,
        short_help=f'Not installed: pip install "fedstep[{extra}]".',
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        add_help_option=False,
    )


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(VERSION, prog_name="fedstep")
def fedstep() -> None:
    """Tune the hyper-parameters of a federated training while it trains.

    \b
    See it work:     fedstep demo
    By hand:         fedstep coordinator
                     fedstep client --coordinator HOST:PORT --task digits     (as many as wanted)
                     fedstep study run study.toml
    """


def main() -> None:
    """The program."""
    # Unasked, gRPC writes a line of OpenSSL's words at every handshake that fails; we say what is wrong. It reads this
    # when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from fedstep.common.errors import FedstepError

    as_json = "--json" in sys.argv
    try:
        code = fedstep.main(standalone_mode=False)
    except click.exceptions.Abort:
        code = EXIT_INTERRUPTED
    except click.ClickException as error:
        _with_address_hint(error).show()
        code = EXIT_ERROR
    except FedstepError as error:
        if as_json:
            print(json.dumps({"error": error.message, "code": error.code.name}))
        else:
            print(f"fedstep: {error.message}", file=sys.stderr)
        code = EXIT_ERROR
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        code = 0
    sys.exit(code if isinstance(code, int) else 0)
