import io
import os
import pickle

import numpy as np
import pytest

from fedstep.client.safe_pickle import load_arrays


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_come_back_from_every_protocol(protocol: int) -> None:
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    found = load_arrays(io.BytesIO(pickle.dumps({"data": array, "labels": [1, 2], "of": "both"}, protocol)))
    assert isinstance(found, dict)
    assert np.array_equal(found["data"], array)
    assert (found["labels"], found["of"]) == ([1, 2], "both")


@pytest.mark.parametrize("harm", [os.system, eval, np.load, np.ndarray.tofile])
def test_whatever_else_is_named_is_refused(harm: object) -> None:
    with pytest.raises(pickle.UnpicklingError, match="it names"):
        load_arrays(io.BytesIO(pickle.dumps({"data": harm})))


def test_objects_cannot_be_built(tmp_path: object) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (f"{tmp_path}/made",))

    with pytest.raises(pickle.UnpicklingError, match=r"it names posix\.mkdir|it names nt\.mkdir"):
        load_arrays(io.BytesIO(pickle.dumps(Harm())))
    assert not os.path.exists(f"{tmp_path}/made")
