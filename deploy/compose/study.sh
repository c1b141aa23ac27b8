#!/bin/sh
# Runs a study to its end, or shows the result of one that has ended, and leaves its figures beside its model.
#
#   fedstep-study FILE
set -u
# Ten clients that start beside it fill a small machine: a coordinator too busy to answer is asked again.
for attempt in 1 2 3 4 5; do
  said=$(fedstep study run "$1" --detach --json) && break
  case $said in *UNAVAILABLE*) sleep 2 ;; *) break ;; esac
done
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
