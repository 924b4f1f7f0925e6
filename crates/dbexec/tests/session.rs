//! The kept-open psql in real containers of every major.

mod executor_support;

use std::time::{Duration, Instant};

use dbexec::{ExecError, PsqlSession};
use executor_support::executor;
use serde::Deserialize;
use testkit::PgContainer;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Deserialize, PartialEq)]
struct Row {
    number: i64,
    word: String,
}

#[tokio::test]
async fn one_session_on_every_major() {
    for major in testkit::images::MAJORS {
        let container = PgContainer::start(major).unwrap();
        container
            .psql("postgres", "create table t(g) as values (1), (2)")
            .unwrap();
        let executor = executor(&container, major, "session").await;
        let cancel = CancellationToken::new();
        let mut session = PsqlSession::open(executor.as_ref(), "postgres", &cancel)
            .await
            .unwrap();
        let begin = "begin isolation level repeatable read read only;\n\
                     select pg_export_snapshot();";
        let snapshot = session.run("snapshot", begin, &[]).await.unwrap();
        assert!(!snapshot.trim().is_empty(), "major {major}");
        container
            .psql("postgres", "insert into t values (3)")
            .unwrap();
        // Longer than the watchdog's patience of 2 s: idle, and in a statement.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let count = session
            .run("count", "select count(*) from t, pg_sleep(3);", &[])
            .await
            .unwrap();
        assert_eq!(
            count, "2\n",
            "the session keeps its snapshot, major {major}"
        );
        // Values are data; more output than any buffer.
        let hostile = "a'b\"c\\d\n$(x) :number `id` ä";
        let select = "select g as number, :'word' as word from generate_series(1, 5000) g";
        let rows: Vec<Row> = session
            .rows("rows", select, &[("word", hostile)])
            .await
            .unwrap();
        assert_eq!(rows.len(), 5000);
        assert_eq!(rows[4999].word, hostile);
        session.run("end", "commit;", &[]).await.unwrap();
        assert_eq!(container.pgstow_sessions().unwrap(), 1);
        session.close().await.unwrap();
        assert_eq!(container.pgstow_sessions().unwrap(), 0);
    }
}

#[tokio::test]
async fn a_failed_statement_has_the_servers_words_and_the_session_goes_on() {
    let container = PgContainer::start(15).unwrap();
    let executor = executor(&container, 15, "errors").await;
    let cancel = CancellationToken::new();
    let mut session = PsqlSession::open(executor.as_ref(), "postgres", &cancel)
        .await
        .unwrap();
    let script = "do $$ begin raise notice 'first'; end $$;\nbegin;\nselect * from none_such;\nselect 1;\nrollback;";
    let error = session.run("bad", script, &[]).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("relation \"none_such\" does not exist")
            && !error.to_string().contains("aborted")
            && !error.to_string().contains("first"),
        "{error}"
    );
    assert!(matches!(error, ExecError::Query { query: "bad", .. }));
    // An error that the script itself deals with is none.
    let script =
        "select 1/0;\n\\if :ERROR\n\\set LAST_ERROR_SQLSTATE 00000\n\\echo undone\n\\endif";
    assert_eq!(
        session.run("handled", script, &[]).await.unwrap(),
        "undone\n"
    );
    let text = session
        .run("good", "select 'x';", &[("v", "1")])
        .await
        .unwrap();
    assert_eq!(text, "x\n");
    let text = session.run("open", "select 7 -- seven", &[]).await.unwrap();
    assert_eq!(text, "7\n");
    assert_eq!(session.run("none", "", &[]).await.unwrap(), "");
    // A variable lives for one script.
    let error = session.run("gone", "select :'v';", &[]).await.unwrap_err();
    assert!(error.to_string().contains("syntax error"), "{error}");
    // The end of the server's session is the end of this one.
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'pgstow-errors-%'";
    container.psql("postgres", end).unwrap();
    let error = session.run("after", "select 1;", &[]).await.unwrap_err();
    assert!(
        error.to_string().contains("terminat") || error.to_string().contains("closed"),
        "{error}"
    );
    let error = session.run("again", "select 1;", &[]).await.unwrap_err();
    assert!(error.to_string().contains("the session is over"), "{error}");
}

#[tokio::test]
async fn a_database_that_is_not_there() {
    let container = PgContainer::start(15).unwrap();
    let executor = executor(&container, 15, "nowhere").await;
    let opened = PsqlSession::open(executor.as_ref(), "none such", &CancellationToken::new()).await;
    let error = opened.err().unwrap();
    assert_eq!(error.code(), dbexec::codes::CREDENTIALS_REFUSED, "{error}");
}

#[tokio::test]
async fn bar_08_dropping_and_cancelling_end_this_session_alone() {
    let container = PgContainer::start(15).unwrap();
    let executor = executor(&container, 15, "dropped").await;
    let cancel = CancellationToken::new();
    let open = || PsqlSession::open(executor.as_ref(), "postgres", &cancel);
    let mut kept = open().await.unwrap();
    let mut dropped = open().await.unwrap();
    assert_eq!(container.pgstow_sessions().unwrap(), 2);
    // Dropped in the middle of a statement.
    let statement = dropped.run("sleep", "select pg_sleep(600);", &[]);
    assert!(
        tokio::time::timeout(Duration::from_millis(500), statement)
            .await
            .is_err()
    );
    let error = dropped.run("torn", "select 1;", &[]).await.unwrap_err();
    assert!(error.to_string().contains("not read to its end"), "{error}");
    drop(dropped);
    sessions_become(&container, 1).await;
    assert_eq!(kept.run("alive", "select 1;", &[]).await.unwrap(), "1\n");
    cancel.cancel();
    let error = kept.run("cancelled", "select 1;", &[]).await.unwrap_err();
    assert_eq!(error.code(), dbexec::codes::INTERRUPTED, "{error}");
    sessions_become(&container, 0).await;
    assert!(
        !container
            .processes()
            .unwrap()
            .iter()
            .any(|line| line.contains("psql")),
        "no psql stays in the container"
    );
}

#[tokio::test]
async fn bar_15_reaping_finds_sessions_by_the_runs_name() {
    let container = PgContainer::start(15).unwrap();
    let left = executor(&container, 15, "left").await;
    let cancel = CancellationToken::new();
    let session = PsqlSession::open(left.as_ref(), "postgres", &cancel)
        .await
        .unwrap();
    let next = executor(&container, 15, "next").await;
    let report = next.reap("pgstow-lef").await.unwrap();
    assert_eq!(
        (report.processes, report.sessions),
        (0, 0),
        "another run's name"
    );
    let report = next.reap("pgstow-left").await.unwrap();
    assert!(report.processes + report.sessions >= 1, "{report:?}");
    sessions_become(&container, 0).await;
    drop(session);
}

#[tokio::test]
async fn a_session_in_an_image_without_a_shell() {
    let container = PgContainer::builder(15)
        .image(&testkit::images::shell_less())
        .start()
        .unwrap();
    let executor = executor(&container, 15, "bare").await;
    let cancel = CancellationToken::new();
    let mut session = PsqlSession::open(executor.as_ref(), "postgres", &cancel)
        .await
        .unwrap();
    assert_eq!(session.run("one", "select 1;", &[]).await.unwrap(), "1\n");
    session.close().await.unwrap();
}

async fn sessions_become(container: &PgContainer, wanted: u32) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let now = container.pgstow_sessions().expect("the server answers");
        if now == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{now} sessions, not {wanted}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
