\echo Use "CREATE EXTENSION stowloaded" to load this file. \quit
DO $check$
BEGIN
  IF NOT 'pg_stat_statements' = ANY (regexp_split_to_array(current_setting('shared_preload_libraries'), '\s*,\s*')) THEN
    RAISE EXCEPTION 'stowloaded must be loaded by way of shared_preload_libraries'
      USING HINT = 'Add pg_stat_statements to shared_preload_libraries and restart the server.';
  END IF;
END
$check$;
CREATE TYPE stowloaded_state AS ENUM ('cold', 'warm');
CREATE FUNCTION stowloaded_next(stowloaded_state) RETURNS stowloaded_state
  LANGUAGE sql IMMUTABLE AS $$ SELECT 'warm'::stowloaded_state $$;
