//! Standard error of a program: kept as lines, bounded in number and length.

use std::collections::VecDeque;

use super::types::StderrWatch;

/// Lines that are kept; the last ones, because they say why a program failed.
const MAX_LINES: usize = 200;
/// Bytes of a line that are kept.
const MAX_LINE: usize = 4096;

/// Collects lines from pieces of any size.
#[derive(Default)]
pub(crate) struct StderrLog {
    watch: Option<StderrWatch>,
    lines: VecDeque<String>,
    partial: Vec<u8>,
    /// Bytes of the line under way that were thrown away.
    cut: bool,
    dropped: u64,
}

impl StderrLog {
    /// Tells each line also to a watch.
    pub(crate) fn watched(watch: Option<StderrWatch>) -> Self {
        Self {
            watch,
            ..Self::default()
        }
    }

    /// Takes a piece.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            let room = MAX_LINE - self.partial.len();
            self.cut |= text.len() > room;
            self.partial
                .extend_from_slice(&text[..text.len().min(room)]);
            if ended {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let mut line = String::from_utf8_lossy(&self.partial).trim_end().to_owned();
        if self.cut {
            line.push_str(" […]");
        }
        self.partial.clear();
        self.cut = false;
        if line.is_empty() {
            return;
        }
        if let Some(watch) = &self.watch {
            watch(&line);
        }
        if self.lines.len() == MAX_LINES {
            self.lines.pop_front();
            self.dropped += 1;
        }
        self.lines.push_back(line);
    }

    /// The lines, and how many were dropped.
    pub(crate) fn finish(&mut self) -> (Vec<String>, u64) {
        if !self.partial.is_empty() {
            self.end_line();
        }
        (std::mem::take(&mut self.lines).into(), self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_17_a_flood_is_bounded_and_its_end_is_kept() {
        let mut log = StderrLog::default();
        for number in 0..100_000 {
            log.push(format!("line {number}\n").as_bytes());
        }
        log.push(&vec![b'x'; 1 << 20]);
        let (lines, dropped) = log.finish();
        assert_eq!(lines.len(), MAX_LINES);
        assert_eq!(lines[MAX_LINES - 2], "line 99999");
        assert!(lines[MAX_LINES - 1].len() < MAX_LINE + 10);
        assert_eq!(dropped, 100_001 - MAX_LINES as u64);
    }

    #[test]
    fn bar_17_lines_are_the_same_at_every_split() {
        let text = "pg_dump: error: ä\nsecond\n\nlast";
        for at in 0..=text.len() {
            let mut log = StderrLog::default();
            log.push(&text.as_bytes()[..at]);
            log.push(&text.as_bytes()[at..]);
            assert_eq!(log.finish().0, ["pg_dump: error: ä", "second", "last"]);
        }
    }
}
