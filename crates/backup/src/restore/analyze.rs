//! ANALYZE after a restore, which must not log in at other servers.

/// A script for psql. `ANALYZE` of everything leaves foreign tables out but not the parents of
/// foreign tables, whose statistics are gathered from all children: those are left out here.
pub(crate) const SCRIPT: &str = "\
SET default_transaction_read_only = off;
WITH RECURSIVE far(oid) AS (
  SELECT i.inhparent FROM pg_catalog.pg_inherits AS i
    JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid WHERE c.relkind = 'f'
  UNION
  SELECT i.inhparent FROM far JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = far.oid
)
SELECT count(*) > 0 AS far FROM far
\\gset
\\if :far
WITH RECURSIVE far(oid) AS (
  SELECT i.inhparent FROM pg_catalog.pg_inherits AS i
    JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid WHERE c.relkind = 'f'
  UNION
  SELECT i.inhparent FROM far JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = far.oid
)
SELECT pg_catalog.format('ANALYZE %I.%I', n.nspname, c.relname)
  FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't' AND NOT c.relisshared
    AND c.oid NOT IN (SELECT oid FROM far)
\\gexec
\\else
ANALYZE;
\\endif";
