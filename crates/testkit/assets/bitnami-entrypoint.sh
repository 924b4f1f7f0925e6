#!/bin/sh
# The environment spelling of the Bitnami images: the named user is not the superuser, whose
# password is POSTGRESQL_POSTGRES_PASSWORD; local connections need a password too.
set -eu
file_env() {
    eval "value=\${$1:-}; file=\${$1_FILE:-}"
    if [ -n "$file" ]; then value=$(cat "$file"); fi
    printf '%s' "$value"
}
user=$(file_env POSTGRESQL_USERNAME)
password=$(file_env POSTGRESQL_PASSWORD)
if [ "$user" = postgres ] || [ -z "$user" ]; then
    export POSTGRES_USER=postgres POSTGRES_PASSWORD="$password"
else
    export POSTGRES_USER=postgres POSTGRES_PASSWORD="$(file_env POSTGRESQL_POSTGRES_PASSWORD)"
    export APP_USER="$user" APP_PASSWORD="$password"
fi
export POSTGRES_DB="${POSTGRESQL_DATABASE:-postgres}" PGSTOW_TEST_LOCAL_PASSWORD=1
exec /usr/local/bin/docker-entrypoint.sh "$@"
