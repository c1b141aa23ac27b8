"""Runs one benchmark by name, or all."""

import importlib
import sys

NAMES = (
    "rounds",
    "steps",
    "control",
    "directives",
    "large_model",
    "selection",
    "mnist_writers",
    "deadlines",
    "trainer",
    "watchers",
    "snapshots",
    "tls",
    "tables",
)


def main() -> None:
    """`python -m tests.bench [NAME [OPTIONS]]`."""
    name, *arguments = sys.argv[1:] or ["all"]
    if name in ("-h", "--help"):
        print(f"python -m tests.bench [NAME [OPTIONS]]; NAME is {', '.join(NAMES)} or all.")
        return
    if name not in (*NAMES, "all"):
        sys.exit(f"There is no benchmark {name}: {', '.join(NAMES)} or all.")
    for each in NAMES if name == "all" else (name,):
        print(f"== {each}", flush=True)
        importlib.import_module(f"tests.bench.{each}").main(arguments)


main()
