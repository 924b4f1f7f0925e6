//! A directory archive: pg_dump writes it into a scratch directory next to itself, with several
//! jobs; its files are then fetched one by one and stored.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use dbexec::executor::{Finished, Input, ScratchDir};
use dbexec::{Invocation, PgProgram};
use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

use super::Progress;
use super::dump::{Work, exec_error};
use crate::stream::{HashedWriter, PIECE, PieceReader};
use crate::{BackupError, manifest::StoredFile};

/// Name of the archive in the scratch directory.
const ARCHIVE: &str = "d";
/// A tar stream ends with two blocks of zeros; one that was cut does not.
const END_MARKER: u64 = 1024;

/// What the tar reader says to the task that stores.
enum Part {
    Begin(String),
    Data(Bytes),
    End,
}

impl Work<'_> {
    /// Dumps into a scratch directory and stores every file below `stem.dir/`.
    pub(crate) async fn store_directory(
        &self,
        mut args: Vec<String>,
        database: &str,
        jobs: u32,
        dir_name: &str,
        operation: &str,
        progress: &mut Progress<'_>,
    ) -> Result<(Vec<StoredFile>, Finished), BackupError> {
        let exec = |source| exec_error(operation.to_owned(), source);
        let scratch = self.executor.scratch_create().await.map_err(exec)?;
        args.push(format!("--file={}/{ARCHIVE}", scratch.path));
        args.push(format!("--jobs={jobs}"));
        // The copy in the store is the one that is synced.
        args.push("--no-sync".to_owned());
        let result = async {
            let cancel = self.cancel.child_token();
            let _end_program_on_return = cancel.clone().drop_guard();
            let running = self
                .executor
                .start(Invocation::new(
                    PgProgram::PgDump,
                    args,
                    Some(database.to_owned()),
                    Input::Nothing,
                    cancel,
                ))
                .await
                .map_err(exec)?;
            let finished = running.finish(PgProgram::PgDump).await.map_err(exec)?;
            let files = match &scratch.local {
                Some(local) => {
                    self.fetch_local(&local.join(ARCHIVE), dir_name, operation, progress)
                        .await?
                }
                None => {
                    self.fetch_tar(&scratch, dir_name, operation, progress)
                        .await?
                }
            };
            if !files.iter().any(|file| file.name.ends_with("/toc.dat")) {
                return Err(BackupError::ArchiveIncomplete {
                    subject: operation.to_owned(),
                    problem: "pg_dump wrote no toc.dat".to_owned(),
                });
            }
            Ok((files, finished))
        }
        .await;
        if let Err(error) = self.executor.scratch_remove(&scratch).await {
            tracing::warn!(%error, path = scratch.path, "a scratch directory was left behind");
        }
        result
    }

    async fn fetch_local(
        &self,
        path: &std::path::Path,
        dir_name: &str,
        operation: &str,
        progress: &mut Progress<'_>,
    ) -> Result<Vec<StoredFile>, BackupError> {
        let failed = |operation, path: &std::path::Path, source| BackupError::File {
            operation,
            path: path.to_owned(),
            source,
        };
        // Its owner may be the user of a container, who could put links in the way of names.
        let dir = open_directory(path).map_err(|e| failed("listing", path, e))?;
        let mut names = list(&dir).map_err(|e| failed("listing", path, e))?;
        names.sort();
        let mut files = Vec::new();
        for name in names {
            let path = path.join(&name);
            let name = name.to_str().unwrap_or_default();
            let name = checked_name(name).map_err(|problem| self.bad(operation, problem))?;
            let file = open_in(&dir, &name).map_err(|e| failed("opening", &path, e))?;
            let mut reader = tokio::fs::File::from_std(file);
            let mut sink = self.begin(dir_name, &name, operation).await?;
            loop {
                let mut piece = bytes::BytesMut::with_capacity(PIECE);
                let read = reader.read_buf(&mut piece).await;
                match read {
                    Ok(0) => break,
                    Ok(count) => {
                        progress.add(count as u64);
                        self.append(&mut sink, piece.freeze(), operation).await?;
                    }
                    Err(source) => return Err(failed("reading", &path, source)),
                }
            }
            files.push(self.end(sink, operation).await?);
        }
        Ok(files)
    }

    async fn fetch_tar(
        &self,
        scratch: &ScratchDir,
        dir_name: &str,
        operation: &str,
        progress: &mut Progress<'_>,
    ) -> Result<Vec<StoredFile>, BackupError> {
        let tar = self
            .executor
            .scratch_tar(scratch, ARCHIVE)
            .await
            .map_err(|source| exec_error(operation.to_owned(), source))?;
        let (pieces, reader) = PieceReader::new();
        let (parts, received) = mpsc::channel(2);
        let unpack = tokio::task::spawn_blocking(move || unpack(reader, &parts));
        let feed = feed(tar, pieces);
        let store = async {
            // When storing fails, the channel goes with this block, and the two others end.
            let mut received = received;
            let mut files = Vec::new();
            let mut sink: Option<HashedWriter> = None;
            while let Some(part) = received.recv().await {
                match part {
                    Part::Begin(name) => {
                        sink = Some(self.begin(dir_name, &name, operation).await?);
                    }
                    Part::Data(piece) => {
                        progress.add(piece.len() as u64);
                        if let Some(sink) = &mut sink {
                            self.append(sink, piece, operation).await?;
                        }
                    }
                    Part::End => {
                        if let Some(sink) = sink.take() {
                            files.push(self.end(sink, operation).await?);
                        }
                    }
                }
                if self.cancel.is_cancelled() {
                    return Err(BackupError::Interrupted {
                        operation: operation.to_owned(),
                    });
                }
            }
            Ok::<_, BackupError>(files)
        };
        let (fed, stored) = tokio::join!(feed, store);
        let files = stored?;
        fed.map_err(|source| self.bad(operation, format!("the tar stream broke: {source}")))?;
        match unpack.await {
            Ok(Ok(())) => Ok(files),
            Ok(Err(source)) => Err(self.bad(operation, source.to_string())),
            Err(panic) => Err(self.bad(operation, panic.to_string())),
        }
    }

    fn bad(&self, operation: &str, problem: String) -> BackupError {
        BackupError::ArchiveIncomplete {
            subject: operation.to_owned(),
            problem,
        }
    }

    async fn begin(
        &self,
        dir_name: &str,
        name: &str,
        operation: &str,
    ) -> Result<HashedWriter, BackupError> {
        HashedWriter::create(self.store.as_ref(), self.dir, &format!("{dir_name}/{name}"))
            .await
            .map_err(|source| stored(operation, source))
    }

    async fn append(
        &self,
        sink: &mut HashedWriter,
        piece: Bytes,
        operation: &str,
    ) -> Result<(), BackupError> {
        sink.write(piece)
            .await
            .map_err(|source| stored(operation, source))
    }

    async fn end(&self, sink: HashedWriter, operation: &str) -> Result<StoredFile, BackupError> {
        sink.commit(self.store.as_ref())
            .await
            .map_err(|source| stored(operation, source))
    }
}

fn open_directory(path: &std::path::Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// Names in a directory.
fn list(dir: &File) -> io::Result<Vec<std::ffi::OsString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(std::ffi::OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

/// Opens a regular file of a directory; no link, nothing that would wait.
fn open_in(dir: &File, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::other("it is no regular file"))
}

fn stored(operation: &str, source: storage::StoreError) -> BackupError {
    BackupError::Store {
        operation: operation.to_owned(),
        source,
    }
}

/// Names that pg_dump gives: no slash, no dot in front, nothing that the store would refuse.
fn checked_name(name: &str) -> Result<String, String> {
    if name.contains('/') || storage::check_name(name).is_err() {
        return Err(format!(
            "the archive holds a file {name:?}, which pg_dump never writes"
        ));
    }
    Ok(name.to_owned())
}

async fn feed(
    mut tar: std::pin::Pin<Box<dyn AsyncRead + Send>>,
    pieces: mpsc::Sender<Bytes>,
) -> io::Result<()> {
    loop {
        let mut piece = bytes::BytesMut::with_capacity(PIECE);
        if tar.read_buf(&mut piece).await? == 0 {
            return Ok(());
        }
        if pieces.send(piece.freeze()).await.is_err() {
            return Ok(());
        }
    }
}

/// Reads a tar stream: one directory with regular files and nothing else, to its end marker.
fn unpack(reader: PieceReader, parts: &mpsc::Sender<Part>) -> io::Result<()> {
    let refuse = |problem: String| Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    let mut archive = tar::Archive::new(ZerosAtEnd { reader, zeros: 0 });
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path_bytes().into_owned();
        let path = String::from_utf8_lossy(&path).into_owned();
        let kind = entry.header().entry_type();
        let inside = path.trim_start_matches("./").split_once('/');
        match (kind, inside) {
            (tar::EntryType::Directory, None | Some((_, ""))) => {}
            (tar::EntryType::Regular, Some((top, name))) if top == ARCHIVE => {
                let name = checked_name(name).map_err(io::Error::other)?;
                if parts.blocking_send(Part::Begin(name)).is_err() {
                    return Ok(());
                }
                let mut left = entry.size();
                while left > 0 {
                    let want = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
                    let mut piece = vec![0; want];
                    entry.read_exact(&mut piece)?;
                    left -= want as u64;
                    if parts.blocking_send(Part::Data(Bytes::from(piece))).is_err() {
                        return Ok(());
                    }
                }
                if parts.blocking_send(Part::End).is_err() {
                    return Ok(());
                }
            }
            _ => return refuse(format!("the tar stream holds {path:?} ({kind:?})")),
        }
    }
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink())?;
    if rest.zeros < END_MARKER {
        return refuse("the tar stream was cut before its end marker".to_owned());
    }
    Ok(())
}

/// Counts the zeros at the end of what was read.
struct ZerosAtEnd {
    reader: PieceReader,
    zeros: u64,
}

impl Read for ZerosAtEnd {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buf)?;
        let trailing = buf[..count].iter().rev().take_while(|b| **b == 0).count();
        if trailing == count {
            self.zeros += trailing as u64;
        } else {
            self.zeros = trailing as u64;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_entry_type(tar::EntryType::Regular);
            let slot = &mut header.as_old_mut().name;
            slot[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    async fn run(tar: Vec<u8>) -> io::Result<Vec<(String, usize)>> {
        let (pieces, reader) = PieceReader::new();
        let (parts, mut received) = mpsc::channel(2);
        let unpack = tokio::task::spawn_blocking(move || unpack(reader, &parts));
        let feed = feed(Box::pin(io::Cursor::new(tar)), pieces);
        let collect = async {
            let mut files: Vec<(String, usize)> = Vec::new();
            while let Some(part) = received.recv().await {
                match part {
                    Part::Begin(name) => files.push((name, 0)),
                    Part::Data(piece) => files.last_mut().unwrap().1 += piece.len(),
                    Part::End => {}
                }
            }
            files
        };
        let (fed, files) = tokio::join!(feed, collect);
        fed?;
        unpack.await.unwrap()?;
        Ok(files)
    }

    #[tokio::test]
    async fn files_of_a_tar_stream_come_whole() {
        let big = vec![7; 3_000_000];
        let tar = tar_of(&[("d/toc.dat", b"x"), ("d/1.dat.zst", &big)]);
        let files = run(tar).await.unwrap();
        assert_eq!(
            files,
            [
                ("toc.dat".to_owned(), 1),
                ("1.dat.zst".to_owned(), big.len())
            ]
        );
    }

    #[tokio::test]
    async fn bar_13_a_tar_stream_cut_anywhere_is_refused() {
        let tar = tar_of(&[("d/toc.dat", &[9; 700]), ("d/1.dat", &[8; 100])]);
        for cut in (0..tar.len() - 1024).step_by(64) {
            assert!(run(tar[..cut].to_vec()).await.is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn bar_38_links_in_a_scratch_directory_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let archive = root.path().join("d");
        std::fs::create_dir(&archive).unwrap();
        std::fs::write(archive.join("toc.dat"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", archive.join("1.dat")).unwrap();
        std::os::unix::fs::symlink(&archive, root.path().join("link")).unwrap();
        let dir = open_directory(&archive).unwrap();
        let mut names = list(&dir).unwrap();
        names.sort();
        assert_eq!(names, ["1.dat", "toc.dat"]);
        assert!(open_in(&dir, "toc.dat").is_ok());
        assert!(open_in(&dir, "1.dat").is_err() && open_in(&dir, ".").is_err());
        assert!(open_directory(&root.path().join("link")).is_err());
    }

    #[tokio::test]
    async fn bar_38_names_that_lead_elsewhere_are_refused() {
        for name in ["d/../x", "../x", "/etc/x", "d/.x", "e/x", "d/a/b", "x"] {
            assert!(run(tar_of(&[(name, b"1")])).await.is_err(), "{name}");
        }
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Symlink);
        builder
            .append_link(&mut header, "d/toc.dat", "/etc/passwd")
            .unwrap();
        assert!(run(builder.into_inner().unwrap()).await.is_err());
    }
}
