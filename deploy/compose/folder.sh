#!/bin/sh
# Makes the folder that is mounted from the host one that the coordinator may write to: Docker makes a folder that is
# not there as root's. One that is somebody's stays theirs.
set -eu
folder=$1
[ -w "$folder" ] && exit 0
owner=$(stat -c %u "$folder")
if [ "$owner" != 0 ]; then
  echo "The folder of the results belongs to user $owner, and user $(id -u) may not write to it: set FEDSTEP_UID=$owner" \
    "and FEDSTEP_GID=$(stat -c %g "$folder"), or give another folder with FEDSTEP_RESULTS." >&2
  exit 1
fi
chown-folder "$(id -u):$(id -g)" "$folder"
echo "$folder belongs to user $(id -u) now: results are written into it"
