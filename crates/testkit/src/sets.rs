//! The data sets that the bench measures on, small or large; tests of the engine fill theirs with
//! the same statements.

/// How large the sets are.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// MB of rows on the server, where a set has them.
    pub megabytes: u64,
    /// Small tables.
    pub tables: u64,
    /// Large objects, 4 kB each.
    pub objects: u64,
    /// Tables without rows.
    pub empty_tables: u64,
}

impl Sizes {
    /// pgbench's scale that makes about so many MB.
    #[must_use]
    pub fn pgbench_scale(&self) -> u64 {
        (self.megabytes / 15).max(1)
    }
}

/// A data set; no two use the same names, so that one database can hold all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// What `pgbench -i` makes.
    Pgbench,
    /// One table of ordinary rows that is 85 % of the database.
    Big,
    /// Many small tables.
    Many,
    /// Wide jsonb, out of line.
    Toast,
    /// Large objects.
    Blobs,
    /// Bytes that cannot be compressed.
    Random,
    /// Very many tables without rows.
    Empty,
}

impl Set {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Pgbench,
        Self::Big,
        Self::Many,
        Self::Toast,
        Self::Blobs,
        Self::Random,
        Self::Empty,
    ];

    /// As `--sets` takes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pgbench => "pgbench",
            Self::Big => "big",
            Self::Many => "many",
            Self::Toast => "toast",
            Self::Blobs => "blobs",
            Self::Random => "random",
            Self::Empty => "empty",
        }
    }

    /// # Errors
    /// A word that is none of them.
    pub fn parse(word: &str) -> Result<Self, String> {
        let known = || Self::ALL.iter().map(|set| set.word()).collect::<Vec<_>>();
        Self::ALL
            .iter()
            .copied()
            .find(|set| set.word() == word)
            .ok_or_else(|| format!("{word:?} is none of the sets {}", known().join(", ")))
    }

    /// For the title of a table.
    #[must_use]
    pub fn title(self, sizes: &Sizes) -> String {
        match self {
            Self::Pgbench => format!("pgbench, scale {}", sizes.pgbench_scale()),
            Self::Big => "one table of ordinary rows that is 85 % of the database".to_owned(),
            Self::Many => format!("{} small tables", sizes.tables),
            Self::Toast => "wide jsonb, TOASTed".to_owned(),
            Self::Blobs => format!("{} large objects of 4 kB", sizes.objects),
            Self::Random => "bytea that cannot be compressed".to_owned(),
            Self::Empty => format!("{} tables without rows", sizes.empty_tables),
        }
    }

    /// The statements that fill it; `None` for what `pgbench` fills at [`Sizes::pgbench_scale`].
    #[must_use]
    pub fn sql(self, sizes: &Sizes) -> Option<String> {
        let megabytes = sizes.megabytes;
        let fill = match self {
            Self::Pgbench => return None,
            Self::Big => {
                // A row is about 140 bytes in the heap; the key takes 20 more.
                let rows = megabytes * 1_000_000 * 85 / 100 / 160;
                let few = megabytes * 1_000_000 * 5 / 100 / 140;
                let ordinary = |table: &str, rows: u64| {
                    format!(
                        "create table {table} as
                           select g as id, (g * 7919) % 100003 as customer,
                                  timestamptz '2020-01-01' + g * interval '37 seconds' as placed,
                                  round((g % 99991) / 7.0, 2) as amount, md5(g::text) as reference,
                                  repeat(substr('the quick brown fox jumps over the lazy dog',
                                                1 + (g % 20)::int), 2) as note
                           from generate_series(1::bigint, {rows}) g;"
                    )
                };
                format!(
                    "{} alter table orders add primary key (id); {} {} {}
                     create index on second (customer);",
                    ordinary("orders", rows),
                    ordinary("second", few),
                    ordinary("third", few),
                    ordinary("fourth", few),
                )
            }
            Self::Many => format!(
                "select format('create table t%s as select i as id, md5(i::text) as words
                                from generate_series(1, 20) i;
                                alter table t%s add primary key (id)', g, g)
                 from generate_series(1, {}) g \\gexec",
                sizes.tables
            ),
            Self::Toast => {
                // 120 members of 40 bytes; pglz leaves about 3.5 kB of them.
                let rows = megabytes * 1_000_000 / 3_800;
                format!(
                    "create table documents as
                       select g as id,
                              (select jsonb_object_agg('member' || i, md5((g * 1000 + i)::text))
                               from generate_series(1, 120) i) as body
                       from generate_series(1::bigint, {rows}) g;
                     alter table documents add primary key (id);"
                )
            }
            Self::Blobs => {
                // In pieces, because each object takes a lock until the end of its transaction.
                let objects = sizes.objects;
                format!(
                    "create table refers (id bigint, object oid);
                     select format('insert into refers select g, lo_from_bytea(0,
                              (select string_agg(md5((g * 1000 + i)::text), '''')
                               from generate_series(1, 128) i)::bytea)
                            from generate_series(%s::bigint, %s) g', n, least(n + 9999, {objects}))
                     from generate_series(1, {objects}, 10000) n \\gexec"
                )
            }
            Self::Random => {
                let rows = megabytes * 1_000_000 / 1_064;
                format!(
                    "create table noise as
                       select g as id,
                              (select string_agg(sha512((g * 1000 + i)::text::bytea), ''::bytea)
                               from generate_series(1, 16) i) as bytes
                       from generate_series(1::bigint, {rows}) g;"
                )
            }
            Self::Empty => format!(
                "select format('create table e%s (id int primary key, words text)', g)
                 from generate_series(1, {}) g \\gexec",
                sizes.empty_tables
            ),
        };
        Some(fill)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_is_known_by_its_word() {
        for set in Set::ALL {
            assert_eq!(Set::parse(set.word()), Ok(*set));
        }
        assert!(Set::parse("other").unwrap_err().contains("toast"));
    }
}
