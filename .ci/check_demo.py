"""Checks what a demo left: the study in its database, the accuracy, the model, the picture, the report, no process."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

folder = Path(sys.argv[1])
database = sqlite3.connect(folder / "fedstep.db")
state, result = database.execute("select state, result from fedstep_studies where name = 'demo'").fetchone()
assert state == "completed", f"the demo's study is {state}"
accuracy = database.execute(
    "select json_extract(result, '$.metrics.accuracy') from fedstep_studies where name = 'demo'"
).fetchone()[0]
assert accuracy >= 0.9, f"the final model's accuracy is {accuracy}, not 0.90 or better"
trials = database.execute("select count(*) from fedstep_trials").fetchone()[0]
assert trials == 10, f"{trials} trials in the database, not 10"
optuna = database.execute("select count(*) from trials").fetchone()[0]
assert optuna == 10, f"{optuna} trials in Optuna's study, not 10"
left = database.execute("select count(*) from trials where state = 'RUNNING'").fetchone()[0]
assert left == 0, f"{left} of Optuna's trials are still RUNNING"
for file in ("demo/model.safetensors", "demo/study.png", "demo/report.html"):
    assert (folder / file).stat().st_size > 1000, f"{file} is missing or empty"
running = subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, text=True, check=False).stdout.split()
running.remove(str(os.getpid()))  # this check names the folder too
assert not running, f"processes are still running: {running}"
print(f"completed; held-out accuracy {accuracy:.4f}; {trials} trials")
