//! Decoding a stored stream to its end, by pgstow's own reader.

use std::io;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::attest::{Contents, Wanted};
use crate::script;
use crate::stream::PieceReader;

/// How a single stored stream is decoded.
#[derive(Debug, Clone)]
pub(crate) enum Decode {
    /// A custom archive, and what is to be found out beside.
    Custom(Wanted),
    /// A compressed script of pg_dump.
    Plain,
    /// A compressed script of pg_dumpall.
    Globals,
}

/// A decoder on a thread of its own.
pub(crate) struct Decoder {
    /// Takes the stream; dropped at its end.
    pub(crate) pieces: mpsc::Sender<Bytes>,
    thread: JoinHandle<Result<Option<Contents>, String>>,
}

impl Decoder {
    pub(crate) fn start(decode: Decode) -> Self {
        let (pieces, reader) = PieceReader::new();
        let thread = tokio::task::spawn_blocking(move || decode_all(&decode, reader));
        Self { pieces, thread }
    }

    /// What was found (nothing of roles), or what is wrong, in words.
    pub(crate) async fn finish(self) -> Result<Option<Contents>, String> {
        drop(self.pieces);
        self.thread
            .await
            .unwrap_or_else(|panic| Err(panic.to_string()))
    }
}

fn decode_all(decode: &Decode, reader: PieceReader) -> Result<Option<Contents>, String> {
    let said = |error: archive::ArchiveError| crate::run::chain(&error);
    let zstd = |reader| {
        zstd::stream::read::Decoder::new(reader).map_err(|error| format!("no zstd: {error}"))
    };
    match decode {
        Decode::Custom(wanted) => wanted
            .read(|options, each| archive::check_custom_each(reader, options, each))
            .map(|summary| Some(Contents::Archive(summary)))
            .map_err(said),
        Decode::Plain => archive::check_plain(zstd(reader)?)
            .map(|summary| Some(Contents::Script(summary)))
            .map_err(said),
        Decode::Globals => {
            let mut script = zstd(reader)?;
            let mut tail = script::Tail::default();
            let mut buffer = vec![0; 1 << 16];
            loop {
                match io::Read::read(&mut script, &mut buffer) {
                    Ok(0) => return tail.check(script::CLUSTER_END).map(|()| None),
                    Ok(count) => tail.push(&buffer[..count]),
                    Err(error) => return Err(format!("it cannot be decompressed: {error}")),
                }
            }
        }
    }
}
