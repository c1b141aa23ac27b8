import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedstep.client.tasks.shares import client_data, named_share, validation_share
from fedstep.common.errors import InvalidInputError

labels_of = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(lambda values: np.array(values, dtype=np.int64))


@given(labels_of, st.text(max_size=10))
def test_a_named_share_has_no_repeats(labels: np.ndarray, name: str) -> None:
    share = named_share(labels, name, seed=1)
    assert len(set(share.tolist())) == len(share) == max(1, round(len(labels) / 8))


@given(st.integers(0, 200))
def test_validation_takes_a_part_and_leaves_a_part(count: int) -> None:
    data = client_data(torch.arange(count), torch.arange(count), seed=0, validation=0.15)
    train, validation = len(data.train), len(data.validation)  # type: ignore[arg-type]
    assert train + validation == count
    assert validation >= min(4, count // 2)
    assert train >= validation or count < 2


def test_without_validation_samples_a_client_measures_on_what_it_trains_with() -> None:
    data = client_data(torch.arange(9), torch.arange(9), seed=0, validation=validation_share({"validation": "0"}))
    assert [int(target) for _, target in data.train] == [int(target) for _, target in data.validation] == [*range(9)]


@pytest.mark.parametrize("text", ["1", "-0.1", "half", "nan", ""])
def test_a_part_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="from 0 to below 1"):
        validation_share({"validation": text})
