use secrecy::ExposeSecret;

use super::*;

fn strings(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

#[test]
fn the_probe_output_is_read_whatever_the_files_hold() {
    let paths = strings(&["/run/secrets/a", "/run/secrets/b", "/run/secrets/c"]);
    let output = b"programs /usr/bin\tpsql (PostgreSQL) 17.4\tpsql\t-\nprograms /opt/bin\t\tpsql\t-\nprocess\nsocket /var/run/postgresql/.s.PGSQL.5433\nsocket /run/postgresql/.s.PGSQL.5433\nlisten 1538\nfile 12\nx\nend\nfile\n\n\nnofile there is no such file in the container\nfile 4\npa$$\nend\n";
    let inside = parse(output, &paths).unwrap();
    assert_eq!(inside.installations.len(), 1);
    assert_eq!(inside.installations[0].programs, [PgProgram::Psql]);
    assert!(inside.server && inside.shell);
    assert_eq!(inside.sockets, [("/var/run/postgresql".to_owned(), 5433)]);
    assert_eq!(inside.listening, [5432]);
    let file = |path: &str| {
        inside.files[path]
            .as_ref()
            .map(|v| v.expose_secret().to_owned())
    };
    assert_eq!(file("/run/secrets/a").unwrap(), "x\nend\nfile");
    assert!(file("/run/secrets/b").unwrap_err().contains("no such file"));
    assert_eq!(file("/run/secrets/c").unwrap(), "pa$$");
}

#[test]
fn output_that_is_cut_or_foreign_is_not_taken_for_a_look_inside() {
    let whole = b"programs /usr/bin\tpsql (PostgreSQL) 17.4\tpsql\t-\nprocess\nfile 3\nabc\nend\n";
    let paths = strings(&["/a"]);
    assert!(parse(whole, &paths).is_some());
    for cut in 0..whole.len() {
        assert!(parse(&whole[..cut], &paths).is_none(), "cut at {cut}");
    }
    assert!(parse(b"OCI runtime exec failed: exec: \"sh\": executable file not found in $PATH: unknown\r\n", &[]).is_none());
}

#[test]
fn the_port_is_the_one_on_which_something_listens() {
    let inside = |sockets: &[u16], listening: &[u16]| Inside {
        shell: true,
        server: true,
        sockets: sockets
            .iter()
            .map(|port| ("/tmp".to_owned(), *port))
            .collect(),
        listening: listening.to_vec(),
        ..Inside::default()
    };
    // The published port of a shared .env means nothing inside.
    assert_eq!(inside(&[5432], &[5432]).port(Some(55432)), 5432);
    assert_eq!(inside(&[5433], &[]).port(None), 5433);
    assert_eq!(inside(&[5433, 5434], &[]).port(Some(5434)), 5434);
    assert_eq!(inside(&[], &[6000]).port(Some(6000)), 6000);
    assert_eq!(inside(&[], &[]).port(None), 5432);
}

#[test]
fn the_local_socket_comes_before_tcp() {
    let socket = Inside {
        shell: true,
        sockets: vec![("/tmp".to_owned(), 5432)],
        ..Inside::default()
    };
    assert_eq!(
        socket.hosts(5432),
        [None, Some("/tmp".to_owned()), Some("127.0.0.1".to_owned())]
    );
    let tcp = Inside {
        shell: true,
        listening: vec![5432],
        ..Inside::default()
    };
    assert_eq!(tcp.hosts(5432), [Some("127.0.0.1".to_owned())]);
    assert_eq!(
        Inside::default().hosts(5432),
        [None, Some("127.0.0.1".to_owned())]
    );
}
