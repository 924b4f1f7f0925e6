use std::collections::BTreeMap;

use super::*;

type Row<'a> = (&'a [(&'a str, &'a str)], Result<&'a str, &'a str>);

fn files() -> BTreeMap<PathBuf, &'static str> {
    // SHA-256 of `colima`, `far` and `empty`.
    let meta = |name: &str| {
        let hash = hex(&Sha256::digest(name.as_bytes()));
        PathBuf::from(format!("/home/u/.docker/contexts/meta/{hash}/meta.json"))
    };
    BTreeMap::from([
        (
            meta("colima"),
            r#"{"Name":"colima","Endpoints":{"docker":{"Host":"unix:///home/u/.colima/docker.sock"}}}"#,
        ),
        (
            meta("far"),
            r#"{"Name":"far","Endpoints":{"docker":{"Host":"ssh://u@far"}}}"#,
        ),
        (meta("empty"), r#"{"Name":"empty","Endpoints":{}}"#),
        (
            PathBuf::from("/current/config.json"),
            r#"{"currentContext":"default","auths":{}}"#,
        ),
        (PathBuf::from("/broken/config.json"), "{"),
        (
            PathBuf::from("/lost/config.json"),
            r#"{"currentContext":"gone"}"#,
        ),
    ])
}

fn resolved(env: &[(&str, &str)]) -> Resolved {
    let input = EndpointInput {
        env: env.iter().copied().collect(),
        home: Some(PathBuf::from("/home/u")),
    };
    let files = files();
    resolve(&input, &|path: &Path| {
        files.get(path).map(|text| (*text).to_owned())
    })
}

#[test]
fn bar_21_what_was_chosen_is_the_only_endpoint() {
    let rows: &[Row<'_>] = &[
        (&[("DOCKER_HOST", "unix:///a.sock")], Ok("unix:///a.sock")),
        (&[("DOCKER_HOST", "/a.sock")], Ok("unix:///a.sock")),
        (&[("DOCKER_HOST", "tcp://h")], Ok("tcp://h:2375")),
        (&[("DOCKER_HOST", "tcp://h:1234/")], Ok("tcp://h:1234")),
        (&[("DOCKER_HOST", "tcp://[::1]:1")], Ok("tcp://[::1]:1")),
        (&[("DOCKER_HOST", "tcp://h:2376")], Err("TLS")),
        (
            &[("DOCKER_HOST", "tcp://h:1"), ("DOCKER_TLS_VERIFY", "1")],
            Err("TLS"),
        ),
        (&[("DOCKER_HOST", "ssh://h")], Err("ssh -nNT")),
        (&[("DOCKER_HOST", "npipe:////x")], Err("neither")),
        (
            &[("DOCKER_HOST", "unix:///a"), ("DOCKER_CONTEXT", "colima")],
            Ok("unix:///a"),
        ),
        (
            &[("DOCKER_CONTEXT", "colima")],
            Ok("unix:///home/u/.colima/docker.sock"),
        ),
        (
            &[("DOCKER_CONTEXT", "default")],
            Ok("unix:///var/run/docker.sock"),
        ),
        (&[("DOCKER_CONTEXT", "far")], Err("ssh")),
        (&[("DOCKER_CONTEXT", "empty")], Err("no docker endpoint")),
        (&[("DOCKER_CONTEXT", "gone")], Err("docker context ls")),
        (
            &[("DOCKER_CONFIG", "/current")],
            Ok("unix:///var/run/docker.sock"),
        ),
        (&[("DOCKER_CONFIG", "/broken")], Err("JSON")),
        (&[("DOCKER_CONFIG", "/lost")], Err("gone")),
    ];
    for (env, expected) in rows {
        match (resolved(env), expected) {
            (Resolved::Chosen(found), Ok(url)) => assert_eq!(found.address, *url, "{env:?}"),
            (Resolved::Unusable(reason), Err(word)) => {
                assert!(reason.contains(word), "{env:?}: {reason}");
            }
            (found, expected) => panic!("{env:?}: {found:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn without_a_choice_the_usual_sockets_are_tried_in_order() {
    let Resolved::Usual(found) = resolved(&[("XDG_RUNTIME_DIR", "/run/user/7")]) else {
        panic!("something was chosen");
    };
    let urls: Vec<String> = found.into_iter().map(|found| found.address).collect();
    assert_eq!(
        urls,
        [
            "unix:///var/run/docker.sock",
            "unix:///run/user/7/docker.sock",
            "unix:///home/u/.docker/run/docker.sock",
            "unix:///run/user/7/podman/podman.sock",
            "unix:///run/podman/podman.sock",
        ]
    );
}

#[test]
fn a_context_is_found_by_the_hash_of_its_name() {
    // `printf desktop-linux | sha256sum`, the directory that Docker Desktop makes.
    assert_eq!(
        hex(&Sha256::digest(b"desktop-linux")),
        "fe9c6bd7a66301f49ca9b6a70b217107cd1284598bfc254700c989b916da791e"
    );
}
