"""`fedstep compare`: tuners side by side, on the same simulated federation, at the same price."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedstep.common.errors import InvalidInputError
from fedstep.common.options import data_options
from fedstep.common.phrases import whole_number_of
from fedstep.common.study_file import read_study
from fedstep.common.validation import show
from fedstep.server.cli.show import json_option
from fedstep.simulation.cli_types import Finite, hardship_options, spread_option

if TYPE_CHECKING:
    from fedstep.simulation.hardship import Hardship


class _Numbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers from 1 with commas between them, ascending and each once."""

    name = "N,N,…"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The numbers of a text."""
        numbers = [whole_number_of(part.strip()) for part in str(value).split(",")]
        if not all(numbers):
            self.fail(f"{str(value)[:40]} is no list of whole numbers from 1: write them as 60,180,600.", param, ctx)
        return tuple(sorted({number for number in numbers if number}))


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--tuners", required=True, metavar="A,B,…", help="The others are compared to the first.")
@click.option("--selectors", metavar="A,B,…", help="Each tuner with each of these.  [default: the study's own]")
@click.option("--seeds", default=10, show_default=True, type=click.IntRange(1), help="How many, from the study's on.")
@click.option("--budget", "--budgets", "budgets", required=True, type=_Numbers(), help="Rounds, all tuning included.")
@click.option("--trial-rounds", default=60, show_default=True, type=click.IntRange(1), help="Rounds of a full trial.")
@click.option("--at", type=_Numbers(), help="Read the curves after so many rounds, too.")
@click.option("--target", type=Finite(), help="What counts as reached.  [default: 95 % of the best anyone reaches]")
@click.option("--retrain", is_flag=True, help="Train what was found again from scratch, with another seed.")
@click.option("--clients", default=100, show_default=True, type=click.IntRange(1), help="Of the federation.")
@click.option("--task", "task", default="", metavar="FILE|MODULE", help="A task of your own that the study names.")
@data_options
@spread_option
@hardship_options
@click.option("--sequential", is_flag=True, help="Clients train one after the other, as on a network bit for bit.")
@click.option("--jobs", type=click.IntRange(1, 256), help="Processes, one study each.  [default: one a core]")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keeps every outcome; what is there is not run again.  [default: fedstep-runs/compare-STUDY]",
)
@click.option("--markdown", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write the table there, too.")
@click.option("--log-x", is_flag=True, help="Draw the curves over a logarithmic axis.")
@json_option
def compare(
    file: Path,
    tuners: str,
    selectors: str | None,
    seeds: int,
    budgets: tuple[int, ...],
    trial_rounds: int,
    at: tuple[int, ...] | None,
    target: float | None,
    retrain: bool,
    clients: int,
    task: str,
    options: dict[str, str],
    speed_spread: float,
    hardship: "Hardship",
    sequential: bool,
    jobs: int | None,
    out: Path | None,
    page: Path | None,
    log_x: bool,
    as_json: bool,
) -> None:
    """Compare tuners on the study of a file: the same federation, seeds and budget for each.

    The file's own tuner and budget are not used.

    \b
    A tuner is written as NAME[:OPTION=VALUE…], as in
        stepwise   stepwise:use_forks=false   random   fixed   fixed:cosine=true
        optuna:TPESampler:n_startup_trials=4   optuna:TPESampler+HyperbandPruner
        "optuna:TPESampler:enqueue=[{}]"   ray:OptunaSearch+AsyncHyperBandScheduler
    and so is a selector, in --selectors random,deadline,oort:penalty=1.
    """
    # Late, as in other commands: torch and matplotlib take seconds to import, and `fedstep --help` needs neither.
    from fedstep.simulation.bench import Setting
    from fedstep.simulation.compare import Comparison
    from fedstep.simulation.compare_show import Report, carry_on
    from fedstep.simulation.tuners import read_contenders, with_selectors

    most = max(budgets)
    if late := [rounds for rounds in at or () if rounds > most]:
        named = f"--at has {show(late[0])}, which is after the {show(most)} rounds of --budget"
        raise InvalidInputError(f"{named}: read the curves at {show(most)} rounds at most.")
    study = read_study(file)
    setting = Setting(
        task=task or study.task,
        clients=clients,
        options=options,
        speed_spread=speed_spread,
        vectorised=not sequential,
        hardship=hardship,
    )
    contenders = read_contenders(tuners)
    if "tuner" in study.model_fields_set and study.tuner not in [contender.plugin for contender in contenders]:
        unused = f"The [tuner] of {file}, {study.tuner.name}, is none of those of --tuners: it is not used."
        click.echo(unused, err=True)
    comparison = Comparison(
        study=study,
        contenders=contenders if selectors is None else with_selectors(contenders, selectors),
        seeds=range(study.seed, study.seed + seeds),
        budgets=budgets,
        trial_rounds=trial_rounds,
        retrain=retrain,
        setting=setting,
    )
    folder = out or Path("fedstep-runs") / f"compare-{study.name}"
    carry_on(comparison, Report(folder, page, target, at or (), log_x), jobs, as_json)
