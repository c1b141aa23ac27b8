"""What TLS costs: rounds of one large model to one client and back, over TLS and plain, in turn.

python -m tests.bench tls [--megabytes 300] [--pairs 6] [--rounds 3]

Two coordinators with one echo client each stand side by side, one with certificates on both sides; while one moves its
model the other waits. A round is from one commit to the next: the model down, checked, the update back, checked, added,
and the new model on the disk. Pairs alternate which of the two is first. Beside it, what the arithmetic of TLS alone
takes: as many bytes encrypted and decrypted with AES-128-GCM, on one core.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

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


def arithmetic_s(megabytes: float) -> float:
    """Seconds of one core that the cipher takes for a round: the model and the update, each on both sides."""
    cipher, nonce, block = AESGCM(bytes(16)), bytes(12), bytes(1 << 20)
    sealed, blocks = cipher.encrypt(nonce, block, None), round(2 * megabytes * 1e6 / len(block))
    began_s = time.process_time()
    for _ in range(blocks):
        cipher.encrypt(nonce, block, None)
        cipher.decrypt(nonce, sealed, None)
    return time.process_time() - began_s


def compare(fleets: Mapping[str, EchoFleet], pairs: int, rounds: int, megabytes: float) -> None:
    """Prints every pair, and their median."""
    ratios, plain_s = [], []
    for pair in range(pairs + 1):
        order = sorted(fleets, reverse=bool(pair % 2))
        took = {kind: run(round_s(fleets[kind], f"pair-{pair}", rounds)) for kind in order}
        if not pair:  # buffers are made, pages faulted in
            continue
        ratios.append(took["tls"] / took["plain"])
        plain_s.append(took["plain"])
        moved = 2 * megabytes / took["plain"]
        print(f"plain {took['plain']:.3f} s ({moved:.0f} MB/s both ways), TLS {took['tls']:.3f} s: {ratios[-1]:.3f}")
    print(f"TLS over plain: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    cipher_s, cores = arithmetic_s(megabytes), os.cpu_count() or 1
    share = cipher_s / cores / statistics.median(plain_s)
    print(f"the cipher alone: {cipher_s:.3f} s of a core, over {cores} cores {share:.0%} of a plain round")


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
