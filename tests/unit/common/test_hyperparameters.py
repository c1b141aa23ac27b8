import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedstep.common.hyperparameters import Value, describe, from_proto, map_from_proto, map_to_proto, to_proto
from fedstep.v1 import hyperparameters_pb2 as pb

values = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
)


@given(values)
def test_a_value_keeps_its_type_over_the_wire(value: Value) -> None:
    message = pb.HyperparameterValue.FromString(to_proto(value).SerializeToString())
    again = from_proto(message)
    assert again == value
    assert type(again) is type(value)


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), values, max_size=5))
def test_values_by_name_come_back_by_name(given: dict[str, Value]) -> None:
    again = map_from_proto(map_to_proto(given))
    assert again == given
    assert {name: type(value) for name, value in again.items()} == {n: type(v) for n, v in given.items()}


@pytest.mark.parametrize("value", [False, 0, 0.0, ""])
def test_a_value_that_is_protobufs_default_is_still_there(value: Value) -> None:
    assert to_proto(value).WhichOneof("kind") is not None
    assert type(from_proto(to_proto(value))) is type(value)


def test_a_message_without_a_value_is_refused() -> None:
    with pytest.raises(ValueError, match="without a value"):
        from_proto(pb.HyperparameterValue())


def test_people_read_values_in_one_line_and_numbers_to_four_digits() -> None:
    assert describe({"lr": 0.005654321, "batch_size": 10, "optimizer": "sgd"}) == (
        "lr 0.005654, batch_size 10, optimizer sgd"
    )
    assert describe({}) == ""
