#!/bin/sh
# A client that takes a share of the data nobody else has: the first whose file is not locked. The kernel lets go of the
# lock when the process ends, however it ends, and keeps it while the container is paused; so two clients never train on
# the same samples, and a client that comes for one that died takes its share, its name and its history.
#
#   fedstep-client OPTION...    with FEDSTEP_SHARES in the environment; the options go to `fedstep client`
set -eu
shares=${FEDSTEP_SHARES_FOLDER:-/shares}
trap 'exit 143' TERM
trap 'exit 130' INT
said=
while :; do
  share=1
  while [ "$share" -le "$FEDSTEP_SHARES" ]; do
    exec 9>>"$shares/$share"
    if flock --nonblock 9; then
      export FEDSTEP_TLS_CERT="/secrets/client/client-$share.crt" FEDSTEP_TLS_KEY="/secrets/client/client-$share.key"
      exec fedstep client --partition "$share/$FEDSTEP_SHARES" "$@"
    fi
    share=$((share + 1))
  done
  [ "$said" ] || echo "All $FEDSTEP_SHARES shares of the data are taken; waiting for one." \
    "For more of them: docker-compose down, then FEDSTEP_SHARES=N docker-compose up --scale client=N."
  said=yes
  sleep 2 & wait $!
done
