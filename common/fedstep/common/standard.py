"""The hyper-parameters that fedstep itself understands, in one table.

A task adds its own (`Task.defaults`). A study may tune or fix any of them; a name that
is in neither is refused, with the nearest that is.
"""

from dataclasses import dataclass
from enum import StrEnum

from fedstep.common.hyperparameters import Value


class Scope(StrEnum):
    """Who acts on a hyper-parameter."""

    CLIENT = "client"
    SERVER = "server"
    ROUND = "round"


@dataclass(frozen=True)
class StandardParameter:
    """A hyper-parameter that fedstep acts on.

    Attributes:
        scope: Who acts on it.
        default: Its value where a study says nothing.
        meaning: One line for the guide and `--help`.
        low: The least legal value, for numbers.
        high: The greatest legal value, for numbers; None for no bound.
        choices: The legal values, for strings.
    """

    scope: Scope
    default: Value
    meaning: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


STANDARD: dict[str, StandardParameter] = {
    "lr": StandardParameter(Scope.CLIENT, 0.05, "learning rate of local training", low=0.0),
    "momentum": StandardParameter(Scope.CLIENT, 0.0, "momentum of local SGD", low=0.0, high=1.0),
    "weight_decay": StandardParameter(Scope.CLIENT, 0.0, "L2 penalty of local training", low=0.0),
    "batch_size": StandardParameter(Scope.CLIENT, 16, "samples per local step", low=1),
    "local_epochs": StandardParameter(Scope.CLIENT, 1, "passes over the local training set per round", low=1),
    "optimizer": StandardParameter(Scope.CLIENT, "sgd", "local optimizer", choices=("sgd", "adam", "adamw")),
    "proximal_mu": StandardParameter(
        Scope.CLIENT, 0.0, "FedProx's pull towards the received model (Li et al. 2020)", low=0.0
    ),
    "gradient_clip": StandardParameter(Scope.CLIENT, 0.0, "largest gradient norm of a local step; 0 for none", low=0.0),
    "server_lr": StandardParameter(Scope.SERVER, 1.0, "step size of the server optimizer", low=0.0),
    "server_momentum": StandardParameter(
        Scope.SERVER, 0.9, "momentum of fedavgm; beta_1 of fedadam, fedyogi and fedadagrad", low=0.0, high=1.0
    ),
    "server_beta_2": StandardParameter(Scope.SERVER, 0.99, "beta_2 of fedadam and fedyogi", low=0.0, high=1.0),
    "server_tau": StandardParameter(
        Scope.SERVER, 1e-3, "adaptivity of fedadam, fedyogi and fedadagrad (Reddi et al. 2021)", low=1e-12
    ),
    "cohort_size": StandardParameter(Scope.ROUND, 0, "clients a round waits for; 0 for everybody", low=0),
    "deadline_s": StandardParameter(Scope.ROUND, 0.0, "seconds a round may take; 0 for the study's own", low=0.0),
}

DEFAULTS: dict[str, Value] = {name: parameter.default for name, parameter in STANDARD.items()}
"""Their values where neither a study nor its task says anything."""
