#!/bin/sh
# Entry point of the test images: behaves as the official image's does, where tests depend on it.
set -eu

# VAR, or the content of the file that VAR_FILE names, or a default.
file_env() {
    eval "value=\${$1:-}; file=\${$1_FILE:-}"
    if [ -n "$file" ]; then value=$(cat "$file"); fi
    if [ -z "$value" ]; then value=${2:-}; fi
    export "$1=$value"
    unset "$1_FILE"
}

if [ "${1#-}" != "${1:-}" ]; then set -- postgres "$@"; fi
if [ "${1:-}" != postgres ]; then exec "$@"; fi

if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /var/run/postgresql
    chown -R postgres:postgres "$PGDATA" /var/run/postgresql
    chmod 700 "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    file_env POSTGRES_PASSWORD
    file_env POSTGRES_USER postgres
    file_env POSTGRES_DB "$POSTGRES_USER"
    file_env POSTGRES_INITDB_ARGS
    if [ -z "$POSTGRES_PASSWORD" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
        echo "error: POSTGRES_PASSWORD is not set" >&2
        exit 1
    fi
    # An empty password file is refused by initdb; trust needs none.
    if [ -n "$POSTGRES_PASSWORD" ]; then
        pwfile=$(mktemp)
        printf '%s\n' "$POSTGRES_PASSWORD" > "$pwfile"
        eval "initdb --no-sync --username=\"\$POSTGRES_USER\" --pwfile=\"\$pwfile\" $POSTGRES_INITDB_ARGS" > /dev/null
        rm -f "$pwfile"
    else
        eval "initdb --no-sync --username=\"\$POSTGRES_USER\" $POSTGRES_INITDB_ARGS" > /dev/null
    fi
    # scram-sha-256 from 14, md5 before: what initdb hashed the password with.
    method=${POSTGRES_HOST_AUTH_METHOD:-$(postgres -C password_encryption)}
    if [ -n "${PGSTOW_TEST_LOCAL_PASSWORD:-}" ]; then
        # Images that ask for a password on the local socket and on loopback too.
        sed -i "s/ trust\$/ $method/" "$PGDATA/pg_hba.conf"
    fi
    echo "host all all all $method" >> "$PGDATA/pg_hba.conf"
    {
        echo "listen_addresses = '${PGSTOW_TEST_LISTEN:-*}'"
        # Test servers live for seconds and hold nothing of value.
        echo "fsync = off"
    } >> "$PGDATA/postgresql.conf"

    # The first server listens on its socket alone, so that nothing mistakes it for the real one.
    # Its password prompt is answered by the environment.
    pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start > /dev/null
    export PGUSER="$POSTGRES_USER" PGPASSWORD="$POSTGRES_PASSWORD"
    if [ "$POSTGRES_DB" != postgres ]; then
        printf 'CREATE DATABASE :"db";\n' | psql -X -q -v ON_ERROR_STOP=1 -d postgres -v db="$POSTGRES_DB"
    fi
    for script in /docker-entrypoint-initdb.d/*; do
        case "$script" in
            *.sh) . "$script" ;;
            *.sql) psql -X -q -v ON_ERROR_STOP=1 -d "$POSTGRES_DB" -f "$script" ;;
        esac
    done
    unset PGUSER PGPASSWORD
    pg_ctl -D "$PGDATA" -m fast -w stop > /dev/null
fi

exec "$@"
