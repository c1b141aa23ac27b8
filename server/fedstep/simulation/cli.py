"""`fedstep simulate`: a study against clients in this process, on a virtual clock."""

import shlex
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedstep.common.errors import InvalidInputError, PreconditionError
from fedstep.common.options import data_options
from fedstep.server.cli.show import json_option
from fedstep.simulation.cli_types import hardship_options, spread_option

if TYPE_CHECKING:
    from fedstep.simulation.crew import Crew
    from fedstep.simulation.hardship import Hardship
    from fedstep.simulation.run import Federation


@click.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--clients", default=100, show_default=True, type=click.IntRange(1, 100_000), help="In the federation.")
@click.option("--task", "reference", default="", metavar="TASK", help="A .py file or package.module of your own.")
@data_options
@click.option("--seed", type=click.IntRange(0), help="Instead of the study's own.")
@click.option("--sequential", is_flag=True, help="Train clients one by one, bit for bit as on a network.")
@spread_option
@hardship_options
@click.option(
    "--engine",
    default="local",
    show_default=True,
    type=click.Choice(["local", "ray"]),
    help="Where clients train: in this process, or on an existing Ray cluster.",
)
@click.option("--ray-address", metavar="HOST:PORT", help="Of the cluster.  [default: $RAY_ADDRESS, or this machine's]")
@click.option("--ray-actors", type=click.IntRange(1), help="The clients' processes.  [default: one a CPU]")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Write the model, the picture and the report here."
)
@json_option
def simulate(
    file: str,
    clients: int,
    reference: str,
    options: dict[str, str],
    seed: int | None,
    sequential: bool,
    speed_spread: float,
    hardship: "Hardship",
    engine: str,
    ray_address: str | None,
    ray_actors: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Run the study that FILE describes with simulated clients: no coordinator, no network, no waiting.

    The engine, the tuner, the selector and the aggregator are those of a coordinator; time is virtual.
    """
    import torch

    from fedstep.common.study_file import locate, read_study
    from fedstep.common.tasks import load_task
    from fedstep.simulation.cli_show import Show, counting
    from fedstep.simulation.population import Population
    from fedstep.simulation.run import Federation, check_study
    from fedstep.simulation.run import simulate as run
    from fedstep.simulation.speed import SpeedModel

    if engine != "ray" and (ray_address or ray_actors):
        raise click.UsageError("--ray-address and --ray-actors are for --engine ray: give that, too.")
    spec = read_study(file)
    if seed is not None:
        spec = spec.model_copy(update={"seed": seed})
    task = load_task(reference or spec.task)
    federation = Federation(clients, options, SpeedModel(spread=speed_spread), not sequential, spec.seed, hardship)
    torch.set_num_threads(1)
    try:
        check_study(spec, task)
        ray = engine == "ray"
        crews = _ray_crew(reference or spec.task, federation, ray_address, ray_actors) if ray else nullcontext()
        with crews as crew:
            population = None
            if crew is None:
                with counting("clients' data loaded", clients, as_json) as tell:
                    population = Population(task, clients, options, tell=tell)
            with Show(spec, as_json) as show:
                found = run(
                    spec,
                    task,
                    federation,
                    population=population,
                    crew=crew,
                    on_event=show.event,
                    folder=out,
                    command=shlex.join(["fedstep", *sys.argv[1:]]),
                )
    except InvalidInputError as error:
        raise InvalidInputError(locate(file, error.violations) or error.message) from None
    sys.exit(show.result(found))


def _ray_crew(
    task: str, federation: "Federation", address: str | None, actors: int | None
) -> "AbstractContextManager[Crew]":
    """The clients' processes on a Ray cluster."""
    try:
        from fedstep.simulation.ray_cluster import AUTO
        from fedstep.simulation.ray_crew import ray_crew
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        raise PreconditionError("--engine ray needs Ray, which is not installed: pip install 'fedstep[ray]'.") from None
    return ray_crew(task, federation, address or AUTO, actors)
