"""Prints what some extras of pyproject.toml ask for, a requirement a line: installed before the source is there."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
known = project["optional-dependencies"]
for extra in sys.argv[1:]:
    if extra not in known:
        sys.exit(f"There is no extra {extra!r} of fedstep: {', '.join(sorted(known))}.")
extras = [known[extra] for extra in sys.argv[1:]]
print(*project["dependencies"], *(requirement for extra in extras for requirement in extra), sep="\n")
