//! SIGINT and SIGTERM: the first ends the work in order, a second one ends the program at once.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{error::CommandError, exit, printer::Printer};

/// Supervisors signal a process and then its group: that is one wish, not two.
const ONE_WISH: Duration = Duration::from_millis(100);

/// The token that every piece of work watches, and which signal cancelled it.
#[derive(Debug, Clone)]
pub(crate) struct Interrupts {
    /// Cancelled by the first signal.
    pub(crate) token: CancellationToken,
    exit: Arc<AtomicU8>,
}

impl Interrupts {
    /// Begins to listen. Must be called inside the runtime.
    pub(crate) fn listen(printer: &Arc<Printer>) -> std::io::Result<Self> {
        let interrupts = Self {
            token: CancellationToken::new(),
            exit: Arc::new(AtomicU8::new(0)),
        };
        let mut int = signal(SignalKind::interrupt())?;
        let mut term = signal(SignalKind::terminate())?;
        let (mine, printer) = (interrupts.clone(), Arc::clone(printer));
        tokio::spawn(async move {
            let mut first: Option<Instant> = None;
            loop {
                let (name, code) = tokio::select! {
                    _ = int.recv() => ("SIGINT", exit::INTERRUPTED),
                    _ = term.recv() => ("SIGTERM", exit::TERMINATED),
                };
                match first {
                    Some(first) if first.elapsed() < ONE_WISH => continue,
                    Some(_) => end_at_once(code),
                    None => first = Some(Instant::now()),
                }
                mine.exit.store(code, Ordering::SeqCst);
                printer.message(format!(
                    "{name}: ending what runs and removing what is unfinished; again to end at once"
                ));
                mine.token.cancel();
            }
        });
        Ok(interrupts)
    }

    /// Exit code of the signal that came, if one came.
    pub(crate) fn exit_code(&self) -> Option<u8> {
        match self.exit.load(Ordering::SeqCst) {
            0 => None,
            code => Some(code),
        }
    }

    /// Runs work that knows nothing of cancellation; a signal drops it.
    pub(crate) async fn guard<T>(
        &self,
        what: &str,
        work: impl Future<Output = T>,
    ) -> Result<T, CommandError> {
        tokio::select! {
            biased;
            () = self.token.cancelled() => Err(CommandError::new(
                dbexec::codes::INTERRUPTED,
                format!("interrupted while {what}"),
            )),
            done = work => Ok(done),
        }
    }
}

#[expect(
    clippy::exit,
    reason = "a second signal means: now, without any more work"
)]
fn end_at_once(code: u8) -> ! {
    std::process::exit(i32::from(code))
}
