import pytest
import torch

from fedstep.common.errors import InvalidInputError
from fedstep.common.spec import Plugin
from fedstep.server.aggregation.mean import FedNova, WeightedMean
from fedstep.server.aggregation.registry import create_aggregator, create_server_optimizer, validate_aggregator
from fedstep.server.aggregation.server_optimizers import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi


@pytest.mark.parametrize(
    ("name", "mean", "kind"),
    [
        ("fedavg", WeightedMean, FedAvg),
        ("fedavgm", WeightedMean, FedAvgM),
        ("fedadam", WeightedMean, FedAdam),
        ("fedyogi", WeightedMean, FedYogi),
        ("fedadagrad", WeightedMean, FedAdagrad),
        ("fednova", FedNova, FedAvg),
    ],
)
def test_every_built_in_name_makes_its_parts(name: str, mean: type, kind: type) -> None:
    spec = Plugin(name=name)
    validate_aggregator(spec)
    aggregator = create_aggregator(spec, 3)
    assert type(aggregator) is mean
    aggregator.add(torch.ones(3), 1.0)
    assert aggregator.finish().tolist() == [1.0, 1.0, 1.0]
    assert type(create_server_optimizer(spec)) is kind


def test_a_misspelt_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidInputError, match=r'aggregator\.name: is "fedadma": did you mean `fedadam`\?') as caught:
        validate_aggregator(Plugin(name="fedadma"))
    assert [violation.field for violation in caught.value.violations] == ["aggregator.name"]
    for create in (
        lambda: create_aggregator(Plugin(name="fedadma"), 3),
        lambda: create_server_optimizer(Plugin(name="x")),
    ):
        with pytest.raises(InvalidInputError):
            create()


def test_a_name_like_no_other_is_refused_with_all() -> None:
    with pytest.raises(
        InvalidInputError, match=r"known are `fedavg`, `fedavgm`, `fedadam`, `fedyogi`, `fedadagrad`, `fednova`"
    ):
        validate_aggregator(Plugin(name="zzz"))


def test_a_hyperparameter_given_as_an_option_is_sent_to_its_table() -> None:
    spec = Plugin.model_validate({"name": "fedadam", "server_lr": 0.1, "colour": "red"})
    with pytest.raises(InvalidInputError) as caught:
        validate_aggregator(spec)
    first, second = caught.value.violations
    assert first.field == "aggregator.server_lr"
    assert "[hyperparameters]" in first.description
    assert second.field == "aggregator.colour"
    assert "remove" in second.description
