//! Looking inside one container: programs, a running server, its sockets and ports, and the
//! files that `…_FILE` variables name. One exec, whose script is a constant; where the container
//! has no shell, its files are read through the engine.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::AsyncReadExt;

use super::variables::{FileContents, file_value};
use crate::{
    ContainerRuntime, PgProgram, RuntimeError,
    executor::{
        programs::{Installation, VERSIONED_DIRS, parse_installation},
        scripts::search,
    },
    runtime::{ExecSpec, Frame},
};

/// Longest wait for the probe of one container.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes that the probe may print: a few files of [`FILE_LIMIT`] and some lines.
const OUTPUT_LIMIT: usize = 1 << 20;
/// Largest file that a `…_FILE` variable may name, in bytes.
pub(crate) const FILE_LIMIT: u64 = 64 * 1024;

/// The probe. Its arguments are a number, so many patterns of directories where programs may be, and
/// names of files. Contents leave with their length in front, so that nothing in them can be taken
/// for another line. Processes are found by `/proc/*/comm`, which holds `postgres` for the server and
/// not for its clients.
const SCRIPT: &str = concat!(
    search!(),
    r#"
mark='programs '
search "$@"
shift "$(($1+1))"
for comm in /proc/[0-9]*/comm; do
  name=
  { read -r name < "$comm"; } 2>/dev/null
  case "$name" in postgres|postmaster) printf 'process\n'; break;; esac
done
for socket in /var/run/postgresql/.s.PGSQL.* /run/postgresql/.s.PGSQL.* /tmp/.s.PGSQL.* /opt/bitnami/postgresql/tmp/.s.PGSQL.*; do
  if [ -S "$socket" ]; then printf 'socket %s\n' "$socket"; fi
done
for table in /proc/net/tcp /proc/net/tcp6; do
  if [ -r "$table" ]; then
    while read -r number local remote state rest; do
      if [ "$state" = 0A ]; then printf 'listen %s\n' "${local##*:}"; fi
    done < "$table"
  fi
done
for file do
  if [ -f "$file" ] && [ -r "$file" ]; then
    size=$(wc -c < "$file")
    size=$((size))
    if [ "$size" -le 65536 ]; then printf 'file %s\n' "$size"; cat "$file"; printf '\n'; else printf 'nofile it is larger than 64 KiB\n'; fi
  elif [ -e "$file" ]; then printf 'nofile it cannot be read by the user of the container\n'
  else printf 'nofile there is no such file in the container\n'
  fi
done
printf 'end\n'
"#
);

/// What was seen inside a container.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inside {
    /// Whether the container has a shell, so that the rest is known.
    pub shell: bool,
    /// Directories with PostgreSQL programs.
    pub installations: Vec<Installation>,
    /// Whether a process of a PostgreSQL server runs.
    pub server: bool,
    /// Sockets: directory and port number.
    pub sockets: Vec<(String, u16)>,
    /// TCP ports on which something listens.
    pub listening: Vec<u16>,
    /// Contents of the files that were asked for, by path.
    pub files: FileContents,
}

impl Inside {
    /// Port of the server: what the settings say when something listens there, else the socket's,
    /// else what the settings say. A shared `.env` often carries the *published* port into the
    /// container, where nobody listens on it.
    pub(crate) fn port(&self, said: Option<u16>) -> u16 {
        let seen = |port: u16| {
            self.listening.contains(&port) || self.sockets.iter().any(|(_, at)| *at == port)
        };
        let mut ports: Vec<u16> = self.sockets.iter().map(|(_, port)| *port).collect();
        ports.sort_unstable();
        ports.dedup();
        match (said, ports.as_slice()) {
            (Some(port), _) if seen(port) => port,
            (_, [only]) => *only,
            (Some(port), _) => port,
            (None, _) => crate::creds::DEFAULT_PORT,
        }
    }

    /// Hosts to try, in order: the local socket, then TCP to the container itself.
    pub(crate) fn hosts(&self, port: u16) -> Vec<Option<String>> {
        let tcp = Some("127.0.0.1".to_owned());
        let directories: Vec<&String> = self
            .sockets
            .iter()
            .filter(|(_, at)| *at == port)
            .map(|(directory, _)| directory)
            .collect();
        if self.shell && directories.is_empty() && self.listening.contains(&port) {
            return vec![tcp];
        }
        // The client's default directory first; another one only where it fails.
        let mut hosts = vec![None];
        if let [only] = directories.as_slice() {
            hosts.push(Some((*only).clone()));
        }
        hosts.push(tcp);
        hosts
    }

    /// What was seen, in words.
    pub(crate) fn words(&self) -> String {
        if !self.shell {
            return "it has no shell, so it could not be looked into".to_owned();
        }
        let found = |program: &&PgProgram| {
            let mut places = self.installations.iter();
            places.any(|place| place.programs.contains(program))
        };
        let names: Vec<_> = PgProgram::ALL.iter().filter(found).collect();
        let names: Vec<_> = names.into_iter().map(|program| program.as_str()).collect();
        let programs = match names.as_slice() {
            [] => "no PostgreSQL programs".to_owned(),
            names => format!("programs {}", names.join(", ")),
        };
        if !self.server {
            return format!("no PostgreSQL server runs inside; {programs}");
        }
        let mut ports: Vec<String> = self.sockets.iter().map(|(_, p)| p.to_string()).collect();
        ports.dedup();
        let at = if ports.is_empty() {
            "no socket in the usual directories".to_owned()
        } else {
            format!("socket for port {}", ports.join(", "))
        };
        format!("a PostgreSQL server runs inside ({at}); {programs}")
    }
}

/// Looks inside a container. `paths` are files to read.
///
/// # Errors
/// The engine's failure; a missing shell is no failure.
pub(crate) async fn look_inside(
    runtime: &dyn ContainerRuntime,
    container: &str,
    paths: &[String],
) -> Result<Inside, RuntimeError> {
    let mut argv = vec![
        "sh".to_owned(),
        "-c".to_owned(),
        SCRIPT.to_owned(),
        "pgstow-probe".to_owned(),
        VERSIONED_DIRS.len().to_string(),
    ];
    argv.extend(VERSIONED_DIRS.iter().map(|&pattern| pattern.to_owned()));
    argv.extend(paths.iter().cloned());
    let spec = ExecSpec {
        argv,
        ..ExecSpec::default()
    };
    let probe = tokio::time::timeout(PROBE_TIMEOUT, collect(runtime, container, &spec)).await;
    match probe {
        Ok(Ok(output)) => {
            if let Some(inside) = parse(&output, paths) {
                return Ok(inside);
            }
        }
        Ok(Err(RuntimeError::Refused { message, .. })) if no_such_program(&message) => {}
        Ok(Err(error)) => return Err(error),
        Err(_) => {
            return Err(RuntimeError::Broken {
                operation: "looking inside the container",
                message: format!("no answer within {} s", PROBE_TIMEOUT.as_secs()),
            });
        }
    }
    let mut inside = Inside::default();
    for path in paths {
        let content = tokio::time::timeout(PROBE_TIMEOUT, read_by_tar(runtime, container, path))
            .await
            .unwrap_or_else(|_| Err("reading it took too long".to_owned()));
        inside
            .files
            .insert(path.clone(), content.and_then(|bytes| file_value(&bytes)));
    }
    Ok(inside)
}

fn no_such_program(message: &str) -> bool {
    ["executable file not found", "no such file or directory"]
        .iter()
        .any(|words| message.to_ascii_lowercase().contains(words))
}

async fn collect(
    runtime: &dyn ContainerRuntime,
    container: &str,
    spec: &ExecSpec,
) -> Result<Vec<u8>, RuntimeError> {
    let mut session = runtime.exec(container, spec).await?;
    let mut output = Vec::new();
    while let Some(frame) = session.output.next().await {
        if let Frame::Stdout(bytes) = frame? {
            if output.len() + bytes.len() > OUTPUT_LIMIT {
                return Err(RuntimeError::Broken {
                    operation: "looking inside the container",
                    message: "the probe printed more than it can have".to_owned(),
                });
            }
            output.extend_from_slice(&bytes);
        }
    }
    Ok(output)
}

/// Reads what the probe printed; `None` when it did not run to its end (no shell: the engine
/// then prints its own words on standard output).
fn parse(output: &[u8], paths: &[String]) -> Option<Inside> {
    let mut inside = Inside {
        shell: true,
        ..Inside::default()
    };
    let mut paths = paths.iter();
    let mut rest = output;
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 1..];
        let (word, value) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
            // What tells no version is none of PostgreSQL's.
            "programs" => inside.installations.extend(parse_installation(value)),
            "process" => inside.server = true,
            "socket" => {
                if let Some((directory, port)) = value
                    .rsplit_once("/.s.PGSQL.")
                    .and_then(|(directory, port)| Some((directory, port.parse().ok()?)))
                {
                    // /var/run is a link to /run in most images: one socket, seen twice.
                    let real = directory
                        .strip_prefix("/var")
                        .unwrap_or(directory)
                        .to_owned();
                    let known = inside.sockets.iter().any(|(other, at)| {
                        *at == port && other.strip_prefix("/var").unwrap_or(other) == real
                    });
                    if !known {
                        inside.sockets.push((directory.to_owned(), port));
                    }
                }
            }
            "listen" => inside
                .listening
                .extend(u16::from_str_radix(value.trim(), 16).ok()),
            "file" => {
                let size: usize = value.trim().parse().ok()?;
                let content = rest.get(..size)?;
                rest = rest.get(size + 1..)?;
                inside
                    .files
                    .insert(paths.next()?.clone(), file_value(content));
            }
            "nofile" => {
                inside
                    .files
                    .insert(paths.next()?.clone(), Err(value.to_owned()));
            }
            "end" => return Some(inside),
            _ => return None,
        }
    }
}

/// Reads one file of a container through the engine: a tar stream with one entry.
async fn read_by_tar(
    runtime: &dyn ContainerRuntime,
    container: &str,
    path: &str,
) -> Result<Vec<u8>, String> {
    const BLOCK: usize = 512;
    let mut tar = runtime
        .get_tar(container, path)
        .await
        .map_err(|error| error.to_string())?;
    let torn = |error: std::io::Error| format!("its copy ended early: {error}");
    // A long name or extended attributes come as entries of their own in front of the file.
    for _ in 0..8 {
        let mut header = [0_u8; BLOCK];
        tar.read_exact(&mut header).await.map_err(torn)?;
        let size = octal(&header[124..136]).ok_or("its copy has no readable size")?;
        if size > FILE_LIMIT {
            return Err("it is larger than 64 KiB".to_owned());
        }
        let padded = usize::try_from(size.next_multiple_of(BLOCK as u64)).unwrap_or(usize::MAX);
        let mut content = vec![0_u8; padded];
        tar.read_exact(&mut content).await.map_err(torn)?;
        match header[156] {
            b'0' | 0 => {
                content.truncate(usize::try_from(size).unwrap_or(usize::MAX));
                return Ok(content);
            }
            b'x' | b'g' | b'L' | b'K' => {}
            b'2' => {
                return Err(
                    "it is a symbolic link and the container has no shell to follow it".to_owned(),
                );
            }
            _ => return Err("it is not a regular file".to_owned()),
        }
    }
    Err("its copy has too many headers".to_owned())
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
}

#[cfg(test)]
#[path = "inside_tests.rs"]
mod tests;
