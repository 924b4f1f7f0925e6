//! A process that owns containers and is killed.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

/// Runs the test `owner_that_is_killed` of this program in a process of its own, tells it by a line
/// what to do, and kills it by SIGKILL after a time (`None`: when it says that it is ready, and
/// after a look at what is there then).
pub(crate) async fn kill_an_owner(line: &str, after: Option<Duration>, look: impl FnOnce()) {
    let mut command =
        tokio::process::Command::new(std::env::current_exe().expect("the helper process runs"));
    command
        .args([
            "--exact",
            "owner_that_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().expect("the helper process runs");
    let mut input = child.stdin.take().expect("the helper process runs");
    input
        .write_all(format!("{line}\n").as_bytes())
        .await
        .expect("the helper process runs");
    match after {
        Some(time) => tokio::time::sleep(time).await,
        None => {
            let output = child.stdout.take().expect("the helper process runs");
            let mut lines = BufReader::new(output).lines();
            loop {
                let line = lines.next_line().await.expect("the helper process runs");
                if line.expect("it becomes ready").contains("ready") {
                    break;
                }
            }
            look();
        }
    }
    child.kill().await.expect("the helper process runs");
}
