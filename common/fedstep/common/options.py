"""Options of a task as commands take them: KEY=VALUE."""

from collections.abc import Iterable

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


def task_options(pairs: Iterable[tuple[str, str]], data: str) -> dict[str, str]:
    """The options by name; the later one of a key stands, and `--data` last."""
    return dict(pairs) | ({"data": data} if data else {})
