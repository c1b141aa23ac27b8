"""`fedstep data`: what a task's data look like, split among clients."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import DownloadColumn, Progress

from fedstep.client.nist import ARCHIVES, HOME
from fedstep.common.errors import InvalidInputError
from fedstep.common.options import data_options
from fedstep.server.cli.show import json_option, print_table

if TYPE_CHECKING:
    from fedstep.simulation.holdings import Holdings

_MOST_ROWS = 40
_MOST_COLUMNS = 12
_LEVELS = "▁▂▃▄▅▆▇█"


@click.group()
def data() -> None:
    """See how data are split among clients, and get them."""


@data.command()
@click.argument("reference", metavar="TASK")
@click.option("--clients", default=10, show_default=True, type=click.IntRange(1, 100_000), help="In the federation.")
@data_options
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to draw it.  [default: data-TASK-CLIENTS.png; with --json nowhere]",
)
@json_option
def show(
    reference: str,
    clients: int,
    options: dict[str, str],
    picture: Path | None,
    as_json: bool,
) -> None:
    """Who has what: the samples of each client by class, as a table and as a picture.

    TASK is a built-in task, a .py file, or package.module. Each share is loaded as a client would load it that was
    started with --partition I/N and the same options.
    """
    from fedstep.common.tasks import load_task  # late: torch
    from fedstep.simulation.holdings import count_holdings

    task = load_task(reference)
    holdings = count_holdings(task, clients, options)
    if picture is None and not as_json:
        picture = Path(f"data-{task.name}-{clients}.png")
    if picture is not None:
        _draw(picture, task.name, options, holdings)
    if as_json:
        print(json.dumps(_as_json(task.name, holdings)))
        return
    print(f"{task.name}, {clients} client{'s' if clients > 1 else ''}: {holdings.summary()}\n")
    print_table(_headings(holdings), _rows(holdings), "")
    if clients > _MOST_ROWS:
        print(f"… and {clients - _MOST_ROWS} more: they are in the picture, and in --json.")
    print(f"\npicture  {picture}")


@data.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--archive",
    "archives",
    type=click.Choice(list(ARCHIVES)),
    multiple=True,
    help="Which to get. May be repeated.  [default: both]",
)
@click.option("--mirror", default=HOME, show_default=True, metavar="URL", help="Where they are.")
def download(folder: Path, archives: tuple[str, ...], mirror: str) -> None:
    """Get the handwriting that FEMNIST is made of from NIST, into FOLDER.

    by_write says whose an image is, by_class what it is; LEAF's preprocess script needs both. Cut off, the same command
    goes on where it was. What has come is held against its checksum.
    """
    from fedstep.client.download import download as fetch

    for name in archives or tuple(ARCHIVES):
        archive = ARCHIVES[name]
        path = folder / archive.file
        with Progress(
            *Progress.get_default_columns(), DownloadColumn(), console=Console(stderr=True), transient=True
        ) as progress:
            row = progress.add_task(archive.file, total=None)
            fetch(
                f"{mirror.rstrip('/')}/{archive.file}",
                path,
                archive.md5,
                lambda there, total, row=row: progress.update(row, completed=there, total=total or None),  # type: ignore[misc]
            )
        print(f"{path} is whole.")
    print("Unpack them in LEAF's data/femnist/data/raw_data and run its preprocess.sh; then: --data data/femnist/data.")


def _draw(picture: Path, name: str, options: Mapping[str, str], holdings: "Holdings") -> None:
    from fedstep.simulation.holdings_picture import draw_holdings

    said = ", ".join(f"{key} = {value}" for key, value in options.items() if key not in ("data", "cache"))
    try:
        draw_holdings(picture, name, said, holdings)
    except OSError as error:
        raise InvalidInputError(
            f"{picture} cannot be written ({error.strerror or error}): give another file with --picture FILE."
        ) from error


def _headings(holdings: "Holdings") -> list[str]:
    few = len(holdings.classes) <= _MOST_COLUMNS
    labels = [str(label) for label in holdings.classes]
    return ["client", "samples", "classes", *(labels if few else [f"of class {labels[0]} to {labels[-1]}"])]


def _rows(holdings: "Holdings") -> Iterator[list[str]]:
    """A row a client: its counts where there are few classes, else bars, the highest for what anybody has most of."""
    most = int(holdings.counts.max())
    for name, counts in zip(holdings.clients[:_MOST_ROWS], holdings.counts.tolist(), strict=False):
        if len(counts) <= _MOST_COLUMNS:
            shown = [str(count) if count else "·" for count in counts]
        else:
            shown = ["".join(_LEVELS[(len(_LEVELS) - 1) * count // most] if count else " " for count in counts)]
        yield [name, str(sum(counts)), str(sum(count > 0 for count in counts)), *shown]


def _as_json(name: str, holdings: "Holdings") -> dict[str, object]:
    rows = zip(holdings.clients, holdings.counts.tolist(), holdings.validation.tolist(), strict=True)
    return {
        "task": name,
        "classes": list(holdings.classes),
        "clients": [
            {"partition": client, "samples": sum(counts), "validation": validation, "counts": counts}
            for client, counts, validation in rows
        ],
    }
