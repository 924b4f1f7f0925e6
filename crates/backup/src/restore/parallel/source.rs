//! The source of a parallel restore: read once more, compared with what was checked, decoded.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, BufReader, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll};

use archive::{ArchiveError, DirectoryEntry};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::Handle;
use tokio_util::io::SyncIoBridge;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    super::{
        check::{Fingerprint, in_words},
        feed::checked_reader,
        plan::PlannedWork,
        source::{Bytes, SourceFormat, SourcePlace},
    },
    dealer::{Dealer, Dealt},
};

/// Bytes that are read at once.
const READ: usize = 512 << 10;
/// What the compression of a directory archive puts behind the name of a file.
const SUFFIXES: [&str; 4] = ["", ".gz", ".lz4", ".zst"];

/// A table of contents with more bytes than this is made again where it is needed: that of 100,000
/// tables has 75 MB.
const HELD: u64 = 4 << 20;

/// The table of contents without data.
pub(super) enum Contents {
    /// Its bytes.
    Held(Vec<u8>),
    /// So many bytes, which are not held.
    Large(u64),
}

/// The checked source, for a thread of its own.
pub(super) struct Stored {
    place: SourcePlace,
    format: SourceFormat,
    files: BTreeMap<String, Fingerprint>,
    handle: Handle,
    progress: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Stored {
    pub(super) fn of(
        work: &PlannedWork,
        progress: &Arc<AtomicU64>,
        stop: &CancellationToken,
    ) -> Self {
        Self {
            place: work.source.place.clone(),
            format: work.source.format,
            files: work.checked.files.clone(),
            handle: Handle::current(),
            progress: Arc::clone(progress),
            stop: stop.clone(),
        }
    }

    /// Opens a file; at its end it is compared with what was checked.
    fn open(&self, name: &str) -> Result<impl Read + use<>, ArchiveError> {
        let expected = self.files.get(name).cloned();
        let progress = Arc::clone(&self.progress);
        let opened = self
            .handle
            .block_on(checked_reader(&self.place, name, expected, progress))
            .map_err(|error| consumer(io::Error::other(error)))?;
        let reader = Stoppable {
            inner: opened,
            stopped: Box::pin(self.stop.clone().cancelled_owned()),
        };
        let bridge = SyncIoBridge::new_with_handle(reader, self.handle.clone());
        Ok(BufReader::with_capacity(READ, bridge))
    }

    /// The table of contents without data, for pg_restore.
    pub(super) fn contents(&self) -> Result<Contents, ArchiveError> {
        let mut size = 0_u64;
        let mut text = Vec::new();
        archive::toc_without_data(self.open(self.toc_name())?, &mut |piece| {
            size += piece.len() as u64;
            if size <= HELD {
                text.extend_from_slice(piece);
            } else {
                text = Vec::new();
            }
            Ok(())
        })?;
        Ok(if size <= HELD {
            Contents::Held(text)
        } else {
            Contents::Large(size)
        })
    }

    /// Size and bytes of what [`Stored::contents`] found, and what says, once they were read, whether
    /// all of them came.
    pub(super) fn reader(
        self,
        contents: Contents,
    ) -> (u64, Bytes, BoxFuture<'static, Result<(), String>>) {
        let size = match contents {
            Contents::Held(text) => {
                let size = text.len() as u64;
                let done = std::future::ready(Ok(()));
                return (size, Box::pin(io::Cursor::new(text)), Box::pin(done));
            }
            Contents::Large(size) => size,
        };
        let (output, reader) = tokio::io::duplex(READ);
        let mut output = SyncIoBridge::new_with_handle(output, self.handle.clone());
        let making = tokio::task::spawn_blocking(move || {
            let mut written = 0_u64;
            let archive = self.open(self.toc_name())?;
            archive::toc_without_data(archive, &mut |piece| {
                written += piece.len() as u64;
                output.write_all(piece)
            })?;
            output.shutdown().map_err(consumer)?;
            Ok::<_, ArchiveError>(written)
        });
        let made = async move {
            match making.await {
                Ok(Ok(written)) if written == size => Ok(()),
                Ok(Ok(written)) => Err(format!(
                    "its table of contents has {written} bytes, and had {size} before"
                )),
                Ok(Err(error)) => Err(in_words(&error)),
                Err(panic) => Err(panic.to_string()),
            }
        };
        (size, Box::pin(reader), Box::pin(made))
    }

    fn toc_name(&self) -> &'static str {
        match self.format {
            SourceFormat::Directory => "toc.dat",
            SourceFormat::Custom | SourceFormat::Plain => "",
        }
    }

    /// Decodes the data of the wanted entries; returns what was dealt.
    pub(super) fn decode(
        &self,
        wanted: &HashSet<i32>,
        mut dealer: Dealer,
    ) -> Result<Dealt, ArchiveError> {
        let mut wanted = |id: i32| wanted.contains(&id);
        let mut first = self.open(self.toc_name())?;
        match self.format {
            SourceFormat::Directory => {
                let entries = archive::read_directory_entries(&mut first, &mut wanted)?;
                drain(&mut first)?;
                for entry in &entries {
                    self.entry(entry, &mut dealer)?;
                }
            }
            SourceFormat::Custom | SourceFormat::Plain => {
                archive::stream_custom(&mut first, &mut wanted, &mut dealer)?;
                drain(&mut first)?;
            }
        }
        dealer.finish().map_err(consumer)
    }

    fn entry(&self, entry: &DirectoryEntry, dealer: &mut Dealer) -> Result<(), ArchiveError> {
        match entry {
            DirectoryEntry::Rows { entry, file_name } => {
                let name = self.stored_name(file_name)?;
                let mut file = self.open(&name)?;
                archive::stream_directory_rows(&mut file, &name, entry, dealer)?;
                drain(&mut file)
            }
            DirectoryEntry::LargeObjects { list_name, .. } => {
                let mut list = self.open(list_name)?;
                let objects = archive::read_large_object_list(&mut list, list_name)?;
                drain(&mut list)?;
                for (oid, file_name) in objects {
                    let name = self.stored_name(&file_name)?;
                    let mut file = self.open(&name)?;
                    archive::stream_directory_large_object(&mut file, &name, oid, dealer)?;
                    drain(&mut file)?;
                }
                Ok(())
            }
        }
    }

    /// The name under which a data file was checked.
    fn stored_name(&self, name: &str) -> Result<String, ArchiveError> {
        let names = SUFFIXES.iter().map(|suffix| format!("{name}{suffix}"));
        let found = names.into_iter().find(|name| self.files.contains_key(name));
        found.ok_or_else(|| {
            consumer(io::Error::new(
                io::ErrorKind::NotFound,
                format!("file {name:?} was not checked"),
            ))
        })
    }
}

/// A decoder may stop before the end of a file; only there it is compared.
fn drain(reader: &mut impl Read) -> Result<(), ArchiveError> {
    io::copy(reader, &mut io::sink()).map_err(consumer)?;
    Ok(())
}

fn consumer(source: io::Error) -> ArchiveError {
    ArchiveError::Consumer { source }
}

/// Ends with an error as soon as the restore is to stop, also while nothing comes.
struct Stoppable<R> {
    inner: R,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Stoppable<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the restore was stopped",
            )));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}
