"""Log lines say what they concern, in both formats."""

import asyncio
import io
import json
import logging

import pytest

from fedstep.common.logs import FORMATS, JsonLines, TextLines, concerning

FORMATTERS = {"json": JsonLines, "text": TextLines}


@pytest.fixture(params=FORMATS)
def written(request: pytest.FixtureRequest) -> tuple[str, logging.Logger, io.StringIO]:
    """A format, a logger of the test's own, and what it writes."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(FORMATTERS[request.param]())
    logger = logging.Logger("fedstep.test")
    logger.addHandler(handler)
    return request.param, logger, out


def concerns(format: str, line: str) -> dict[str, str]:
    if format == "json":
        fields = json.loads(line)
        return {name: str(fields[name]) for name in ("study", "trial", "round", "client") if name in fields}
    inside = line.rpartition("[")[2].rstrip("]\n") if line.rstrip().endswith("]") else ""
    return dict(pair.split("=") for pair in inside.split())


async def test_lines_concern_what_their_block_does_and_tasks_do_not_mix(
    written: tuple[str, logging.Logger, io.StringIO],
) -> None:
    format, logger, out = written

    async def work(trial: int) -> None:
        with concerning(trial=trial, round=0):
            await asyncio.sleep(0)
            logger.warning("trial %d", trial)

    logger.warning("trial none")
    with concerning(study="s"):
        await asyncio.gather(work(0), work(1))
        logger.warning("trial none", extra={"fields": {"client": "ann", "round": None}})
    found = [concerns(format, line) for line in out.getvalue().splitlines()]
    assert found == [
        {},
        {"study": "s", "trial": "0", "round": "0"},
        {"study": "s", "trial": "1", "round": "0"},
        {"study": "s", "client": "ann"},
    ]


def test_an_error_stands_on_one_line_of_json() -> None:
    out = io.StringIO()
    logger, handler = logging.Logger("fedstep.test"), logging.StreamHandler(out)
    handler.setFormatter(JsonLines())
    logger.addHandler(handler)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("it failed: %s", "ü")
    (line,) = out.getvalue().splitlines()
    told = json.loads(line)
    assert (told["level"], told["logger"], told["message"]) == ("error", "fedstep.test", "it failed: ü")
    assert told["exception"].endswith("ValueError: two\nlines")
