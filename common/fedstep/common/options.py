"""Options of a task as commands take them: --data PATH and --option KEY=VALUE."""

import functools
from collections.abc import Callable
from typing import Any

import click


class PairType(click.ParamType[tuple[str, str]]):
    """`KEY=VALUE`, as a pair."""

    name = "KEY=VALUE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Reads it."""
        key, equals, rest = str(value).partition("=")
        if not (key and equals):
            self.fail(f"{value} is not an option of a task: give KEY=VALUE, such as writers=40.", param, ctx)
        return key, rest


def collecting_data(command: Callable[..., Any]) -> Callable[..., Any]:
    """For a command that has the two options: it gets `options` by name; the later one of a key stands, --data last."""

    @functools.wraps(command)
    def collected(*arguments: Any, data: str, options: tuple[tuple[str, str], ...], **others: Any) -> Any:
        return command(*arguments, options=dict(options) | ({"data": data} if data else {}), **others)

    return collected


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command `--data` and `--option`; it gets them as one mapping `options`."""
    command = collecting_data(command)
    command = click.option(
        "--option",
        "options",
        type=PairType(),
        multiple=True,
        envvar="FEDSTEP_OPTIONS",
        help="An option of the task. May be repeated.",
    )(command)
    return click.option(
        "--data",
        default="",
        envvar="FEDSTEP_DATA",
        metavar="PATH",
        help="Where the data is; short for --option data=PATH.",
    )(command)
