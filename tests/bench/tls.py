"""What TLS costs: rounds of one large model to one client and back, over TLS and plain, in turn.

python -m tests.bench tls [--megabytes 300] [--pairs 6] [--rounds 3]

Two coordinators with one echo client each stand side by side, one with certificates on both sides; while one moves its
model the other waits. A round is from one commit to the next: the model down, checked, the update back, checked, added,
and the new model on the disk. Pairs alternate which of the two is first.
"""

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

from fedstep.common.identity import Identity, Role
from fedstep.common.loop import run
from fedstep.server.authority import enroll, make_authority, make_coordinator
from tests.bench.fleet import EchoFleet, Keys, echo_fleet, echo_spec, round_commits

_LIFETIME = timedelta(days=1)


def make_keys(folder: Path) -> Keys:
    """A CA and what it signed: a coordinator, the first echo client and an operator."""
    authority = make_authority(folder, 2 * _LIFETIME)
    return Keys(
        authority.certificate,
        make_coordinator(folder, ["127.0.0.1"], "coordinator", _LIFETIME),
        enroll(folder, Identity(Role.CLIENT, "echo-0"), _LIFETIME),
        enroll(folder, Identity(Role.OPERATOR, "bench"), _LIFETIME),
    )


async def round_s(fleet: EchoFleet, name: str, rounds: int) -> float:
    """The median seconds of a round; the first one does not count."""
    commits = [at async for at in round_commits(fleet.address, echo_spec(1, rounds + 1, name), fleet.security)]
    return statistics.median(after - before for before, after in pairwise(commits))


def compare(fleets: Mapping[str, EchoFleet], pairs: int, rounds: int, megabytes: float) -> None:
    """Prints every pair, and their median."""
    ratios = []
    for pair in range(pairs + 1):
        order = sorted(fleets, reverse=bool(pair % 2))
        took = {kind: run(round_s(fleets[kind], f"pair-{pair}", rounds)) for kind in order}
        if not pair:  # buffers are made, pages faulted in
            continue
        ratios.append(took["tls"] / took["plain"])
        moved = 2 * megabytes / took["plain"]
        print(f"plain {took['plain']:.3f} s ({moved:.0f} MB/s both ways), TLS {took['tls']:.3f} s: {ratios[-1]:.3f}")
    print(f"TLS over plain: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


def main(arguments: list[str]) -> None:
    """Runs both fleets."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench tls")
    parser.add_argument("--megabytes", type=float, default=300)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory() as folder,
        echo_fleet(1, options.megabytes) as plain,
        echo_fleet(1, options.megabytes, make_keys(Path(folder))) as tls,
    ):
        compare({"plain": plain, "tls": tls}, options.pairs, options.rounds, options.megabytes)
