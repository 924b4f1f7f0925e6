//! The writing half of the local store: a thread that owns the file, fed by a bounded channel of
//! buffers, so that reading, hashing and writing overlap and memory stays constant.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::{StoreError, StoreWriter};

/// Size of one buffer in bytes.
const BUFFER: usize = 1 << 20;
/// Buffers under way between the caller and the disk.
const BUFFERS_UNDER_WAY: usize = 2;
/// End of every temporary name.
const TEMP_SUFFIX: &str = ".partial";
/// Length of the random part of a temporary name.
const TEMP_RANDOM: usize = 16;

/// One step of the local store on the file system; tests fail or record it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "faults"),
    expect(unreachable_pub, reason = "public with the feature alone")
)]
pub enum Step {
    /// Creating the temporary file of a stream.
    Create {
        /// Name of the stream.
        name: String,
    },
    /// Writing to it.
    Write {
        /// Name of the stream.
        name: String,
        /// Offset in bytes.
        offset: u64,
        /// Bytes that are to be written.
        len: usize,
    },
    /// fsync of the file.
    SyncFile {
        /// Name of the stream.
        name: String,
    },
    /// Rename to the final name.
    Rename {
        /// Name of the stream.
        name: String,
    },
    /// fsync of the directory after a rename or a removal.
    SyncDir {
        /// Name of the stream.
        name: String,
    },
    /// Removal of a temporary file or of a committed stream.
    Unlink {
        /// Name of the stream.
        name: String,
    },
}

/// Called before each step; for tests.
#[cfg_attr(
    not(feature = "faults"),
    expect(unreachable_pub, reason = "public with the feature alone")
)]
pub trait StepHook: Send + Sync + fmt::Debug {
    /// Lets the step happen (for `Write`: for how many of its bytes), or fails it.
    ///
    /// # Errors
    /// The failure that the step shall have.
    fn before(&self, step: &Step) -> io::Result<usize>;
}

/// Asks the hook, where there is one.
pub(crate) fn ask(hook: Option<&Arc<dyn StepHook>>, step: &Step) -> io::Result<usize> {
    match hook {
        Some(hook) => hook.before(step),
        None => Ok(match step {
            Step::Write { len, .. } => *len,
            _ => 0,
        }),
    }
}

/// Temporary name of a stream: starts with a dot, which no committed name can.
fn temp_name(file: &str) -> String {
    let random: u64 = rand::random();
    format!(".{file}.{random:016x}{TEMP_SUFFIX}")
}

/// The stream that a temporary name belongs to; `None` for any other name.
pub(crate) fn stream_of_temp(file: &str) -> Option<&str> {
    let (stream, random) = file
        .strip_prefix('.')?
        .strip_suffix(TEMP_SUFFIX)?
        .rsplit_once('.')?;
    (random.len() == TEMP_RANDOM && random.bytes().all(|b| b.is_ascii_hexdigit())).then_some(stream)
}

/// What the thread needs to know of the stream.
pub(crate) struct Destination {
    /// Directory that holds the file.
    pub(crate) dir: OwnedFd,
    /// Name in that directory.
    pub(crate) file: String,
    /// Name of the stream, for messages.
    pub(crate) name: String,
    /// The store, for messages.
    pub(crate) store: String,
    /// Tests.
    pub(crate) hook: Option<Arc<dyn StepHook>>,
}

impl Destination {
    fn failed(&self, operation: &'static str, source: io::Error) -> StoreError {
        StoreError::from_io(operation, &self.name, &self.store, source)
    }

    fn ask(&self, operation: &'static str, step: &Step) -> Result<usize, StoreError> {
        ask(self.hook.as_ref(), step).map_err(|source| self.failed(operation, source))
    }

    fn exists(&self) -> StoreError {
        StoreError::Exists {
            name: self.name.clone(),
            store: self.store.clone(),
        }
    }
}

enum Message {
    Data(Vec<u8>),
    Commit,
}

/// How the thread ended.
struct Ended {
    /// Size of the committed stream, 0 when it was abandoned.
    result: Result<u64, StoreError>,
    /// Why the temporary file could not be removed, where it had to be.
    left_behind: Option<StoreError>,
}

/// Writer of one stream.
pub(crate) struct LocalWriter {
    channel: Option<mpsc::Sender<Message>>,
    buffer: Vec<u8>,
    thread: Option<JoinHandle<Ended>>,
    left_behind: Option<StoreError>,
    name: String,
    store: String,
}

impl LocalWriter {
    /// Creates the temporary file and starts the thread; blocking.
    pub(crate) fn start(destination: Destination) -> Result<Self, StoreError> {
        let exists = rustix::fs::statat(
            &destination.dir,
            destination.file.as_str(),
            AtFlags::SYMLINK_NOFOLLOW,
        );
        match exists {
            Ok(_) => return Err(destination.exists()),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(destination.failed("creating", errno.into())),
        }
        destination.ask(
            "creating",
            &Step::Create {
                name: destination.name.clone(),
            },
        )?;
        let temp = temp_name(&destination.file);
        let file = rustix::fs::openat(
            &destination.dir,
            temp.as_str(),
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::RUSR | Mode::WUSR,
        )
        .map_err(|errno| destination.failed("creating", errno.into()))?;
        let (channel, receiver) = mpsc::channel(BUFFERS_UNDER_WAY);
        let (name, store) = (destination.name.clone(), destination.store.clone());
        let thread = tokio::task::spawn_blocking(move || {
            write_thread(&destination, &temp, File::from(file), receiver)
        });
        Ok(Self {
            channel: Some(channel),
            buffer: Vec::new(),
            thread: Some(thread),
            left_behind: None,
            name,
            store,
        })
    }

    async fn send(&mut self, message: Message) -> Result<(), StoreError> {
        if let Some(channel) = &self.channel
            && channel.send(message).await.is_ok()
        {
            return Ok(());
        }
        // The thread ended by itself, so it failed; its failure is the one to tell.
        match self.join().await {
            Ok(_) => Err(self.broken()),
            Err(error) => Err(error),
        }
    }

    async fn join(&mut self) -> Result<u64, StoreError> {
        self.channel = None;
        let Some(thread) = self.thread.take() else {
            return Err(self.broken());
        };
        let ended = thread.await.map_err(|source| StoreError::Io {
            operation: "writing",
            name: self.name.clone(),
            store: self.store.clone(),
            source: io::Error::other(source),
        })?;
        self.left_behind = ended.left_behind;
        ended.result
    }

    fn broken(&self) -> StoreError {
        StoreError::Io {
            operation: "writing",
            name: self.name.clone(),
            store: self.store.clone(),
            source: io::Error::new(io::ErrorKind::BrokenPipe, "an earlier write had failed"),
        }
    }
}

#[async_trait]
impl StoreWriter for LocalWriter {
    async fn write(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            if self.buffer.capacity() == 0 {
                self.buffer.reserve_exact(BUFFER);
            }
            let room = BUFFER - self.buffer.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = later;
            if self.buffer.len() == BUFFER {
                let full = std::mem::take(&mut self.buffer);
                self.send(Message::Data(full)).await?;
            }
        }
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<u64, StoreError> {
        if !self.buffer.is_empty() {
            let rest = std::mem::take(&mut self.buffer);
            self.send(Message::Data(rest)).await?;
        }
        self.send(Message::Commit).await?;
        self.join().await
    }

    async fn abort(mut self: Box<Self>) -> Result<(), StoreError> {
        if self.thread.is_some() {
            // Without `Commit` the end of the channel means: remove it.
            let _failure_told_by_write = self.join().await;
        }
        match self.left_behind.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

fn write_thread(
    to: &Destination,
    temp: &str,
    file: File,
    messages: mpsc::Receiver<Message>,
) -> Ended {
    match receive(to, temp, file, messages) {
        Ok(Some(bytes)) => Ended {
            result: Ok(bytes),
            left_behind: None,
        },
        Ok(None) => Ended {
            result: Ok(0),
            left_behind: remove(to, temp).err(),
        },
        Err(error) => Ended {
            result: Err(error),
            left_behind: remove(to, temp).err(),
        },
    }
}

/// Writes until `Commit` (then `Some(size)`) or until the channel is dropped (then `None`).
fn receive(
    to: &Destination,
    temp: &str,
    mut file: File,
    mut messages: mpsc::Receiver<Message>,
) -> Result<Option<u64>, StoreError> {
    let mut offset = 0_u64;
    while let Some(message) = messages.blocking_recv() {
        match message {
            Message::Data(data) => {
                write_all(to, &mut file, &mut offset, &data)?;
            }
            Message::Commit => {
                publish(to, temp, &file)?;
                return Ok(Some(offset));
            }
        }
    }
    Ok(None)
}

fn write_all(
    to: &Destination,
    file: &mut File,
    offset: &mut u64,
    mut data: &[u8],
) -> Result<(), StoreError> {
    while !data.is_empty() {
        let allowed = to.ask(
            "writing",
            &Step::Write {
                name: to.name.clone(),
                offset: *offset,
                len: data.len(),
            },
        )?;
        let written = match file.write(&data[..allowed.min(data.len())]) {
            Ok(0) => Err(io::Error::new(
                io::ErrorKind::WriteZero,
                "the system took no byte of a write",
            )),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            written => written,
        }
        .map_err(|source| to.failed("writing", source))?;
        data = &data[written..];
        *offset += written as u64;
    }
    Ok(())
}

/// fsync, rename without replacing, fsync of the directory. A failure of any is final: a second
/// fsync may report success for pages that the first one dropped.
fn publish(to: &Destination, temp: &str, file: &File) -> Result<(), StoreError> {
    let name = || to.name.clone();
    to.ask("syncing", &Step::SyncFile { name: name() })?;
    file.sync_all()
        .map_err(|source| to.failed("syncing", source))?;
    to.ask("naming", &Step::Rename { name: name() })?;
    rename_new(to, temp)?;
    let synced = to
        .ask("syncing the directory of", &Step::SyncDir { name: name() })
        .and_then(|_| {
            rustix::fs::fsync(&to.dir)
                .map_err(|errno| to.failed("syncing the directory of", errno.into()))
        });
    if let Err(error) = synced {
        // It has its name but may lose it in a power cut: take it out of the listing again.
        let _ = ask(to.hook.as_ref(), &Step::Unlink { name: name() }).and_then(|_| {
            rustix::fs::unlinkat(&to.dir, to.file.as_str(), AtFlags::empty())
                .map_err(io::Error::from)
        });
        return Err(error);
    }
    Ok(())
}

fn rename_new(to: &Destination, temp: &str) -> Result<(), StoreError> {
    let file = to.file.as_str();
    let renamed = rustix::fs::renameat_with(&to.dir, temp, &to.dir, file, RenameFlags::NOREPLACE);
    match renamed {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(to.exists()),
        // File systems without RENAME_NOREPLACE: a hard link refuses to replace as well.
        Err(Errno::INVAL | Errno::NOSYS) => {
            match rustix::fs::linkat(&to.dir, temp, &to.dir, file, AtFlags::empty()) {
                Ok(()) => rustix::fs::unlinkat(&to.dir, temp, AtFlags::empty())
                    .map_err(|errno| to.failed("naming", errno.into())),
                Err(Errno::EXIST) => Err(to.exists()),
                // And those without hard links: nobody else writes this name (the target's lock).
                Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => {
                    rustix::fs::renameat(&to.dir, temp, &to.dir, file)
                        .map_err(|errno| to.failed("naming", errno.into()))
                }
                Err(errno) => Err(to.failed("naming", errno.into())),
            }
        }
        Err(errno) => Err(to.failed("naming", errno.into())),
    }
}

fn remove(to: &Destination, temp: &str) -> Result<(), StoreError> {
    to.ask(
        "removing",
        &Step::Unlink {
            name: to.name.clone(),
        },
    )?;
    match rustix::fs::unlinkat(&to.dir, temp, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(to.failed("removing", errno.into())),
    }
}
