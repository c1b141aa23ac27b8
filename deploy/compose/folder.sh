#!/bin/sh
# Makes the folder that is mounted from the host one that the coordinator may write to. Docker makes a folder that is
# not there as root's; one of a user whose number is not ours is no better.
set -eu
folder=$1
[ -w "$folder" ] && exit 0
chown-folder "$(id -u):$(id -g)" "$folder"
echo "$folder belongs to user $(id -u) now: results are written into it"
