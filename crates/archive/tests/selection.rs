//! Selections of real archives, restored by pg_restore: nothing that is needed is missing, and what
//! belongs to the chosen tables is there.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod server;

use std::fs::File;
use std::path::Path;

use archive::{Pattern, Section, Selected, Selection, Toc, list_file, read_toc, select};
use server::Server;
use testkit::{process::docker, schema::load_bar31};

/// What the fixture lacks: serial columns, keys and views over several schemas.
const MORE: &str = "
    create schema other;
    create table other.customer (id serial primary key, mood app.mood);
    insert into other.customer (mood) values ('happy'), ('sad');
    create table other.bill (id serial primary key, customer integer references other.customer,
      next integer default nextval('app.standalone'));
    insert into other.bill (customer) values (1), (1), (2);
    create index on other.bill (customer);
    create view other.bills as select b.id, c.mood from other.bill b join other.customer c on
      c.id = b.customer;
    comment on column other.bill.customer is 'who pays';
    grant select (id) on other.bill to stow_reader;
    alter table other.customer enable row level security;
    create policy small on other.customer using (id < (select count(*) from other.bill));
";

struct Case {
    server: Server,
    archive: std::path::PathBuf,
    toc: Toc,
    restored: u32,
}

impl Case {
    fn new(major: u32) -> Self {
        let server = Server::start(major);
        load_bar31(&server.container, "source").unwrap();
        server.container.psql("source", MORE).unwrap();
        let archive = server.dump("source", "-Fc");
        let toc = read_toc(File::open(&archive).unwrap()).unwrap();
        Self {
            server,
            archive,
            toc,
            restored: 0,
        }
    }

    /// Restores a selection into a new database and returns what `query` gives there.
    fn restore(&mut self, selected: &Selected, query: &str) -> String {
        self.restored += 1;
        let database = format!("copy_{}", self.restored);
        self.fill(&database, selected);
        let rows = self.server.container.psql(&database, query).unwrap();
        rows.trim().to_owned()
    }

    fn fill(&self, database: &str, selected: &Selected) {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("list");
        std::fs::write(&list, list_file(selected)).unwrap();
        copy_in(&list, &format!("{}:/tmp/list", self.server.container.id()));
        self.server
            .restore(&self.archive, database, &["-L", "/tmp/list"]);
    }

    fn tables(&self, patterns: &[&str]) -> Selected {
        let tables = patterns.iter().map(|p| Pattern::parse(p).unwrap());
        let selected = select(
            &self.toc,
            &Selection {
                tables: tables.collect(),
                ..Selection::default()
            },
        );
        assert!(selected.unmatched.is_empty(), "{:?}", selected.unmatched);
        selected
    }

    fn schemas(&self, patterns: &[&str]) -> Selected {
        let schemas = patterns.iter().map(|p| Pattern::parse_schema(p).unwrap());
        select(
            &self.toc,
            &Selection {
                schemas: schemas.collect(),
                ..Selection::default()
            },
        )
    }
}

fn copy_in(from: &Path, to: &str) {
    docker(&["cp", from.to_str().unwrap(), to]).unwrap();
}

/// Number of objects of some kinds that hang on tables.
const HANGING: &str = "select
    (select count(*) from pg_index i join pg_class c on c.oid = i.indrelid
      join pg_namespace n on n.oid = c.relnamespace where n.nspname in ('app', 'other')),
    (select count(*) from pg_trigger where not tgisinternal),
    (select count(*) from pg_policy),
    (select count(*) from pg_constraint where contype = 'f'),
    (select count(*) from pg_statistic_ext),
    (select count(*) from pg_description d where classoid = 'pg_class'::regclass and objsubid > 0),
    (select count(*) from pg_attribute where attacl is not null and attrelid > 16000)";

fn partial_restores(major: u32) {
    let mut case = Case::new(major);

    let selected = case.tables(&["app.person"]);
    assert_eq!(selected.tables, [("app".to_owned(), "person".to_owned())]);
    assert!(selected.without_rows.is_empty());
    assert_eq!(
        selected.left_out,
        ["PUBLICATION TABLE app.stow_publication person"]
    );
    let found = case.restore(&selected, HANGING);
    assert_eq!(found, "4|3|0|0|1|1|2");
    let found = case.restore(
        &selected,
        "select count(*), min(id) from app.person;
        insert into app.person (name) values ('next') returning id > 1590;",
    );
    assert_eq!(found.lines().next(), Some("300|100"));
    assert!(found.contains("\nt"), "{found}");

    // A foreign key to a table that was not chosen, and the same with the table.
    let selected = case.tables(&["app.chicken"]);
    assert_eq!(
        selected.left_out,
        ["FK CONSTRAINT app.chicken chicken_egg_fkey"]
    );
    assert_eq!(case.restore(&selected, HANGING), "1|0|0|0|0|0|0");
    let selected = case.tables(&["app.chicken", "egg"]);
    assert!(selected.left_out.is_empty(), "{:?}", selected.left_out);
    assert_eq!(case.restore(&selected, HANGING), "2|0|0|2|0|0|0");

    // Serial columns with their sequences; a default that needs a sequence of another schema.
    let selected = case.tables(&["other.b?ll"]);
    assert_eq!(
        selected.left_out,
        ["FK CONSTRAINT other.bill bill_customer_fkey"]
    );
    let query = "select count(*), sum(customer), min(next) from other.bill;
        insert into other.bill default values returning id, next;
        select pg_get_serial_sequence('other.bill', 'id')";
    let found = case.restore(&selected, query);
    let lines: Vec<_> = found
        .lines()
        .filter(|line| line.contains(['|', '.']))
        .collect();
    assert_eq!(lines, ["3|4|872", "4|865", "other.bill_id_seq"]);
    assert_eq!(case.restore(&selected, HANGING), "2|0|0|0|0|1|1");
    // Its policy reads another table.
    let selected = case.tables(&["other.customer"]);
    assert_eq!(selected.left_out, ["POLICY other.customer small"]);
    assert_eq!(case.restore(&selected, HANGING), "1|0|0|0|0|0|0");

    // Partitions: with their parent, and alone; inheritance.
    let selected = case.tables(&["app.event"]);
    assert!(selected.left_out.is_empty(), "{:?}", selected.left_out);
    let found = case.restore(&selected, "select count(*) from app.event");
    assert_eq!(found, "900");
    let selected = case.tables(&["app.event_2023"]);
    let found = case.restore(&selected, "select count(*) > 100 from app.event_2023");
    assert_eq!(found, "t");
    let selected = case.tables(&["app.child"]);
    assert_eq!(selected.without_rows, ["TABLE app.parent"]);
    let found = case.restore(&selected, "select count(*), sum(a) from app.parent");
    assert_eq!(found, "1|2");

    // Views bring the tables that they read, without rows.
    let selected = case.tables(&["other.bills"]);
    assert_eq!(
        selected.without_rows,
        ["TABLE other.bill", "TABLE other.customer"]
    );
    assert_eq!(
        case.restore(&selected, "select count(*) from other.bills"),
        "0"
    );
    let selected = case.tables(&["app.totals"]);
    assert_eq!(selected.left_out, ["MATERIALIZED VIEW DATA app.totals"]);
    case.restore(
        &selected,
        "select relispopulated from pg_class where relname = 'totals'",
    );
    let selected = case.tables(&["app.totals", "app.event"]);
    assert_eq!(
        case.restore(&selected, "select sum(n) from app.totals"),
        "900"
    );

    // Whole schemas.
    let selected = case.schemas(&["app", "o\"dd\"*"]);
    let left: Vec<_> = selected
        .left_out
        .iter()
        .filter(|object| !object.starts_with("PUBLICATION TABLE"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let found = case.restore(
        &selected,
        "select count(*) from app.values;
        select count(*) from pg_proc p join pg_namespace n on n.oid = pronamespace
          where nspname = 'app' and proname in ('add', 'touch', 'on_ddl', 'nothing', 'total')",
    );
    assert_eq!(found, "4\n5");
    assert_eq!(
        case.schemas(&["none.*", "nothing"][1..]).unmatched,
        ["nothing"]
    );
    let selected = case.schemas(&["other"]);
    assert!(selected.left_out.is_empty(), "{:?}", selected.left_out);
    assert_eq!(
        case.restore(&selected, "select count(*) from other.bills"),
        "3"
    );

    sections(&case);
}

/// All sections one after the other give the whole, and rows alone fit into what is there.
fn sections(case: &Case) {
    let of = |sections: &[Section], data_only| {
        select(
            &case.toc,
            &Selection {
                tables: vec![Pattern::parse("other.*").unwrap()],
                sections: sections.to_vec(),
                data_only,
                ..Selection::default()
            },
        )
    };
    let whole = of(&[], false);
    let parts =
        [Section::PreData, Section::Data, Section::PostData].map(|section| of(&[section], false));
    let sum: usize = parts.iter().map(|part| part.order.len()).sum();
    assert_eq!(sum, whole.order.len());
    assert_eq!(of(&[], true), parts[1]);
    assert_eq!(parts[0].tables, []);
    assert_eq!(parts[1].tables.len(), 2);
    case.fill("in_parts", &parts[0]);
    let server = &case.server;
    for part in &parts[1..] {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("list");
        std::fs::write(&list, list_file(part)).unwrap();
        copy_in(&list, &format!("{}:/tmp/list", server.container.id()));
        server.exec(&[
            "pg_restore",
            "-d",
            "in_parts",
            "-e",
            "-L",
            "/tmp/list",
            "/tmp/restored",
        ]);
    }
    let found = server
        .container
        .psql("in_parts", "select count(*) from other.bills");
    assert_eq!(found.unwrap().trim(), "3");
    let everything = select(&case.toc, &Selection::default());
    assert!(everything.order.len() > 100 && everything.left_out.is_empty());
}

#[test]
fn selections_of_13_restore() {
    partial_restores(13);
}

#[test]
fn selections_of_17_restore() {
    partial_restores(17);
}

#[test]
fn selections_of_18_restore() {
    partial_restores(18);
}
