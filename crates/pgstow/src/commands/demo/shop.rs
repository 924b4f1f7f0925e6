//! The demo's database: about 200,000 rows, the accident, and the counting.

use std::collections::BTreeMap;

use dbexec::{ExecError, PgExecutor, query};
use serde::{Deserialize, Serialize};

use crate::printer::Printer;
use crate::render::text;

const FILL: &str = "
create table customers (id int primary key, name text not null, city text not null, since date not null);
create table products (id int primary key, title text not null, price numeric(8,2) not null);
create table orders (id int primary key, customer int not null references customers, placed timestamptz not null);
create table order_lines (order_id int not null references orders, line int not null,
  product int not null references products, pieces int not null, primary key (order_id, line));
insert into customers select n, 'Customer ' || n, (array['Lund','Gent','Graz','Bern'])[1 + n % 4],
  date '2020-01-01' + n % 1800 from generate_series(1, 20000) n;
insert into products select n, 'Product ' || n, 1 + (n * 37 % 9900) / 100.0 from generate_series(1, 1000) n;
insert into orders select n, 1 + n * 7 % 20000, timestamptz '2024-01-01 08:00+00' + n * interval '7 minutes'
  from generate_series(1, 60000) n;
insert into order_lines select o, l, 1 + (o * 13 + l * 5) % 1000, 1 + (o + l) % 9
  from generate_series(1, 60000) o, generate_series(1, 2) l;
create view turnover as select c.city, sum(p.price * l.pieces) as total
  from customers c join orders o on o.customer = c.id join order_lines l on l.order_id = o.id
  join products p on p.id = l.product group by c.city;
";

/// Rows of a table and a checksum over all of them, whatever their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Count {
    rows: u64,
    checksum: String,
}

impl Count {
    pub(super) fn words(&self) -> String {
        let tail = self.checksum.len().saturating_sub(8);
        format!(
            "{} rows, checksum …{}",
            text::count(self.rows),
            &self.checksum[tail..]
        )
    }
}

/// Every table with its count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Census {
    pub(super) tables: BTreeMap<String, Count>,
}

impl Census {
    pub(super) fn show(&self, printer: &Printer, place: &str) {
        printer.message(format!("{place}:"));
        for (name, count) in &self.tables {
            printer.message(format!("  {name:12} {}", count.words()));
        }
    }
}

pub(super) async fn create_database(
    executor: &dyn PgExecutor,
    database: &str,
) -> Result<(), ExecError> {
    let statement = "create database :\"name\";";
    query::execute(
        executor,
        "postgres",
        "demo database",
        statement,
        &[("name", database)],
        false,
    )
    .await
}

pub(super) async fn fill(executor: &dyn PgExecutor, database: &str) -> Result<(), ExecError> {
    query::execute(executor, database, "demo shop", FILL, &[], true).await
}

pub(super) async fn accident(executor: &dyn PgExecutor, database: &str) -> Result<(), ExecError> {
    let statement = "drop table order_lines cascade;";
    query::execute(executor, database, "demo accident", statement, &[], false).await
}

/// Counts what is there now.
pub(super) async fn census(executor: &dyn PgExecutor, database: &str) -> Result<Census, ExecError> {
    #[derive(Deserialize)]
    struct Name {
        relname: String,
    }
    let names: Vec<Name> = query::rows(
        executor,
        database,
        "demo tables",
        "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace order by 1",
        &[],
    )
    .await?;
    let mut tables = BTreeMap::new();
    for Name { relname } in names {
        let select = "select count(*) as rows, \
                      coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text as checksum \
                      from :\"name\" t";
        let vars = [("name", relname.as_str())];
        let counted: Vec<Count> =
            query::rows(executor, database, "demo census", select, &vars).await?;
        if let Some(count) = counted.into_iter().next() {
            tables.insert(relname, count);
        }
    }
    Ok(Census { tables })
}
