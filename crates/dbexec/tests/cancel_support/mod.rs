//! Statements of native sessions that are under way.

use std::time::{Duration, Instant};

use dbexec::NativeSession;
use testkit::PgContainer;

/// Waits until the server's side of a session sleeps.
pub(crate) async fn until_asleep(container: &PgContainer, pid: i32) {
    let sql = format!("select wait_event from pg_stat_activity where pid = {pid}");
    let deadline = Instant::now() + Duration::from_secs(10);
    while container.psql("postgres", &sql).expect("it answers").trim() != "PgSleep" {
        assert!(Instant::now() < deadline, "session {pid} does not sleep");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Cancels a statement of a session from elsewhere.
pub(crate) async fn cancel_a_sleep(container: &PgContainer, session: &mut NativeSession) {
    let (canceller, pid) = (session.canceller(), session.backend_pid());
    let (slept, asked) = tokio::join!(session.batch("select pg_sleep(60)"), async {
        until_asleep(container, pid).await;
        canceller.cancel().await
    });
    asked.expect("the request is sent");
    assert_eq!(
        slept.expect_err("it was cancelled").sqlstate(),
        Some("57014")
    );
}
