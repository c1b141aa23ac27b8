"""How long until a model is good, where clients differ in speed, stall, and come and go: one selector beside another.

python -m tests.bench deadlines [--part processes|simulated|both] [--policies A,B,…] [--out FOLDER]
    [--data ../shared/data/mnist_by_writer.npz] [--target 0.8] [--crowd-target 0.85]
    [--seconds 90] [--rounds 400] [--clients 16] [--slow 4] [--slowdown 8] [--step-ms 20] [--writers 64] [--cohort 8]
    [--no-frozen] [--measure 0]
    [--crowd 1000] [--sigma 1] [--away 0.2] [--away-for 600] [--crowd-cohort 50] [--hours 4] [--crowd-rounds 200]

A policy is written as SELECTOR[:KEY=VALUE…], where a key is one of the table [round] of a study file, or an option of
the selector; `default` is what a study without a selector gets, `fedbuff` one with buffered rounds. A selector that
this version lacks is passed over.
The first policy is what the others are compared with.

`processes`: a coordinator and clients as processes on loopback; the first ones are slow (`--slowdown`), the last is
frozen by SIGSTOP for half of each round. `simulated`: many clients on a virtual clock. In both a study trains only: no
tuner, nobody measures but the `--measure` clients of the processes; each round's model is judged by this program, on
data that nobody trains on.
"""

import argparse
from pathlib import Path

from tests.bench.fleet import ROOT
from tests.bench.policies import Ran, Terms, chosen

PROCESSES = (
    "all:deadline=600",
    "random:over_selection=1:deadline=3",
    "random:over_selection=1.3:deadline=600",
    "default",
    "oort:over_selection=1.3",
    "deadline:over_selection=1.3",
    "fedbuff:deadline=600",
)
SIMULATED = (
    "all:deadline=7200",
    "random:over_selection=1.3:deadline=7200",
    "random:over_selection=1:deadline=20",
    "default",
    "oort:over_selection=1.3",
    "deadline:over_selection=1.3",
    "fedbuff:deadline=7200",
    "fedbuff:buffer_size=10:deadline=7200",
)


def main(arguments: list[str]) -> None:
    """Runs the policies, prints tables, and writes CSV and pictures."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench deadlines")
    parser.add_argument("--part", choices=("processes", "simulated", "both"), default="both")
    parser.add_argument("--policies", type=lambda text: tuple(text.split(",")))
    parser.add_argument("--out", type=Path, default=Path("fedstep-runs/deadlines"))
    parser.add_argument("--target", type=float, default=0.8)
    parser.add_argument("--crowd-target", type=float, default=0.85)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "mnist_by_writer.npz")
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--slow", type=int, default=4)
    parser.add_argument("--slowdown", type=float, default=8)
    parser.add_argument("--writers", type=int, default=64)
    parser.add_argument("--step-ms", type=float, default=20)
    parser.add_argument("--cohort", type=int, default=8)
    parser.add_argument("--no-frozen", dest="frozen", action="store_false")
    parser.add_argument("--measure", type=int, default=0)
    parser.add_argument("--crowd", type=int, default=1000)
    parser.add_argument("--sigma", type=float, default=1)
    parser.add_argument("--away", type=float, default=0.2)
    parser.add_argument("--away-for", type=float, default=600)
    parser.add_argument("--crowd-step-ms", type=float, default=500)
    parser.add_argument("--crowd-cohort", type=int, default=50)
    parser.add_argument("--crowd-rounds", type=int, default=200)
    parser.add_argument("--hours", type=float, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.data.is_file():
        print(f"passed over: {options.data} is no file; give the data with --data")
        return
    if options.part != "simulated":
        _processes(options)
    if options.part != "processes":
        _simulated(options)


def _processes(options: argparse.Namespace) -> None:
    from tests.bench.deadlines_processes import Fleet, Judge, run_all
    from tests.bench.deadlines_report import draw_curves, draw_timeline, print_table, write_csv

    data, machines = str(options.data.resolve()), (options.clients, options.slow, options.slowdown, options.frozen)
    fleet = Fleet(data, options.writers, options.step_ms, *machines)
    terms = Terms(options.rounds, options.seconds, options.cohort, 0.01, 1, options.measure)
    judge = Judge(fleet)
    found = []
    for ran in run_all(chosen(options.policies or PROCESSES), fleet, judge, terms):
        found.append(ran)
        _say(ran)
    title = (
        f"{fleet.clients} processes, {fleet.slow} of them {fleet.slowdown:g} times slower"
        f"{', one frozen for half of each round' * fleet.frozen}"
    )
    print_table(title, found, options.target)
    write_csv(options.out, "processes", found, options.target)
    draw_curves(options.out / "processes-curves.png", title, found, options.target)
    draw_timeline(options.out / "processes-timeline.png", "One round, from dispatch", found, fleet.names())


def _simulated(options: argparse.Namespace) -> None:
    from tests.bench.deadlines_report import draw_curves, print_table, write_csv
    from tests.bench.deadlines_simulated import Crowd, Stage, ran

    crowd = Crowd(
        *(str(options.data.resolve()), options.crowd, options.sigma, options.away, options.away_for),
        *(options.crowd_step_ms, options.seed),
    )
    terms = Terms(options.crowd_rounds, 3600 * options.hours, options.crowd_cohort, lr=0.05, epochs=2)
    stage = Stage(crowd)
    found = []
    for policy in chosen(options.policies or SIMULATED):
        found.append(ran(policy, stage, terms))
        _say(found[-1])
    title = f"{crowd.clients} simulated clients, speeds of sigma {crowd.sigma:g}, {crowd.away:.0%} away at any time"
    print_table(title, found, options.crowd_target)
    write_csv(options.out, "simulated", found, options.crowd_target)
    draw_curves(options.out / "simulated-curves.png", title, found, options.crowd_target, "log")


def _say(ran: Ran) -> None:
    print(f"{ran.policy}: {ran.rounds} rounds, accuracy {max(ran.accuracy, default=0):.3f}", flush=True)
