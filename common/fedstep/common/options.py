"""Options of a task as commands take them: KEY=VALUE."""

from collections.abc import Sequence

import click

from fedstep.common.errors import InvalidInputError


class PairType(click.ParamType[tuple[str, str]]):
    """`KEY=VALUE`, as a pair."""

    name = "KEY=VALUE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Reads it."""
        key, equals, rest = str(value).partition("=")
        if not (key and equals):
            self.fail(f"{value} is not an option of a task: give KEY=VALUE, such as writers=40.", param, ctx)
        return key, rest


def options_of(pairs: Sequence[str]) -> dict[str, str]:
    """The options by name.

    Args:
        pairs: Each `KEY=VALUE`; the later one of a key stands.

    Raises:
        InvalidInputError: One is not of that form.
    """
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidInputError(f"--option {pair}: write it as KEY=VALUE, such as data=digits.npz.")
        options[key] = value
    return options
