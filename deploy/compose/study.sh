#!/bin/sh
# Runs a study to its end, or shows the result of one that has ended, and leaves its figures beside its model.
#
#   fedstep-study FILE
set -u
fedstep study run "$1"
code=$?
name=$(python -c 'import sys, tomllib; print(tomllib.load(open(sys.argv[1], "rb"))["name"])' "$1") || exit "$code"
folder=/results/$name
if [ -d "$folder" ]; then
  fedstep study show "$name" --json > "$folder/result.json"
  fedstep study trials "$name" --json > "$folder/trials.jsonl"
  echo "On this machine: ${FEDSTEP_RESULTS:-fedstep-results}/$name has the model, the picture, result.json and trials.jsonl"
fi
exit "$code"
