"""What a study is checked for before it is taken: all that is wrong is said at once."""

import pytest
from unit.simulation.kit import Clouds, study

from fedstep.common.errors import FieldViolation, InvalidInputError
from fedstep.server.coordination.checks import check_parts

WRONG = {
    "tuner": {"name": "optuna", "sampler": "TPESamplr"},
    "selector": {"name": "dedline"},
    "aggregator": {"name": "fedavgg"},
    "hyperparameters": {"widht": 4},
}


def test_a_mistake_in_every_part_is_named() -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_parts(study(**WRONG), Clouds())
    fields = [violation.field for violation in caught.value.violations]
    assert fields == ["hyperparameters.widht", "tuner.sampler", "selector.name", "aggregator.name"]


def test_a_missing_task_is_named_beside_the_rest() -> None:
    missing = FieldViolation("task", "there is no such task.")
    with pytest.raises(InvalidInputError) as caught:
        check_parts(study(**WRONG), None, [missing])
    fields = [violation.field for violation in caught.value.violations]
    assert fields == ["task", "tuner.sampler", "selector.name", "aggregator.name"]


def test_a_study_without_mistakes_is_taken() -> None:
    check_parts(study(), Clouds())
    check_parts(study(), None)
