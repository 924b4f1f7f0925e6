//! A tar stream of one file, made while it is sent: the engine takes files only as tar.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

const BLOCK: usize = 512;

/// Header of a regular file. Sizes of 8 GiB and more use the binary form that GNU tar writes.
///
/// # Errors
/// When the name does not fit.
pub(crate) fn header(name: &str, size: u64, mode: u32) -> Result<Vec<u8>, String> {
    if name.is_empty() || name.len() > 100 || name.contains(['/', '\0']) {
        return Err(format!("{name:?} is no name for a file to copy"));
    }
    let mut block = vec![0_u8; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    let octal = |value: u64, width: usize| format!("{value:0width$o}\0", width = width - 1);
    block[100..108].copy_from_slice(octal(u64::from(mode), 8).as_bytes());
    block[108..116].copy_from_slice(octal(0, 8).as_bytes());
    block[116..124].copy_from_slice(octal(0, 8).as_bytes());
    if size < 1 << 33 {
        block[124..136].copy_from_slice(octal(size, 12).as_bytes());
    } else {
        block[124] = 0x80;
        block[128..136].copy_from_slice(&size.to_be_bytes());
    }
    block[136..148].copy_from_slice(octal(0, 12).as_bytes());
    block[156] = b'0';
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

/// Padding of the content and the end of the archive.
pub(crate) fn trailer(size: u64) -> Vec<u8> {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    let padding = if over == 0 { 0 } else { BLOCK - over };
    vec![0; padding + 2 * BLOCK]
}

/// Passes exactly as many bytes as were announced: fewer or more is an error.
pub(crate) struct Exact {
    content: Pin<Box<dyn AsyncRead + Send>>,
    left: u64,
}

impl Exact {
    pub(crate) fn new(content: Pin<Box<dyn AsyncRead + Send>>, size: u64) -> Self {
        Self {
            content,
            left: size,
        }
    }
}

impl AsyncRead for Exact {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(this.content.as_mut().poll_read(cx, buf))?;
        let read = (buf.filled().len() - before) as u64;
        let message = match (read, this.left) {
            (0, 0) => return Poll::Ready(Ok(())),
            (0, left) => format!("the content ended {left} bytes early"),
            (read, left) if read > left => "the content is longer than announced".to_owned(),
            (read, left) => {
                this.left = left - read;
                return Poll::Ready(Ok(()));
            }
        };
        Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_adds_up() {
        let block = header("a.dump", 1234, 0o600).unwrap();
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| {
                if (148..156).contains(&at) {
                    32
                } else {
                    u64::from(*byte)
                }
            })
            .sum();
        assert_eq!(&block[148..154], format!("{sum:06o}").as_bytes());
        assert_eq!(&block[124..135], b"00000002322");
        assert_eq!(trailer(1234).len(), 512 * 3 - 1234 + 1024);
        assert_eq!(trailer(1024).len(), 1024);
    }

    #[test]
    fn names_stay_names() {
        assert!(header("../x", 1, 0o600).is_err());
        assert!(header("", 1, 0o600).is_err());
    }
}
