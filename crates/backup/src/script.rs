//! Scripts of pg_dump and pg_dumpall on their way into the store: compressed with zstd by a
//! thread of their own, the end of the text kept for the closing comment.

use std::io::{self, Write};

use bytes::Bytes;
use tokio::task::JoinHandle;

/// Last line of comment of a script of pg_dump.
pub(crate) const DATABASE_END: &str = "-- PostgreSQL database dump complete";
/// Last line of comment of a script of pg_dumpall.
pub(crate) const CLUSTER_END: &str = "-- PostgreSQL database cluster dump complete";
/// zstd level: the best of those that engine.md measured.
const LEVEL: i32 = 2;
/// Word of the manifest for it.
pub(crate) const COMPRESSION: &str = "zstd:2";
/// Bytes of the end of a script that are kept.
const TAIL: usize = 4096;

type Zstd = zstd::stream::write::Encoder<'static, Vec<u8>>;
type Step = JoinHandle<io::Result<(Zstd, Bytes)>>;

/// Compresses pieces one after the other while the caller reads the next one.
pub(crate) struct Encoder {
    state: io::Result<Option<Zstd>>,
    under_way: Option<Step>,
}

impl Encoder {
    pub(crate) fn start() -> Self {
        let zstd = Zstd::new(Vec::new(), LEVEL).and_then(|mut zstd| {
            zstd.include_checksum(true)?;
            Ok(Some(zstd))
        });
        Self {
            state: zstd,
            under_way: None,
        }
    }

    /// Takes a piece; returns what the piece before it became, where that was anything.
    pub(crate) async fn push(&mut self, piece: Bytes) -> io::Result<Option<Bytes>> {
        let done = self.wait().await?;
        let mut zstd = self.take()?;
        self.under_way = Some(tokio::task::spawn_blocking(move || {
            zstd.write_all(&piece)?;
            let out = std::mem::take(zstd.get_mut());
            Ok((zstd, Bytes::from(out)))
        }));
        Ok(done)
    }

    /// Ends the stream; what is left to be written.
    pub(crate) async fn finish(mut self) -> io::Result<Vec<Bytes>> {
        let before = self.wait().await?;
        let zstd = self.take()?;
        let rest = tokio::task::spawn_blocking(move || zstd.finish())
            .await
            .map_err(io::Error::other)??;
        Ok(before
            .into_iter()
            .chain(Some(Bytes::from(rest)))
            .filter(|piece| !piece.is_empty())
            .collect())
    }

    async fn wait(&mut self) -> io::Result<Option<Bytes>> {
        let Some(step) = self.under_way.take() else {
            return Ok(None);
        };
        let (zstd, out) = step.await.map_err(io::Error::other)??;
        self.state = Ok(Some(zstd));
        Ok((!out.is_empty()).then_some(out))
    }

    fn take(&mut self) -> io::Result<Zstd> {
        match std::mem::replace(&mut self.state, Ok(None)) {
            Ok(Some(zstd)) => Ok(zstd),
            Ok(None) => Err(io::Error::other("an earlier piece could not be compressed")),
            Err(error) => Err(error),
        }
    }
}

/// The end of a script.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    bytes: Vec<u8>,
}

impl Tail {
    pub(crate) fn push(&mut self, piece: &[u8]) {
        let piece = &piece[piece.len().saturating_sub(TAIL)..];
        let keep = TAIL - piece.len();
        let drop = self.bytes.len().saturating_sub(keep);
        self.bytes.drain(..drop);
        self.bytes.extend_from_slice(piece);
    }

    /// Wants `closing` as the last line but comments, blank lines and `\unrestrict`.
    pub(crate) fn check(&self, closing: &str) -> Result<(), String> {
        let text = String::from_utf8_lossy(&self.bytes);
        let last = text.lines().rev().find(|line| {
            let line = line.trim_end();
            !(line.is_empty() || line == "--" || line.starts_with("\\unrestrict "))
        });
        if last == Some(closing) && text.ends_with('\n') {
            return Ok(());
        }
        Err(format!(
            "the closing comment {closing:?} is missing: the script was cut"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn compressed_scripts_come_back_equal() {
        let text: Vec<u8> = (0..3_000_000_u32).map(|i| b'a' + (i % 23) as u8).collect();
        let mut encoder = Encoder::start();
        let mut stored = Vec::new();
        for piece in text.chunks(1 << 20) {
            if let Some(done) = encoder.push(Bytes::copy_from_slice(piece)).await.unwrap() {
                stored.extend_from_slice(&done);
            }
        }
        for done in encoder.finish().await.unwrap() {
            stored.extend_from_slice(&done);
        }
        assert!(stored.len() < text.len() / 2);
        assert!(zstd::stream::decode_all(stored.as_slice()).unwrap() == text);
    }

    #[test]
    fn closing_comment_must_be_the_end() {
        let check = |text: &str| {
            let mut tail = Tail::default();
            for piece in text.as_bytes().chunks(7) {
                tail.push(piece);
            }
            tail.check(DATABASE_END)
        };
        let end = format!("--\n{DATABASE_END}\n--\n\n");
        assert!(check(&format!("{}{end}", "x\n".repeat(5000))).is_ok());
        assert!(check(&format!("{end}\\unrestrict abc\n\n")).is_ok());
        for cut in 1..end.len() - 5 {
            let text = &end[..cut];
            let whole = text.contains(&format!("{DATABASE_END}\n"));
            assert_eq!(check(text).is_ok(), whole, "{text:?}");
        }
        assert!(check(&format!("{end}COPY t FROM stdin;\n1\n")).is_err());
        assert!(check("").is_err());
    }
}
