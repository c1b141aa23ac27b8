#!/bin/sh
# PostgreSQL without root: the first time it makes the database `fedstep`, its owner `fedstep`, and `dashboard`, which
# may read and nothing else. Passwords come from files. The cluster appears under its name when all of it is there.
set -eu
PATH=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1):$PATH
folder=/var/lib/postgresql/data
sockets=/tmp
if [ ! -d "$folder/fedstep" ]; then
  rm -rf "$folder/new"
  initdb --pgdata="$folder/new" --username=postgres --auth-local=trust --auth-host=scram-sha-256 \
    --encoding=UTF8 --locale=C.UTF-8 >/dev/null
  echo "host all all all scram-sha-256" >>"$folder/new/pg_hba.conf"
  pg_ctl --pgdata="$folder/new" --wait --silent --options="-c listen_addresses='' -c log_min_messages=fatal -k $sockets" start
  psql --quiet --host="$sockets" --username=postgres --set=ON_ERROR_STOP=1 <<'SQL'
\set owner `cat /secrets/database/fedstep`
\set reader `cat /secrets/database/dashboard`
CREATE ROLE fedstep LOGIN PASSWORD :'owner';
CREATE ROLE dashboard LOGIN PASSWORD :'reader';
CREATE DATABASE fedstep OWNER fedstep;
\connect fedstep
ALTER DEFAULT PRIVILEGES FOR ROLE fedstep GRANT SELECT ON TABLES TO dashboard;
SQL
  pg_ctl --pgdata="$folder/new" --wait --silent stop
  mv "$folder/new" "$folder/fedstep"
fi
chmod 700 "$folder/fedstep"  # Kubernetes opens it to the group when it mounts the volume again
exec postgres -D "$folder/fedstep" -c listen_addresses='*' -c log_checkpoints=off -k "$sockets" "$@"
