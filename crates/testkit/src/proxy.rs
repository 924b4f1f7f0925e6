//! A proxy that cuts: between a client and the engine's socket, or in front of a TCP server.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What happens when the limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The client sees a clean end of the stream; later connections work.
    CleanEnd,
    /// As `CleanEnd`, and the server's half stays open, so that the program behind it lives on.
    ClientOnly,
    /// Every connection ends and no new one is accepted: the engine is gone.
    Gone,
}

/// State that all connections share.
#[derive(Debug)]
struct Shared {
    /// Bytes that may still pass from server to client; `u64::MAX` for no limit.
    left: AtomicU64,
    passed: AtomicU64,
    cut: Cut,
    has_cut: AtomicBool,
    gone: AtomicBool,
}

/// A running proxy; it ends with the process.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    socket: PathBuf,
    port: u16,
}

impl Proxy {
    /// In front of a Unix socket (`to`), on a socket of its own (`at`). Cuts after `limit` bytes
    /// from server to client over all connections; `None` never cuts.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn unix(at: &Path, to: &Path, limit: Option<u64>, cut: Cut) -> Result<Self, String> {
        let listener = UnixListener::bind(at).map_err(|e| format!("{}: {e}", at.display()))?;
        let (shared, to) = (Shared::new(limit, cut), to.to_owned());
        let accepted = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepted.gone.load(Ordering::SeqCst) {
                    continue;
                }
                if let Ok(server) = UnixStream::connect(&to) {
                    pipe(client, server, &accepted);
                }
            }
        });
        Ok(Self {
            shared,
            socket: at.to_owned(),
            port: 0,
        })
    }

    /// In front of a TCP port of this host, on a port of its own.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn tcp(to: u16, limit: Option<u64>, cut: Cut) -> Result<Self, String> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let port = listener
            .local_addr()
            .map_err(|error| error.to_string())?
            .port();
        let shared = Shared::new(limit, cut);
        let accepted = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepted.gone.load(Ordering::SeqCst) {
                    continue;
                }
                if let Ok(server) = TcpStream::connect(("127.0.0.1", to)) {
                    pipe(client, server, &accepted);
                }
            }
        });
        Ok(Self {
            shared,
            socket: PathBuf::new(),
            port,
        })
    }

    /// Address for `DOCKER_HOST`.
    #[must_use]
    pub fn docker_host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Port of a TCP proxy.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Bytes that passed from server to client so far.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::SeqCst)
    }

    /// Sets a new limit, counted from now.
    pub fn cut_after(&self, bytes: u64) {
        self.shared.left.store(bytes, Ordering::SeqCst);
    }

    /// Whether the limit was reached.
    #[must_use]
    pub fn has_cut(&self) -> bool {
        self.shared.has_cut.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn new(limit: Option<u64>, cut: Cut) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicU64::new(limit.unwrap_or(u64::MAX)),
            passed: AtomicU64::new(0),
            cut,
            has_cut: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        })
    }

    /// How many of `wanted` bytes may pass; the rest is cut.
    fn take(&self, wanted: u64) -> u64 {
        let mut allowed = wanted;
        let _ = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                if left == u64::MAX {
                    allowed = wanted;
                    return None;
                }
                allowed = wanted.min(left);
                Some(left - allowed)
            });
        self.passed.fetch_add(allowed, Ordering::SeqCst);
        allowed
    }
}

/// The two kinds of sockets, as far as a proxy needs them.
trait Socket: Read + Write + Send + Sized + 'static {
    fn copy(&self) -> Option<Self>;
    fn close(&self, how: Shutdown);
}

impl Socket for UnixStream {
    fn copy(&self) -> Option<Self> {
        self.try_clone().ok()
    }
    fn close(&self, how: Shutdown) {
        let _ = self.shutdown(how);
    }
}

impl Socket for TcpStream {
    fn copy(&self) -> Option<Self> {
        self.try_clone().ok()
    }
    fn close(&self, how: Shutdown) {
        let _ = self.shutdown(how);
    }
}

fn pipe<S: Socket>(client: S, server: S, shared: &Arc<Shared>) {
    let (Some(client_in), Some(server_out)) = (client.copy(), server.copy()) else {
        return;
    };
    std::thread::spawn(move || upstream(client_in, server_out));
    let shared = Arc::clone(shared);
    std::thread::spawn(move || downstream(server, client, &shared));
}

fn upstream<S: Socket>(mut client: S, mut server: S) {
    let mut buffer = [0; 64 * 1024];
    while let Ok(read) = client.read(&mut buffer) {
        if read == 0 || server.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    server.close(Shutdown::Write);
}

fn downstream<S: Socket>(mut server: S, mut client: S, shared: &Shared) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read) = server.read(&mut buffer) {
        if read == 0 || shared.gone.load(Ordering::SeqCst) {
            break;
        }
        let allowed = usize::try_from(shared.take(read as u64)).unwrap_or(read);
        if client.write_all(&buffer[..allowed]).is_err() {
            break;
        }
        if allowed < read {
            client.close(Shutdown::Both);
            shared.has_cut.store(true, Ordering::SeqCst);
            match shared.cut {
                Cut::CleanEnd => server.close(Shutdown::Both),
                // Goes on reading, so that the program runs to its end and exits with 0.
                Cut::ClientOnly => while server.read(&mut buffer).is_ok_and(|read| read > 0) {},
                Cut::Gone => {
                    shared.gone.store(true, Ordering::SeqCst);
                    server.close(Shutdown::Both);
                }
            }
            // One cut is enough, unless the engine is gone for good.
            if shared.cut != Cut::Gone {
                shared.left.store(u64::MAX, Ordering::SeqCst);
            }
            return;
        }
    }
    client.close(Shutdown::Both);
    server.close(Shutdown::Both);
}
