"""`fedstep study new`: a study file to begin with."""

from importlib.resources import files
from pathlib import Path

from fedstep.common.errors import InvalidInputError
from fedstep.common.study_file import parse_study


def write_new(path: Path, name: str, task: str) -> None:
    """Writes a study file with a remark on every line.

    Args:
        path: Where; no file is there yet.
        name: The study's.
        task: The name of its task.

    Raises:
        InvalidInputError: A file is there, none can be written there, or there can be no study of that name.
    """
    text = files("fedstep.server.cli").joinpath("new.toml").read_text()
    for key, value in (("file", str(path)), ("name", name), ("task", task)):
        text = text.replace(f"{{{key}}}", value)
    parse_study(text, path)
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        raise InvalidInputError(f"{path} is there already: give another name, or remove it.") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidInputError(f"{path} cannot be written ({reason}): give a place where you may write.") from None
