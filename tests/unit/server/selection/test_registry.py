import pytest

from fedstep.common.errors import InvalidInputError
from fedstep.common.spec import Plugin
from fedstep.server.selection.everyone import Everyone
from fedstep.server.selection.registry import create_selector, validate_selector
from fedstep.server.selection.uniform import Uniform


@pytest.mark.parametrize(("name", "kind"), [("all", Everyone), ("random", Uniform)])
def test_every_built_in_name_makes_its_selector(name: str, kind: type) -> None:
    validate_selector(Plugin(name=name))
    assert type(create_selector(Plugin(name=name))) is kind


def test_a_misspelt_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidInputError, match=r'selector\.name: is "randon": did you mean `random`\?') as caught:
        create_selector(Plugin(name="randon"))
    assert [violation.field for violation in caught.value.violations] == ["selector.name"]


def test_an_option_it_does_not_take_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"selector\.share: random takes no options") as caught:
        validate_selector(Plugin.model_validate({"name": "random", "share": 0.5}))
    assert [violation.field for violation in caught.value.violations] == ["selector.share"]
