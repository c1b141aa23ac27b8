"""The report of a study that the coordinator itself writes at its end."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from fedstep.server.coordination.costs import cost_so_far
from fedstep.server.coordination.parts import Parts
from fedstep.server.coordination.reading import events_of
from fedstep.server.report.page.story import Holding, Story, ToldCost
from fedstep.server.report.participation import Share, participation_text
from fedstep.server.storage.base import StudyRecord, TrialRecord


async def report_of(
    study: StudyRecord,
    trials: Sequence[TrialRecord],
    delivered: int,
    shares: Sequence[Share],
    parts: Parts,
    folder: Path,
) -> Path:
    """Writes it.

    Args:
        study: As it ends, with its result.
        trials: All of its trials.
        delivered: The one that it ends with.
        shares: Every client's part.
        parts: The coordinator's.
        folder: Where to.

    Returns:
        Where the page is.

    Raises:
        OSError: A file cannot be written.
    """
    events = [event async for some in events_of(study.spec.name, parts) for event in some]
    took_part = {share.client for share in shares}
    holdings = [
        Holding(record.name, record.train_samples, record.validation_samples)
        for record in parts.fleet.records()
        if record.name in took_part
    ]
    cost = ToldCost.of(await cost_so_far(study, delivered, parts))
    told = replace(study, updated_at=events[-1].time) if events else study
    written_at = datetime.now(UTC)
    story = Story(told, trials, events, participation_text(shares), shares, holdings, cost, written_at, parts.simulated)
    return await parts.executors.drawing.run(_write, folder, story)


def _write(folder: Path, story: Story) -> Path:
    from fedstep.server.report.page.page import write_report  # matplotlib takes a second to load: not before it is used

    return write_report(folder, story)
