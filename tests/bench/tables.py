"""The tables of step-wise tuning in `docs/benchmarks.md`: what each compares, and how to make it again.

    python -m tests.bench tables cifar4k --data DIRECTORY

Each is one `fedstep compare`, which is printed, keeps every outcome under `fedstep-runs/tables` and goes on where it
was interrupted. Hours of two cores in all: without a name the tables are listed, and none is made.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_RUNS = Path("fedstep-runs/tables")
_STUDIES = Path("tests/bench/studies")
_EVALUATORS = "[evaluation]\ncohort_size = {}\n"
_MANY = 20
"""So many evaluation clients the study files have."""


@dataclass(frozen=True)
class Federation:
    """Who trains what.

    Attributes:
        study: Its study file in `tests/bench/studies`.
        clients: How many there are.
        data: The name of its file.
        lr: The learning rate of its default.
        task: Where the task is; empty for a built-in one.
    """

    study: str
    clients: int
    data: str
    lr: float
    task: str = ""


PERCEPTRON = Federation("real_writers.toml", 300, "mnist_by_writer.npz", 0.05, "tests/bench/writers_mlp.py")
CNN = Federation("mnist_writers.toml", 300, "mnist_by_writer.npz", 0.1)
CIFAR = Federation("cifar4k.toml", 100, "cifar10_lossless4k_py.tar.gz", 0.05, "tests/bench/cifar4k.py")


@dataclass(frozen=True)
class Table:
    """One comparison.

    Attributes:
        federation: On which.
        tuners: The others are compared to the first.
        budgets: In rounds.
        seeds: How many.
        evaluators: Clients that measure.
        retrain: Whether what was found is trained again from scratch as well.
    """

    federation: Federation
    tuners: tuple[str, ...]
    budgets: tuple[int, ...] = (180,)
    seeds: int = 10
    evaluators: int = _MANY
    retrain: bool = False

    def command(self, name: str, data: Path) -> list[str]:
        """Its `fedstep compare`. Where other clients measure than the study file says, a copy is written that says it.

        Raises:
            OSError: The copy cannot be written.
        """
        federation, study = self.federation, _STUDIES / self.federation.study
        if self.evaluators != _MANY:
            text, theirs = study.read_text(), _EVALUATORS.format(_MANY)
            assert theirs in text
            study = _RUNS / f"{name}.toml"
            study.parent.mkdir(parents=True, exist_ok=True)
            study.write_text(text.replace(theirs, _EVALUATORS.format(self.evaluators)))
        task = ["--task", federation.task] if federation.task else []
        return [
            *("fedstep", "compare", str(study), *task, "--clients", str(federation.clients)),
            *("--data", str(data / federation.data), "--tuners", ",".join(self.tuners)),
            *("--seeds", str(self.seeds), "--budgets", ",".join(map(str, self.budgets))),
            *("--out", str(_RUNS / name), *(["--retrain"] if self.retrain else [])),
        ]


_TPE = "optuna:TPESampler:n_startup_trials=4"
_HALVING, _HYPERBAND = f"{_TPE}+SuccessiveHalvingPruner", f"{_TPE}+HyperbandPruner"
_FROM_DEFAULT = f"{_TPE}:enqueue=[{{}}]"
_BY_TRIALS = (_HALVING, _HYPERBAND, _TPE, "random", "fedex", "population")
_RAY = (
    "ray:OptunaSearch+AsyncHyperBandScheduler",
    "ray:HyperOptSearch+AsyncHyperBandScheduler",
    "ray:BasicVariantGenerator+PopulationBasedTraining",
)
_RIVALS = ("stepwise", "fixed", *_BY_TRIALS)
_SCREENED = "constants={screen_from_rounds=30}"
_LAST = "stepwise:use_averaged_evidence=false"


def _started(rate: float) -> str:
    return f"stepwise:start={{lr={rate}}}"


def _throughout(rate: float) -> str:
    return f"fixed:hyperparameters={{lr={rate}}}"


def _without(*parts: str) -> tuple[str, ...]:
    return tuple(f"stepwise:use_{part}=false" for part in parts)


def _middle(federation: Federation) -> Table:
    return Table(federation, ("stepwise", *_without("middle"), "fixed"), (60, 180))


def _bad_starts(federation: Federation, seeds: int) -> Table:
    rates = federation.lr / 100, federation.lr * 10
    return Table(federation, ("stepwise", "fixed", *map(_started, rates), *map(_throughout, rates)), seeds=seeds)


def _feedback(federation: Federation, seeds: int) -> Table:
    periodic = (f"stepwise:constants={{leg_least={k},leg_most={k}}}" for k in (5, 20, 60))
    return Table(federation, ("stepwise", *periodic, *_kinds("stepwise"), "fixed"), seeds=seeds)


def _feedback_bad_start(federation: Federation) -> Table:
    rate = federation.lr / 100
    return Table(federation, (_started(rate), *_kinds(_started(rate)), _throughout(rate)))


def _kinds(stepwise: str) -> tuple[str, str]:
    """Global feedback only, which evaluation cohorts give, and local only, which clients' own steps give."""
    local = "".join(f":use_{part}=false" for part in ("forks", "rewind", "settle", "average", "averaged_evidence"))
    return f"{stepwise}:use_probe=false:use_hint=false", f"{stepwise}{local}"


def _few_forks(federation: Federation) -> Table:
    until_60, early = "fork_rounds_left=0", "forks_until=0.25"
    changed = (until_60, f"{until_60},fork_every=4", f"{until_60},{early}")
    limited = (f"stepwise:constants={{{constants}}}" for constants in changed)
    return Table(federation, ("stepwise", *limited, *_without("forks"), "fixed"), (60,))


def _screen(federation: Federation, seeds: int) -> Table:
    changed = ("screen_decides=0", "screen_from_rounds=100000")
    return Table(federation, ("stepwise", *(f"stepwise:constants={{{each}}}" for each in changed)), (600,), seeds)


def _pilot_screens() -> Table:
    """The pilot's rows with a screen: of five or six Sobol members and the default, or of six without it."""
    five, six = "stepwise:screen_members=6", "stepwise:screen_members=7"
    six_only, without, plain = f"{five}:screen_default=false", "use_forks=false", "use_settle=false:use_average=false"
    rows = (
        f"{five}:{without}:{plain}",
        f"{six_only}:{without}:{plain}",
        f"{six_only}:{without}",
        f"{six}:{without}",
        six,
        f"{five}:{plain}",
    )
    return Table(PERCEPTRON, tuple(f"{row}:{_SCREENED}" for row in rows), seeds=8)


TABLES: Mapping[str, Table] = {
    "perceptron": Table(
        PERCEPTRON,
        (
            *_RIVALS[:2],
            "fixed:cosine=true",
            *_BY_TRIALS,
            _FROM_DEFAULT,
            f"{_FROM_DEFAULT}+SuccessiveHalvingPruner",
            *_RAY,
        ),
        (60, 180),
    ),
    "pilot-screens": _pilot_screens(),
    "retrained": Table(PERCEPTRON, _RIVALS, retrain=True),
    "parts": Table(
        PERCEPTRON,
        (
            *("stepwise", *_without("forks", "averaged_evidence"), f"stepwise:{_SCREENED}", f"{_LAST}:{_SCREENED}"),
            *_without("average", "hint", "probe", "middle", "guard", "rewind", "settle"),
            *("stepwise:sampler=TPESampler", "stepwise:sampler=GPSampler"),
        ),
    ),
    "middle": _middle(PERCEPTRON),
    "middle-cnn": _middle(CNN),
    "middle-cifar4k": _middle(CIFAR),
    "bad-starts": _bad_starts(PERCEPTRON, 10),
    "bad-starts-cnn": _bad_starts(CNN, 5),
    "bad-starts-cifar4k": _bad_starts(CIFAR, 10),
    "small-budgets": Table(
        PERCEPTRON, ("stepwise:constants={fork_rounds_left=0}", *_without("forks"), "fixed"), (20, 30, 40)
    ),
    "settling": Table(PERCEPTRON, ("stepwise", *_without("settle")), (60, 180)),
    "feedback": _feedback(PERCEPTRON, 10),
    "feedback-bad-start": _feedback_bad_start(PERCEPTRON),
    "noise-3": Table(PERCEPTRON, _RIVALS, evaluators=3),
    "noise-9": Table(PERCEPTRON, _RIVALS, evaluators=9),
    "forks-60": _few_forks(PERCEPTRON),
    "forks-60-cnn": _few_forks(CNN),
    "forks-60-cifar4k": _few_forks(CIFAR),
    "screen": _screen(PERCEPTRON, 5),
    "screen-cnn": _screen(CNN, 3),
    "screen-cifar4k": _screen(CIFAR, 5),
    "cifar4k": Table(CIFAR, (*_RIVALS, *_RAY), (60, 180)),
    "cnn": Table(CNN, (*_RIVALS, *_RAY), (60, 180)),
    "perceptron-600": Table(PERCEPTRON, (*_RIVALS, *_RAY), (600,), seeds=5),
    "cifar4k-600": Table(CIFAR, _RIVALS, (600,), seeds=5),
    "cnn-600": Table(CNN, _RIVALS, (600,), seeds=3),
}


def main(arguments: list[str]) -> None:
    """Lists the tables, or makes one."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench tables", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("name", nargs="?", choices=TABLES, help="without one they are listed")
    parser.add_argument("--data", type=Path, default=Path("."), help="the directory that has its data")
    options = parser.parse_args(arguments)
    if options.name is None:
        print("\n".join(f"{name:20}{_describe(table)}" for name, table in TABLES.items()))
        return
    command = TABLES[options.name].command(options.name, options.data)
    print(shlex.join(command), flush=True)
    program = Path(sys.executable).with_name(command[0])
    sys.exit(subprocess.run([program, *command[1:]], check=False).returncode)


def _describe(table: Table) -> str:
    budgets = " and ".join(map(str, table.budgets))
    return f"{table.federation.study}: {len(table.tuners)} tuners, {table.seeds} seeds, {budgets} rounds"
