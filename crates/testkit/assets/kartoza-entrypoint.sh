#!/bin/sh
# The environment spelling of PostGIS images: POSTGRES_PASS and POSTGRES_DBNAME.
set -eu
export POSTGRES_PASSWORD="$POSTGRES_PASS" POSTGRES_DB="$POSTGRES_DBNAME"
exec /usr/local/bin/docker-entrypoint.sh "$@"
