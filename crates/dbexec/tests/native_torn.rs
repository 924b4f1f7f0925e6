//! Native sessions with a server that stops in the middle of what it says.

use dbexec::{ConnectionSettings, DbCreds, NativeError, NativeSession, Route, TlsOptions};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a short one");
    [&[kind], &length.to_be_bytes()[..], body].concat()
}

/// The server's end of a connection after the login, and the session.
async fn pair() -> (UnixStream, NativeSession) {
    let dir = tempfile::tempdir().expect("a directory");
    let listener = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).expect("a socket");
    let greeting = async {
        let (mut server, _) = listener.accept().await.expect("a connection");
        let length = server.read_u32().await.expect("a start-up message");
        let mut body = vec![0; usize::try_from(length).expect("a short one") - 4];
        server.read_exact(&mut body).await.expect("its body");
        let answer = [message(b'R', &[0; 4]), message(b'Z', b"I")].concat();
        server.write_all(&answer).await.expect("it listens");
        server
    };
    let route = Route::Socket {
        directory: dir.path().to_owned(),
        port: 5432,
    };
    let creds = DbCreds {
        host: None,
        port: 5432,
        database: "d".to_owned(),
        user: "u".to_owned(),
        password: None,
        tls: TlsOptions::default(),
    };
    let settings = ConnectionSettings::new("torn");
    let connecting = NativeSession::connect(&route, &creds, "d", &settings, "pgstow-torn");
    let (server, session) = tokio::join!(greeting, connecting);
    (server, session.expect("it logs in"))
}

#[tokio::test]
async fn an_error_that_was_read_before_the_future_was_dropped_is_no_end() {
    let (mut server, mut session) = pair().await;
    let (go_on, told) = oneshot::channel::<()>();
    let serving = async {
        server.read_u8().await.unwrap();
        let failed = message(b'E', b"SERROR\0VERROR\0C22012\0Mdivision by zero\0\0");
        let answer = [
            message(b'H', &[0; 3]),
            message(b'd', b"1\n"),
            message(b'c', b""),
            message(b'C', b"COPY 1\0"),
            failed,
        ];
        server.write_all(&answer.concat()).await.unwrap();
        told.await.unwrap();
        server.write_all(&message(b'Z', b"I")).await.unwrap();
    };
    let reading = async {
        // The statement after the COPY fails.
        let mut copy = session
            .copy_out("copy t to stdout; select 1/0")
            .await
            .unwrap();
        let mut rows = Vec::new();
        let read = copy.read(&mut rows, 1000);
        let waited = tokio::time::timeout(Duration::from_millis(300), read).await;
        waited.expect_err("the server is not ready yet");
        assert_eq!(rows, b"1\n");
        go_on.send(()).unwrap();
        let error = copy.finish().await.unwrap_err();
        assert!(matches!(error, NativeError::Over { .. }), "{error}");
    };
    tokio::join!(serving, reading);
    let error = session.batch("select 1").await.unwrap_err();
    assert!(matches!(error, NativeError::Over { .. }), "{error}");
}

#[tokio::test]
async fn a_message_without_bounds_is_not_kept_while_rows_go_in() {
    let (mut server, mut session) = pair().await;
    let serving = async {
        server.read_u8().await.unwrap();
        let mut answer = message(b'G', &[0; 3]);
        answer.push(b'N');
        answer.extend_from_slice(&0x7000_0000_u32.to_be_bytes());
        server.write_all(&answer).await.unwrap();
        // Until the other side hangs up.
        while matches!(server.read(&mut [0; 65536]).await, Ok(1..)) {}
    };
    let sending = async move {
        let mut copy = session.copy_in("copy t from stdin").await.unwrap();
        let rows = vec![b'\n'; 1 << 20];
        let error = loop {
            if let Err(error) = copy.send(&rows).await {
                break error;
            }
        };
        assert!(matches!(error, NativeError::Protocol { .. }), "{error}");
    };
    let both = async { tokio::join!(serving, sending) };
    tokio::time::timeout(Duration::from_secs(10), both)
        .await
        .expect("it is refused");
}
