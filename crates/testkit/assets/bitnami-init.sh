# Sourced by the entry point while the first server runs.
if [ -n "${APP_USER:-}" ]; then
    psql -X -q -v ON_ERROR_STOP=1 -d "$POSTGRES_DB" -v user="$APP_USER" -v password="$APP_PASSWORD" -v db="$POSTGRES_DB" <<'SQL'
CREATE ROLE :"user" LOGIN PASSWORD :'password';
ALTER DATABASE :"db" OWNER TO :"user";
SQL
fi
