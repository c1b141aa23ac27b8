"""The built-in selectors by name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from fedstep.common.errors import FieldViolation, InvalidInputError
from fedstep.common.spec import Plugin
from fedstep.common.validation import one_of, sentences, show
from fedstep.server.selection.base import Selector
from fedstep.server.selection.everyone import Everyone
from fedstep.server.selection.uniform import Uniform

_BUILT_IN: Mapping[str, Callable[[], Selector]] = MappingProxyType({"all": Everyone, "random": Uniform})


def validate_selector(spec: Plugin) -> None:
    """Checks the name and the options of a study's selector.

    Raises:
        InvalidInputError: There is none of that name, or it does not take such an option; with the nearest name.
    """
    if spec.name not in _BUILT_IN:
        violations = [FieldViolation("selector.name", f"is {show(spec.name)}: {one_of(spec.name, _BUILT_IN)}")]
    else:
        violations = [
            FieldViolation(f"selector.{option}", f"{spec.name} takes no options: remove this line.")
            for option in spec.options
        ]
    if violations:
        raise InvalidInputError(sentences(violations), violations)


def create_selector(spec: Plugin) -> Selector:
    """The selector of a study.

    Raises:
        InvalidInputError: As `validate_selector`.
    """
    validate_selector(spec)
    return _BUILT_IN[spec.name]()
