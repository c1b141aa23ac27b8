"""Checks a wheel: one top-level package, the protocol, the type markers, the demo's study and the migrations in it."""

import sys
import zipfile

names = zipfile.ZipFile(sys.argv[1]).namelist()
tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
assert tops == {"fedstep"}, f"the wheel claims {sorted(tops)} in site-packages, not just fedstep"
for needed in (
    "fedstep/v1/fleet.proto",
    "fedstep/v1/fleet_pb2.pyi",
    "fedstep/v1/py.typed",
    "fedstep/api/py.typed",
    "fedstep/common/py.typed",
    "fedstep/client/py.typed",
    "fedstep/server/py.typed",
    "fedstep/server/cli/demo.toml",
    "fedstep/server/cli/new.toml",
    "fedstep/server/storage/migrations/env.py",
):
    assert needed in names, f"{needed} is not in the wheel"
print(f"{len(names)} files, all under fedstep/")
