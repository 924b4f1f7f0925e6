#!/bin/sh
# An application's image that carries its database inside: the application's settings name
# localhost, and the server listens there alone.
set -eu
export POSTGRES_DB="$POSTGRES_DATABASE" POSTGRES_USER="$POSTGRES_USERNAME"
export PGSTOW_TEST_LISTEN=localhost PGSTOW_TEST_LOCAL_PASSWORD=1
exec /usr/local/bin/docker-entrypoint.sh "$@"
