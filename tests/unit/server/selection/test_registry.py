import pytest

from fedstep.common.errors import InvalidInputError
from fedstep.common.spec import Plugin
from fedstep.server.selection.deadline import DeadlineSelector
from fedstep.server.selection.everyone import Everyone
from fedstep.server.selection.oort import OortSelector
from fedstep.server.selection.power_of_choice import PowerOfChoice
from fedstep.server.selection.registry import create_selector, validate_selector
from fedstep.server.selection.uniform import Uniform


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("deadline", DeadlineSelector),
        ("oort", OortSelector),
        ("power_of_choice", PowerOfChoice),
        ("random", Uniform),
        ("all", Everyone),
    ],
)
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


@pytest.mark.parametrize(
    ("table", "field", "words"),
    [
        ({"name": "deadline", "on_tme": 0.9}, "selector.on_tme", "did you mean `on_time`"),
        ({"name": "deadline", "on_time": 1.5}, "selector.on_time", "is 1.5"),
        ({"name": "oort", "pacer_rounds": 0}, "selector.pacer_rounds", "is 0"),
        ({"name": "power_of_choice", "choice": "2"}, "selector.choice", 'is "2"'),
    ],
)
def test_what_is_wrong_with_an_option_is_said_at_its_name(table: dict[str, object], field: str, words: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        validate_selector(Plugin.model_validate(table))
    assert [violation.field for violation in caught.value.violations] == [field]
    assert words in caught.value.message
