"""What a study cost."""

from collections.abc import Collection

from fedstep.server.report.page.blocks import Block, Picture, Section, Tiles
from fedstep.server.report.page.story import Story
from fedstep.server.report.page.units import duration_text


def cost_section(story: Story, charts: Collection[str]) -> Section:
    """Rounds, trainings and seconds.

    Args:
        story: The study.
        charts: Those that there are.
    """
    seconds = sum(told.seconds for told in story.rounds)
    asked = sum(share.asked for share in story.shares)
    tiles = [(f"{len(story.rounds):,}", "rounds")]
    if asked:
        tiles.append((f"{asked:,}", "trainings asked of clients"))
    tiles.append((duration_text(seconds), "of rounds"))
    blocks: list[Block] = [Tiles(tiles)]
    if "rounds" in charts:
        see = "One bar a round: a tall one waited for somebody, a short one below took few updates."
        blocks.append(Picture("rounds", "Seconds and updates by round", see))
    see = f"It took {len(story.rounds):,} rounds and {duration_text(seconds)}; a tuner's own rounds are among them."
    return Section("cost", "What it cost", see, blocks)
