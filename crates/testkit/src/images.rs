//! Images of PostgreSQL for the tests: pulled where a registry answers, else built from Debian's
//! packages with debootstrap and `docker import`. A label holds the hash of the recipe, so a
//! second run is quick and a changed recipe builds anew.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::engine;
use crate::process::{docker, run};

/// Majors for which there are images.
pub const MAJORS: [u32; 4] = [13, 15, 17, 18];
const RECIPE_LABEL: &str = "pgstow.test.recipe";
const ENTRYPOINT: &str = include_str!("../assets/entrypoint.sh");
const APP: &str = include_str!("../assets/app-entrypoint.sh");
const BITNAMI: &str = include_str!("../assets/bitnami-entrypoint.sh");
const BITNAMI_INIT: &str = include_str!("../assets/bitnami-init.sh");
const KARTOZA: &str = include_str!("../assets/kartoza-entrypoint.sh");
const EXTENSION_CONTROL: &str = include_str!("../assets/extension/stowtest.control");
const EXTENSION_SCRIPT: &str = include_str!("../assets/extension/stowtest--1.2.sql");
const PRELOAD_FILES: [(&str, &str); 4] = [
    (
        "stowloaded.control",
        include_str!("../assets/preload/stowloaded.control"),
    ),
    (
        "stowloaded--1.0.sql",
        include_str!("../assets/preload/stowloaded--1.0.sql"),
    ),
    (
        "timescaledb.control",
        include_str!("../assets/preload/timescaledb.control"),
    ),
    (
        "timescaledb--2.99.0.sql",
        include_str!("../assets/preload/timescaledb--2.99.0.sql"),
    ),
];
/// To be raised when [`build_base`] changes what is in a base image.
const BASE_VERSION: &str = "1";
const LOCALES: &str = "en_US.UTF-8 UTF-8\nde_DE.UTF-8 UTF-8\nde_DE ISO-8859-1\n";

/// Image in the manner of the official one.
#[must_use]
pub fn postgres(major: u32) -> String {
    format!("pgstow-test/postgres:{major}")
}

/// An application's image that carries its server inside.
#[must_use]
pub fn app(major: u32) -> String {
    format!("pgstow-test/app:{major}")
}

/// Image with Bitnami's spelling of the environment.
#[must_use]
pub fn bitnami() -> String {
    "pgstow-test/bitnami:15".to_owned()
}

/// Image with the PostGIS images' spelling of the environment.
#[must_use]
pub fn kartoza() -> String {
    "pgstow-test/kartoza:15".to_owned()
}

/// Image without a shell.
#[must_use]
pub fn shell_less() -> String {
    "pgstow-test/noshell:15".to_owned()
}

/// Image whose server has no client programs beside it.
#[must_use]
pub fn program_less() -> String {
    "pgstow-test/noprograms:15".to_owned()
}

/// Image with preloaded libraries and two extensions that stock images lack (15 and 17 alone):
/// `stowloaded`, which is refused without them, and a stand-in for `timescaledb` whose catalogue
/// takes no rows outside of its restore hooks.
#[must_use]
pub fn preload(major: u32) -> String {
    format!("pgstow-test/preload:{major}")
}

/// Makes sure that every image is there, two at a time.
///
/// # Errors
/// Which image could not be had, and why.
pub fn ensure_all(say: &(dyn Fn(&str) + Sync)) -> Result<(), String> {
    let waiting = Mutex::new(MAJORS.to_vec());
    let errors = Mutex::new(Vec::new());
    let worker = || {
        while let Some(major) = lock(&waiting).pop() {
            if let Err(error) = ensure_major(major, say) {
                lock(&errors).push(error);
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(worker);
        scope.spawn(worker);
    });
    let errors = errors.into_inner().unwrap_or_default();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors.join("\n"))
    }
}

/// Fails with the command that helps when an image is not there.
///
/// # Errors
/// The image's name and the command that makes it.
pub fn require(image: &str) -> Result<(), String> {
    docker(&["image", "inspect", "--format", "ok", image])
        .map(drop)
        .map_err(|error| {
            format!("image {image} is not there; run `cargo xtask images`, which makes it\n{error}")
        })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn suite(major: u32) -> &'static str {
    match major {
        13 => "bullseye",
        15 => "bookworm",
        17 => "trixie",
        _ => "forky",
    }
}

/// FNV-1a over everything that an image is made from: stable over Rust releases.
fn recipe_hash(tag: &str, lines: &str) -> String {
    let scripts = [ENTRYPOINT, APP, BITNAMI, BITNAMI_INIT, KARTOZA, LOCALES];
    let extension = [EXTENSION_CONTROL, EXTENSION_SCRIPT];
    let more = PRELOAD_FILES
        .iter()
        .filter(|_| tag.contains("/preload:"))
        .map(|(_, text)| *text);
    let parts = scripts
        .into_iter()
        .chain(extension)
        .chain(more)
        .chain([tag, lines, BASE_VERSION]);
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in parts.flat_map(|part| part.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

fn ensure_major(major: u32, say: &(dyn Fn(&str) + Sync)) -> Result<(), String> {
    let is_current = |tag: &str, hash: &str| {
        let format = format!("{{{{index .Config.Labels \"{RECIPE_LABEL}\"}}}}");
        docker(&["image", "inspect", "--format", &format, tag]).is_ok_and(|l| l.trim() == hash)
    };
    let mut wanted: Vec<(String, String, String)> = variants(major)
        .into_iter()
        .map(|(tag, lines)| {
            let hash = recipe_hash(&tag, &lines);
            (tag, lines, hash)
        })
        .collect();
    wanted.retain(|(tag, _, hash)| !is_current(tag, hash));
    if wanted.is_empty() {
        return Ok(());
    }
    let started = Instant::now();
    let base = base_image(major, say)?;
    let context = tempfile::tempdir().map_err(|error| error.to_string())?;
    write_context(context.path())?;
    for (tag, lines, hash) in wanted {
        let file = format!("FROM {base}\nLABEL {RECIPE_LABEL}={hash}\n{lines}");
        let path = context.path().join("Dockerfile");
        fs::write(&path, file).map_err(|error| error.to_string())?;
        let dir = context.path().to_string_lossy().into_owned();
        // The classic builder needs nothing that is not in the engine itself.
        run(
            "env",
            &[
                "DOCKER_BUILDKIT=0",
                "docker",
                "build",
                "-q",
                "-t",
                &tag,
                &dir,
            ],
        )
        .map_err(|error| format!("image {tag} cannot be built: {error}"))?;
    }
    say(&format!(
        "images of PostgreSQL {major} are ready ({} s)",
        started.elapsed().as_secs()
    ));
    Ok(())
}

/// Tags of a major, with the lines that make each from its base.
fn variants(major: u32) -> Vec<(String, String)> {
    let postgres_lines = "COPY docker-entrypoint.sh /usr/local/bin/\n\
        COPY stowtest.control stowtest--1.2.sql /stowtest/\n\
        RUN mkdir -p /docker-entrypoint-initdb.d \
         && cp /stowtest/* \"$(pg_config --sharedir 2>/dev/null || echo /usr/share/postgresql/$PG_MAJOR)\"/extension/\n\
        ENTRYPOINT [\"docker-entrypoint.sh\"]\n\
        CMD [\"postgres\"]\n\
        STOPSIGNAL SIGINT\n\
        EXPOSE 5432\n\
        VOLUME /var/lib/postgresql/data\n";
    let entry = |script: &str, more: &str| {
        format!(
            "{postgres_lines}COPY {script} /usr/local/bin/\n{more}ENTRYPOINT [\"{script}\"]\n\
             CMD [\"postgres\"]\n"
        )
    };
    let mut list = vec![
        (postgres(major), postgres_lines.to_owned()),
        (
            app(major),
            entry(
                "app-entrypoint.sh",
                "ENV POSTGRES_HOST=localhost POSTGRES_PORT=5432 POSTGRES_DATABASE=appdb \
                 POSTGRES_USERNAME=appuser POSTGRES_PASSWORD=app-secret\n",
            ),
        ),
    ];
    if matches!(major, 15 | 17) {
        list.push((
            preload(major),
            format!(
                "{postgres_lines}COPY stowloaded* timescaledb* /preload/\n\
                 RUN cp /preload/* /usr/share/postgresql/$PG_MAJOR/extension/\n\
                 CMD [\"postgres\", \"-c\", \
                      \"shared_preload_libraries=auto_explain,pg_stat_statements\"]\n"
            ),
        ));
    }
    if major == 15 {
        list.push((
            bitnami(),
            entry(
                "bitnami-entrypoint.sh",
                "COPY bitnami-init.sh /docker-entrypoint-initdb.d/\n",
            ),
        ));
        list.push((kartoza(), entry("kartoza-entrypoint.sh", "")));
        // initdb needs a shell, so the cluster is made while there is one.
        list.push((
            shell_less(),
            "ENV PGDATA=/srv/data\n\
             RUN install -d -o postgres -g postgres -m 700 /srv/data \
              && install -d -o postgres -g postgres /run/postgresql \
              && setpriv --reuid=postgres --regid=postgres --clear-groups \
                 /usr/lib/postgresql/15/bin/initdb --no-sync --username=postgres --auth=trust \
              && echo 'host all all all trust' >> /srv/data/pg_hba.conf \
              && rm -f /bin/sh /bin/dash /bin/bash /usr/bin/sh /usr/bin/dash /usr/bin/bash\n\
             ENTRYPOINT [\"setpriv\", \"--reuid=postgres\", \"--regid=postgres\", \
                         \"--clear-groups\", \"/usr/lib/postgresql/15/bin/postgres\"]\n\
             CMD []\n\
             EXPOSE 5432\n"
                .to_owned(),
        ));
        let without = "RUN for p in pg_dump pg_dumpall pg_restore; do \
                       rm -f /usr/bin/$p /usr/lib/postgresql/15/bin/$p; done\n";
        list.push((program_less(), format!("{postgres_lines}{without}")));
    }
    list
}

fn write_context(dir: &Path) -> Result<(), String> {
    let files = [
        ("docker-entrypoint.sh", ENTRYPOINT),
        ("app-entrypoint.sh", APP),
        ("bitnami-entrypoint.sh", BITNAMI),
        ("bitnami-init.sh", BITNAMI_INIT),
        ("kartoza-entrypoint.sh", KARTOZA),
        ("stowtest.control", EXTENSION_CONTROL),
        ("stowtest--1.2.sql", EXTENSION_SCRIPT),
    ];
    for (name, text) in files.into_iter().chain(PRELOAD_FILES) {
        let path = dir.join(name);
        let mode = if name.ends_with("entrypoint.sh") {
            0o755
        } else {
            0o644
        };
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// The image with the packages alone: reused while it is there.
fn base_image(major: u32, say: &(dyn Fn(&str) + Sync)) -> Result<String, String> {
    let tag = format!("pgstow-test/base:{major}-{BASE_VERSION}");
    if docker(&["image", "inspect", "--format", "ok", &tag]).is_ok() {
        return Ok(tag);
    }
    let official = format!("postgres:{major}");
    if pull(&official) {
        say(&format!("pulled {official}"));
        docker(&["tag", &official, &tag])?;
        return Ok(tag);
    }
    say(&format!(
        "no registry answers: building PostgreSQL {major} from Debian {}",
        suite(major)
    ));
    build_base(major, &tag)?;
    Ok(tag)
}

/// A bounded try: a registry that does not answer must not hold up the set-up.
fn pull(image: &str) -> bool {
    let pulling = Command::new("docker")
        .args(["pull", "-q", image])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = pulling else {
        return false;
    };
    let deadline = Instant::now() + Duration::from_secs(120);
    while Instant::now() < deadline {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => std::thread::sleep(Duration::from_millis(100)),
            Err(_) => break,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}

fn build_base(major: u32, tag: &str) -> Result<(), String> {
    static INSTALLING: Mutex<()> = Mutex::new(());
    {
        let _one_at_a_time = lock(&INSTALLING);
        engine::install(&["debootstrap"], "debootstrap", &|_| ())?;
    }
    let suite = suite(major);
    // On a real disk: a root file system in a memory file system would take the tests' memory.
    let dir = tempfile::Builder::new()
        .prefix("pgstow-image-")
        .tempdir_in("/var/tmp")
        .map_err(|error| format!("/var/tmp: {error}"))?;
    let root = dir.path().join("root");
    let root_text = root.to_string_lossy().into_owned();
    let scripts = Path::new("/usr/share/debootstrap/scripts");
    let mut args = vec!["--variant=minbase", "--include=locales"];
    // Debian's keyring of this machine may be older than the suite. The packages then are not
    // authenticated, which is tolerable for throw-away test servers without a network.
    if !keyring_knows(suite) {
        args.push("--no-check-gpg");
    }
    let mirror = mirror()?;
    args.extend([suite, &root_text, &mirror]);
    let script = scripts.join("sid").to_string_lossy().into_owned();
    if !scripts.join(suite).exists() {
        args.push(&script);
    }
    run("debootstrap", &args)?;
    write(
        &root,
        "etc/postgresql-common/createcluster.conf",
        "create_main_cluster = false\n",
    )?;
    write(&root, "etc/locale.gen", LOCALES)?;
    // Packages must not start servers while they are installed into a folder.
    write(&root, "usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n")?;
    let policy = root.join("usr/sbin/policy-rc.d");
    fs::set_permissions(&policy, fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
    let package = format!("postgresql-{major}");
    // Some packages' scripts need /proc; in a mount namespace of its own it is gone by itself.
    const ENTER: &str = r#"mount -t proc proc "$0/proc" && exec chroot "$0" "$@""#;
    let chroot = |args: &[&str]| {
        run(
            "unshare",
            &[
                &["--mount", "sh", "-c", ENTER, root_text.as_str()][..],
                args,
            ]
            .concat(),
        )
    };
    chroot(&["locale-gen"])?;
    let install = [
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "install",
        "-y",
        "-qq",
    ];
    chroot(&[&install[..], &["--no-install-recommends", &package]].concat())?;
    chroot(&["apt-get", "clean"])?;
    import(&root_text, major, tag)
}

/// Whether the installed keyring is of the suite's time; newer suites need a newer one.
fn keyring_knows(suite: &str) -> bool {
    matches!(suite, "bullseye" | "bookworm")
}

/// The mirror that this machine's own package sources name.
fn mirror() -> Result<String, String> {
    let deb822 = fs::read_to_string("/etc/apt/sources.list.d/debian.sources").unwrap_or_default();
    let list = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    let uri = deb822
        .lines()
        .find_map(|line| line.strip_prefix("URIs:"))
        .or_else(|| {
            list.lines()
                .find(|line| line.starts_with("deb "))?
                .split_whitespace()
                .find(|w| w.contains("://"))
        });
    uri.map(|uri| uri.trim().to_owned())
        .ok_or_else(|| "the package sources of this machine name no Debian mirror".to_owned())
}

fn write(root: &Path, name: &str, text: &str) -> Result<(), String> {
    let path = root.join(name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| format!("{}: {error}", parent.display()))?;
    }
    fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn import(root: &str, major: u32, tag: &str) -> Result<(), String> {
    let mut tar = Command::new("tar")
        .args(["-C", root, "--exclude=./var/lib/apt/lists/*", "-c", "."])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("tar: {error}"))?;
    let stream = tar.stdout.take().ok_or("tar has no output")?;
    let path = format!(
        "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/{major}/bin"
    );
    let output = Command::new("docker")
        .args(["import", "--change", &path])
        .args(["--change", &format!("ENV PG_MAJOR={major}")])
        .args(["--change", "ENV PGDATA=/var/lib/postgresql/data"])
        .args(["--change", "ENV LANG=en_US.utf8", "-", tag])
        .stdin(stream)
        .output()
        .map_err(|error| format!("docker import: {error}"))?;
    let archived = tar.wait().map_err(|error| format!("tar: {error}"))?;
    if !output.status.success() {
        let mut message = b"docker import: ".to_vec();
        message
            .write_all(&output.stderr)
            .map_err(|error| error.to_string())?;
        return Err(String::from_utf8_lossy(&message).into_owned());
    }
    if archived.success() {
        return Ok(());
    }
    // An image of half a file system must not be taken for a base.
    let _ = docker(&["rmi", tag]);
    Err(format!("tar of {root} ended with {archived}"))
}
