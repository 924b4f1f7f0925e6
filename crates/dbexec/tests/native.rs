//! Native sessions with real servers.

mod cancel_support;

use std::time::Duration;

use cancel_support::{cancel_a_sleep, until_asleep};
use dbexec::native::{CopyOut, Parameter};
use dbexec::{ConnectionSettings, DbCreds, NativeError, NativeSession, Route, TlsOptions};
use serde::Deserialize;
use testkit::PgContainer;

const NAME: &str = "pgstow-native-test";

fn creds(container: &PgContainer, user: &str, password: Option<&str>) -> DbCreds {
    DbCreds {
        host: Some(container.ip().expect("it has an address")),
        port: 5432,
        database: "postgres".to_owned(),
        user: user.to_owned(),
        password: password.map(Into::into),
        tls: TlsOptions::default(),
    }
}

fn route(container: &PgContainer) -> Route {
    Route::ContainerAddress {
        address: container.ip().expect("it has an address"),
        port: 5432,
    }
}

async fn connect(route: &Route, creds: &DbCreds) -> Result<NativeSession, NativeError> {
    let settings = ConnectionSettings::new("native");
    NativeSession::connect(route, creds, "postgres", &settings, NAME).await
}

async fn session(container: &PgContainer) -> NativeSession {
    let creds = creds(container, "postgres", Some(container.password()));
    connect(&route(container), &creds)
        .await
        .expect("it logs in")
}

async fn one(session: &mut NativeSession, sql: &str) -> String {
    let rows = session.query(sql).await.expect("it answers");
    rows[0][0].clone().expect("a value")
}

async fn all(mut copy: CopyOut<'_>, want: usize) -> (Vec<u8>, u64) {
    let mut rows = Vec::new();
    while copy.read(&mut rows, want).await.expect("rows") {}
    let count = copy.finish().await.expect("the end");
    (rows, count)
}

#[derive(Debug, Deserialize, PartialEq)]
struct Row {
    number: i64,
    word: String,
}

#[tokio::test]
async fn statements_and_copies_on_every_major() {
    for major in testkit::images::MAJORS {
        let container = PgContainer::start(major).unwrap();
        let mut session = session(&container).await;
        let version = session.parameter("server_version").unwrap().to_owned();
        assert!(version.starts_with(&major.to_string()), "{version}");
        assert_eq!(session.parameter("client_encoding"), Some("UTF8"));
        assert_eq!(session.parameter("TimeZone"), Some("UTC"));
        assert_eq!(session.parameter("application_name"), Some(NAME));
        let pid = one(&mut session, "select pg_backend_pid()").await;
        assert_eq!(pid, session.backend_pid().to_string());

        // Several statements; notices and changed parameters in between; rows of the last.
        let sql = "do $$ begin raise notice 'n'; end $$; set application_name = 'other'; \
                   select 1; create temp table x(a int); select null, 'ä', '' union all select 'b', null, 'c'";
        let rows = session.query(sql).await.unwrap();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            rows,
            [[None, some("ä"), some("")], [some("b"), None, some("c")]]
        );
        assert_eq!(session.parameter("application_name"), Some("other"));
        assert!(
            session
                .query("select 1; select 2 where false")
                .await
                .unwrap()
                .is_empty()
        );
        session.batch("").await.unwrap();

        // Values are data.
        let hostile = "a'b\"c\\d\n$(x) :number `id` ä";
        let select = "select g as number, :'word' as word from generate_series(1, 5000) g";
        let rows: Vec<Row> = session
            .rows("rows", select, &[("word", hostile)])
            .await
            .unwrap();
        assert_eq!(rows.len(), 5000);
        assert_eq!(
            (rows[4999].number, rows[4999].word.as_str()),
            (5000, hostile)
        );

        // In and out again, in pieces of odd sizes, with statements around the COPY.
        let mut text = Vec::new();
        for number in 0..200_000_u32 {
            text.extend_from_slice(
                format!("{number}\t{}\n", "x".repeat(number as usize % 40)).as_bytes(),
            );
        }
        let sql = "create table t(n int, w text); begin; copy t from stdin; commit; analyze t";
        let mut copy = session.copy_in(sql).await.unwrap();
        for (index, piece) in text.chunks(300_007).enumerate() {
            let small = if index % 2 == 0 { 4_099 } else { piece.len() };
            for part in piece.chunks(small) {
                copy.send(part).await.unwrap();
            }
        }
        assert_eq!(copy.finish().await.unwrap(), 200_000);
        for want in [1, 10_000, 1 << 20, usize::MAX / 2] {
            let sql = "begin; lock table t in access share mode nowait; copy t to stdout; commit";
            let copy = session.copy_out(sql).await.unwrap();
            let (rows, count) = all(copy, want).await;
            assert_eq!(count, 200_000);
            assert!(rows == text, "the rows of major {major} by {want}");
        }
        // A row longer than all buffers, read in pieces; nothing at all.
        let copy = session
            .copy_out("copy (select repeat('ab', 5000000)) to stdout")
            .await
            .unwrap();
        let (rows, count) = all(copy, 100_000).await;
        assert_eq!((rows.len(), count), (10_000_001, 1));
        let copy = session
            .copy_out("copy (select 1 where false) to stdout")
            .await
            .unwrap();
        assert_eq!(all(copy, 1).await, (Vec::new(), 0));
        let copy = session.copy_in("copy t from stdin").await.unwrap();
        assert_eq!(copy.finish().await.unwrap(), 0);
        // Not read, but finished.
        let copy = session.copy_out("copy t to stdout").await.unwrap();
        assert_eq!(copy.finish().await.unwrap(), 200_000);

        session.close().await;
        assert_eq!(container.pgstow_sessions().unwrap(), 0, "major {major}");
    }
}

#[tokio::test]
async fn an_error_leaves_the_session_usable_or_clearly_dead() {
    let container = PgContainer::start(17).unwrap();
    let mut session = session(&container).await;
    session
        .batch("create table t(n int primary key, d int); insert into t select g, (g <> 90000)::int from generate_series(1, 100000) g")
        .await
        .unwrap();
    let error = session
        .query("select 1; select * from none_such; select 2")
        .await
        .unwrap_err();
    assert_eq!(error.sqlstate(), Some("42P01"));
    assert!(
        error
            .to_string()
            .contains("relation \"none_such\" does not exist"),
        "{error}"
    );

    // In front of the COPY, and instead of it.
    let error = session
        .copy_out("lock table none_such; copy t to stdout")
        .await
        .unwrap_err();
    assert_eq!(error.sqlstate(), Some("42P01"));
    let error = session.copy_out("select 1").await.unwrap_err();
    assert!(matches!(error, NativeError::Protocol { .. }), "{error}");
    let error = session.batch("copy t from stdin").await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("57014"));
    session.batch("copy t to stdout").await.unwrap();

    // In the middle of rows that come out.
    let mut copy = session
        .copy_out("copy (select 1 / d from t) to stdout")
        .await
        .unwrap();
    let mut rows = Vec::new();
    let error = loop {
        match copy.read(&mut rows, 1000).await {
            Ok(more) => assert!(more, "there is an error in it"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.sqlstate(), Some("22012"));
    assert_eq!(rows.len(), 89_999 * 2);
    assert!(matches!(
        copy.read(&mut rows, 1).await,
        Err(NativeError::Over { .. })
    ));
    assert_eq!(one(&mut session, "select 7").await, "7");

    // In the middle of rows that go in: at once, and while much is under way. More than what a
    // client may write before it looks whether there is something to read.
    let bad = [
        b"1000001\t1\n".to_vec(),
        b"x\t1\n".to_vec(),
        b"5\t5\n".repeat(20_000_000),
    ]
    .concat();
    for piece in [1000, 300_000, 4 << 20] {
        let mut copy = session.copy_in("copy t from stdin").await.unwrap();
        let mut failed = None;
        for part in bad.chunks(piece) {
            if let Err(error) = copy.send(part).await {
                failed = Some(error);
                break;
            }
        }
        let error = failed.expect("it is refused before all is sent");
        assert_eq!(error.sqlstate(), Some("22P02"), "{error}");
        assert!(
            copy.send(b"1\t1\n".repeat(100_000).as_slice())
                .await
                .is_err()
        );
        assert_eq!(one(&mut session, "select count(*) from t").await, "100000");
    }
    // At the very end.
    let mut copy = session.copy_in("copy t from stdin").await.unwrap();
    copy.send(b"1\t1\n").await.unwrap();
    let error = copy.finish().await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("23505"));
    // Given up by us; dropped.
    let mut copy = session.copy_in("copy t from stdin").await.unwrap();
    copy.send(b"1000001\t1\n").await.unwrap();
    copy.abort("no more").await.unwrap();
    assert_eq!(one(&mut session, "select count(*) from t").await, "100000");
    drop(session.copy_in("copy t from stdin").await.unwrap());
    assert!(matches!(
        session.batch("select 1").await,
        Err(NativeError::Over { .. })
    ));
    session.close().await;
}

#[tokio::test]
async fn notices_of_triggers_do_not_stop_rows_that_go_in() {
    let container = PgContainer::start(15).unwrap();
    let mut session = session(&container).await;
    session
        .batch("create table t(n int); create function f() returns trigger language plpgsql as $$ begin \
                raise notice '%', repeat('x', 2000); return new; end $$; \
                create trigger g before insert on t for each row execute function f()")
        .await
        .unwrap();
    // 100 MB of notices against 5 MB of rows: more than the buffers of both sides hold.
    let mut copy = session.copy_in("copy t from stdin").await.unwrap();
    let rows = [b"0".repeat(90).as_slice(), b"1\n"].concat().repeat(50_000);
    let sent = async {
        for part in rows.chunks(1 << 20) {
            copy.send(part).await.unwrap();
        }
        copy.finish().await.unwrap()
    };
    let sent = tokio::time::timeout(Duration::from_secs(60), sent).await;
    assert_eq!(sent.expect("no side waits for the other"), 50_000);
}

#[tokio::test]
async fn a_session_that_is_ended_says_so() {
    let container = PgContainer::start(18).unwrap();
    let end = |pid: i32| {
        container
            .psql("postgres", &format!("select pg_terminate_backend({pid})"))
            .unwrap();
    };
    // Rows out.
    let mut ended = session(&container).await;
    let pid = ended.backend_pid();
    let mut copy = ended
        .copy_out("copy (select g, pg_sleep(0.0001) from generate_series(1, 1000000) g) to stdout")
        .await
        .unwrap();
    let mut rows = Vec::new();
    copy.read(&mut rows, 1).await.unwrap();
    end(pid);
    let error = loop {
        match copy.read(&mut rows, 1 << 20).await {
            Ok(more) => assert!(more),
            Err(error) => break error,
        }
    };
    assert_eq!(error.sqlstate(), Some("57P01"), "{error}");
    assert!(matches!(
        ended.batch("select 1").await,
        Err(NativeError::Over { .. })
    ));
    ended.close().await;
    // Rows in.
    let mut ended = session(&container).await;
    ended.batch("create table t(n text)").await.unwrap();
    let pid = ended.backend_pid();
    let mut copy = ended.copy_in("copy t from stdin").await.unwrap();
    copy.send(b"1\n").await.unwrap();
    end(pid);
    let piece = vec![b'\n'; 1 << 20];
    let error = loop {
        if let Err(error) = copy.send(&piece).await {
            break error;
        }
    };
    assert_eq!(error.sqlstate(), Some("57P01"), "{error}");
    assert!(matches!(
        ended.batch("select 1").await,
        Err(NativeError::Over { .. })
    ));
    // Between statements.
    let mut ended = session(&container).await;
    end(ended.backend_pid());
    let error = ended.batch("select 1").await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("57P01"), "{error}");
    // A container that is gone: an error, no hang.
    let mut left = session(&container).await;
    let pid = left.backend_pid();
    let (slept, ()) = tokio::join!(left.batch("select pg_sleep(100)"), async {
        until_asleep(&container, pid).await;
        container.engine("kill").unwrap();
    });
    slept.unwrap_err();
    assert!(matches!(
        left.batch("select 1").await,
        Err(NativeError::Over { .. })
    ));
    left.close().await;
}

#[tokio::test]
async fn a_server_that_stands_still_holds_nobody_up_at_the_ends() {
    let container = PgContainer::start(17).unwrap();
    let mut session = session(&container).await;
    let (route, creds) = (route(&container), creds(&container, "postgres", None));
    let mut settings = ConnectionSettings::new("still");
    settings.connect_timeout = Duration::from_secs(1);
    container.engine("pause").unwrap();
    let limit = Duration::from_secs(7);
    let connecting = NativeSession::connect(&route, &creds, "postgres", &settings, NAME);
    let error = tokio::time::timeout(limit, connecting).await.unwrap();
    assert!(matches!(error, Err(NativeError::Unreachable { .. })));
    let canceller = session.canceller();
    let cancelled = tokio::time::timeout(limit, canceller.cancel()).await;
    assert!(cancelled.expect("bounded").is_err());
    // Whoever waits decides how long; what was left half-way is over.
    let waiting = tokio::time::timeout(Duration::from_millis(300), session.batch("select 1"));
    waiting.await.unwrap_err();
    assert!(matches!(
        session.batch("select 1").await,
        Err(NativeError::Over { .. })
    ));
    tokio::time::timeout(limit, session.close()).await.unwrap();
    container.engine("unpause").unwrap();
}

#[tokio::test]
async fn a_statement_is_cancelled_from_elsewhere() {
    for major in [13, 18] {
        let container = PgContainer::start(major).unwrap();
        let mut session = session(&container).await;
        cancel_a_sleep(&container, &mut session).await;
        assert_eq!(one(&mut session, "select 1").await, "1");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_answers_at_once_ends_a_copy() {
    let container = PgContainer::start(17).unwrap();
    let mut session = session(&container).await;
    session.batch("create temp table t(n int)").await.unwrap();
    for _ in 0..5_000 {
        let mut copy = session.copy_in("copy t from stdin").await.unwrap();
        copy.send(b"1\n").await.unwrap();
        assert_eq!(copy.finish().await.unwrap(), 1);
    }
    assert_eq!(one(&mut session, "select count(*) from t").await, "5000");
}

#[tokio::test]
async fn statements_with_parameters() {
    for major in [13, 18] {
        let container = PgContainer::start(major).unwrap();
        let mut session = session(&container).await;
        let number = |value: i32| Parameter {
            kind: 23,
            value: value.to_be_bytes().to_vec(),
        };
        let bytes = Parameter {
            kind: 17,
            value: vec![7; 3 << 20],
        };
        let sql = "select $1 + $2, null, length($3)";
        let parameters = [number(40), number(2), bytes];
        let rows = session.query_with(sql, &parameters).await.unwrap();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(rows, [[some("42"), None, some("3145728")]]);
        // An error leaves the session usable, also when nothing was bound.
        let divided = session.query_with("select 1 / $1", &[number(0)]).await;
        assert_eq!(divided.unwrap_err().sqlstate(), Some("22012"));
        let unknown = session.query_with("select nothing", &[]).await;
        assert_eq!(unknown.unwrap_err().sqlstate(), Some("42703"));
        assert_eq!(one(&mut session, "select 1").await, "1");
        session.close().await;
    }
}
