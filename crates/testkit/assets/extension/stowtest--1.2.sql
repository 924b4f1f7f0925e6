\echo Use "CREATE EXTENSION stowtest" to load this file. \quit
CREATE TABLE stowtest_settings (name text PRIMARY KEY, value text, standard boolean NOT NULL DEFAULT false);
INSERT INTO stowtest_settings VALUES ('unit', 'metre', true);
SELECT pg_catalog.pg_extension_config_dump('stowtest_settings', 'WHERE NOT standard');
CREATE FUNCTION stowtest_answer() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 42';
