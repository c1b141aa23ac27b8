"""What a study file may say of buffered rounds."""

from typing import Any

import pytest
from pydantic import ValidationError

from fedstep.common.spec import StudySpec
from fedstep.common.spec_proto import spec_from_proto, spec_to_proto
from fedstep.common.validation import violations_of


def study(policy: dict[str, Any], **changes: Any) -> StudySpec:
    base = {"name": "s", "task": "t", "space": {"lr": {"low": 0.1, "high": 1.0}}}
    return StudySpec.model_validate({**base, "round": policy, **changes})


def test_a_study_that_names_no_selector_gets_one_for_buffered_rounds() -> None:
    assert study({"mode": "buffered", "cohort_size": 4}).selector.name == "random"
    assert study({"cohort_size": 4}).selector.name == "deadline"
    named = study({"mode": "buffered", "cohort_size": 4}, selector={"name": "power_of_choice"})
    assert named.selector.name == "power_of_choice"


@pytest.mark.parametrize(
    ("policy", "changes", "field", "words"),
    [
        ({"buffer_size": 4}, {}, "round.buffer_size", 'write mode = "buffered"'),
        ({"max_staleness": 4}, {}, "round.max_staleness", "only buffered rounds have it"),
        ({"mode": "buffered"}, {}, "round.buffer_size", "say how many updates end a buffered round"),
        ({"mode": "buffered", "cohort_size": 4, "late_updates": "drop"}, {}, "round.late_updates", "max_staleness"),
        ({"mode": "bufered"}, {}, "round.mode", "did you mean `buffered`?"),
        *(
            ({"mode": "buffered", "cohort_size": 4}, {"selector": {"name": name}}, "selector.name", 'use "random"')
            for name in ("deadline", "oort", "all")
        ),
        *(
            ({"mode": "buffered", "cohort_size": 4}, {"tuner": {"name": name}}, "tuner.name", "use another tuner")
            for name in ("fedex", "population")
        ),
    ],
)
def test_what_cannot_be_together_is_refused_in_a_sentence(
    policy: dict[str, Any], changes: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        study(policy, **changes)
    (violation,) = violations_of(caught.value, StudySpec)
    assert violation.field == field
    assert words in violation.description


def test_it_survives_the_wire() -> None:
    spec = study({"mode": "buffered", "buffer_size": 3, "max_staleness": 7}, parallel_trials=2)
    assert spec_from_proto(spec_to_proto(spec)) == spec


def test_a_tuned_cohort_is_a_buffer_too() -> None:
    space = {"cohort_size": {"low": 2, "high": 8}}
    assert study({"mode": "buffered"}, space=space).round.buffer_size == 0
