//! The demo's server in a container: started by the engine's own client program, from an image
//! that is here already. Nothing is pulled.

use std::process::Stdio;
use std::time::{Duration, Instant};

use dbexec::ContainerRuntime;
use secrecy::{ExposeSecret, SecretString};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::random_word;
use crate::session::Session;

/// Images that are tried before the host's programs are.
const ATTEMPTS: usize = 3;
const READY_WITHIN: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(200);
/// An image beyond this many is not looked at.
const MAX_IMAGES: usize = 200;

/// A container that is removed by [`DemoContainer::stop`]; dropping it removes it as well, as far
/// as a process can be started then.
pub(super) struct DemoContainer {
    name: String,
    image: String,
    client: Client,
    stopped: bool,
}

impl DemoContainer {
    /// TARGET.
    pub(super) fn target(&self) -> String {
        format!("container:{}", self.name)
    }

    /// For people.
    pub(super) fn words(&self) -> String {
        format!("container {} (image {})", self.name, self.image)
    }

    /// Removes the container with its volume.
    pub(super) async fn stop(mut self) -> Result<(), String> {
        self.stopped = true;
        self.client
            .run(&["rm", "--force", "--volumes", &self.name])
            .await
            .map(drop)
    }
}

impl Drop for DemoContainer {
    fn drop(&mut self) {
        if !self.stopped {
            // Cut short by a signal. The client outlives us; nobody waits for it.
            let _ = self
                .client
                .command(&["rm", "--force", "--volumes", &self.name])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
        }
    }
}

/// The engine's client program.
#[derive(Clone)]
struct Client {
    program: &'static str,
}

impl Client {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command
            .args(args)
            .stdin(Stdio::null())
            // A Ctrl-C at the terminal is for pgstow, which then cleans up.
            .process_group(0);
        command
    }

    async fn run(&self, args: &[&str]) -> Result<String, String> {
        self.finish(
            self.command(args),
            args.first().copied().unwrap_or_default(),
        )
        .await
    }

    async fn finish(&self, mut command: Command, verb: &str) -> Result<String, String> {
        let output = command
            .output()
            .await
            .map_err(|error| format!("{} {verb}: {error}", self.program))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let words = String::from_utf8_lossy(&output.stderr);
        let last = words
            .trim()
            .lines()
            .last()
            .unwrap_or("it said nothing")
            .to_owned();
        Err(format!("{} {verb} failed: {last}", self.program))
    }
}

/// Starts a server that accepts TCP connections inside its container.
pub(super) async fn start(
    session: &Session,
    runtime: &dyn ContainerRuntime,
    user: &str,
    database: &str,
    password: &SecretString,
) -> Result<DemoContainer, String> {
    let program = match runtime.describe().to_ascii_lowercase() {
        engine if engine.contains("podman") => "podman",
        _ => "docker",
    };
    let client = Client { program };
    let images = images(&client).await?;
    if images.is_empty() {
        return Err(format!(
            "{} answers, but has no image of PostgreSQL (looked for postgres:* and for images that set PG_MAJOR and PGDATA)",
            runtime.describe()
        ));
    }
    let mut failures = Vec::new();
    for image in images.into_iter().take(ATTEMPTS) {
        let cancel = &session.interrupts.token;
        match start_image(&client, &image, user, database, password, cancel).await {
            Ok(container) => return Ok(container),
            Err(why) if cancel.is_cancelled() => return Err(why),
            Err(why) => {
                session
                    .printer
                    .message(format!("image {image} does not serve: {why}"));
                failures.push(format!("{image}: {why}"));
            }
        }
    }
    Err(failures.join("; "))
}

async fn start_image(
    client: &Client,
    image: &str,
    user: &str,
    database: &str,
    password: &SecretString,
    cancel: &CancellationToken,
) -> Result<DemoContainer, String> {
    let name = format!("pgstow-demo-{}", &random_word()[..6]);
    let user = format!("POSTGRES_USER={user}");
    let database = format!("POSTGRES_DB={database}");
    let args = [
        "run",
        "--detach",
        "--rm",
        "--name",
        &name,
        "--label",
        "pgstow.demo=true",
        "--env",
        &user,
        "--env",
        &database,
        // Without a value the client takes it from its own environment: not in an argument.
        "--env",
        "POSTGRES_PASSWORD",
        image,
    ];
    let mut command = client.command(&args);
    command.env("POSTGRES_PASSWORD", password.expose_secret());
    // The guard first: the container may exist although its start is told as failed.
    let container = DemoContainer {
        name,
        image: image.to_owned(),
        client: client.clone(),
        stopped: false,
    };
    // Not dropped half-way by a signal: the container could then come up after it was removed.
    match wait_ready(
        client,
        &container.name,
        client.finish(command, "run"),
        cancel,
    )
    .await
    {
        Ok(()) => Ok(container),
        Err(why) => {
            // It may be gone already: it is started to be removed at its end.
            let _ = container.stop().await;
            Err(why)
        }
    }
}

/// Ready is a server that listens on TCP: the one of the images' initialisation does not.
async fn wait_ready(
    client: &Client,
    name: &str,
    started: impl Future<Output = Result<String, String>>,
    cancel: &CancellationToken,
) -> Result<(), String> {
    started.await?;
    let begun = Instant::now();
    loop {
        if cancel.is_cancelled() {
            return Err("interrupted".to_owned());
        }
        let probe = ["exec", name, "pg_isready", "-q", "-h", "127.0.0.1"];
        let Err(why) = client.run(&probe).await else {
            return Ok(());
        };
        let running = client
            .run(&["inspect", "--format", "{{.State.Running}}", name])
            .await;
        if !running.is_ok_and(|answer| answer.trim() == "true") {
            return Err("its container ended at once".to_owned());
        }
        if begun.elapsed() > READY_WITHIN {
            return Err(format!(
                "no server listened within {} s ({why})",
                READY_WITHIN.as_secs()
            ));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Local images with PostgreSQL, best first: official ones, then others by name; newest major
/// first.
async fn images(client: &Client) -> Result<Vec<String>, String> {
    let listed = client
        .run(&[
            "images",
            "--filter",
            "dangling=false",
            "--format",
            "{{.Repository}}:{{.Tag}}",
        ])
        .await?;
    let mut found = Vec::new();
    for image in listed
        .lines()
        .filter(|line| !line.contains("<none>"))
        .take(MAX_IMAGES)
    {
        let format = "{{range .Config.Env}}{{println .}}{{end}}";
        let Ok(env) = client
            .run(&["image", "inspect", "--format", format, image])
            .await
        else {
            continue;
        };
        if let Some(major) = postgres_major(&env) {
            found.push((rank(image), std::cmp::Reverse(major), image.to_owned()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, _, image)| image).collect())
}

/// The major of an image whose environment says that it serves PostgreSQL.
fn postgres_major(env: &str) -> Option<u32> {
    let value = |name: &str| {
        env.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    };
    value("PGDATA")?;
    value("PG_MAJOR")?.parse().ok()
}

fn rank(image: &str) -> u8 {
    let repository = image
        .rsplit_once(':')
        .map_or(image, |(repository, _)| repository);
    match repository {
        "postgres" | "library/postgres" | "docker.io/library/postgres" => 0,
        other if other.ends_with("/postgres") => 1,
        other if other.contains("postg") => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn official_images_come_first() {
        assert_eq!(rank("postgres:17"), 0);
        assert_eq!(rank("docker.io/library/postgres:17"), 0);
        assert_eq!(rank("registry:5000/own/postgres:17"), 1);
        assert_eq!(rank("postgis/postgis:16-3.4"), 2);
        assert_eq!(rank("shop/app:1"), 3);
    }

    #[test]
    fn an_image_is_known_by_its_environment() {
        assert_eq!(
            postgres_major("PATH=/bin\nPG_MAJOR=17\nPGDATA=/data\n"),
            Some(17)
        );
        assert_eq!(postgres_major("PG_MAJOR=17\n"), None);
        assert_eq!(postgres_major("PG_MAJOR_X=17\nPGDATA=/d\n"), None);
    }
}
