\echo Use "CREATE EXTENSION timescaledb" to load this file. \quit
-- Schemas of its own, and a catalogue that is part of a dump.
CREATE SCHEMA _timescaledb_catalog;
CREATE TABLE _timescaledb_catalog.hypertable (schema_name name, table_name name, PRIMARY KEY (schema_name, table_name));
SELECT pg_catalog.pg_extension_config_dump('_timescaledb_catalog.hypertable', '');
-- What was called, and how many tables of the user there were at that moment; no part of a dump.
CREATE TABLE _timescaledb_catalog.calls (number serial, hook text, user_tables bigint);
-- As the real one: its catalogue takes rows from a restore only between the two hooks.
CREATE FUNCTION _timescaledb_catalog.guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF 'on' IN (coalesce(current_setting('timescaledb.restoring', true), ''), coalesce(current_setting('timescaledb.inside', true), '')) THEN
    RETURN new;
  END IF;
  RAISE EXCEPTION 'the catalogue of timescaledb takes no rows outside of a restore'
    USING HINT = 'Call timescaledb_pre_restore() first.';
END
$$;
CREATE TRIGGER guard BEFORE INSERT ON _timescaledb_catalog.hypertable
  FOR EACH ROW EXECUTE FUNCTION _timescaledb_catalog.guard();
CREATE FUNCTION _timescaledb_catalog.record(hook text) RETURNS void LANGUAGE sql AS $$
  INSERT INTO _timescaledb_catalog.calls (hook, user_tables)
  SELECT $1, count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema', '_timescaledb_catalog')
$$;
CREATE FUNCTION timescaledb_pre_restore() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('ALTER DATABASE %I SET timescaledb.restoring = %L', current_database(), 'on');
  PERFORM set_config('timescaledb.restoring', 'on', false), _timescaledb_catalog.record('pre_restore');
  RETURN true;
END
$$;
CREATE FUNCTION timescaledb_post_restore() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('ALTER DATABASE %I RESET timescaledb.restoring', current_database());
  PERFORM set_config('timescaledb.restoring', 'off', false), _timescaledb_catalog.record('post_restore');
  RETURN true;
END
$$;
CREATE FUNCTION create_hypertable(relation regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('timescaledb.inside', 'on', true);
  INSERT INTO _timescaledb_catalog.hypertable
    SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = relation;
  PERFORM set_config('timescaledb.inside', 'off', true);
END
$$;
