//! Archives whose every byte is chosen.

use std::io::Cursor;

use archive::{ArchiveError, CheckOptions, check_custom};

/// Writes archives as pg_dump does, so that every byte can be chosen.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
    minor: u8,
}

impl Writer {
    pub(crate) fn new(minor: u8, kind: u8, compression: u8) -> Self {
        let mut bytes = b"PGDMP".to_vec();
        bytes.extend([1, minor, 0, 4, 8, kind]);
        let mut writer = Self { bytes, minor };
        if minor >= 15 {
            writer.bytes.push(compression);
        } else {
            writer.int(i64::from(compression));
        }
        for part in [1, 2, 3, 4, 5, 126, 0] {
            writer.int(part);
        }
        writer.text("db").text("15.1").text("15.1");
        writer
    }

    pub(crate) fn int(&mut self, value: i64) -> &mut Self {
        self.bytes.push(u8::from(value < 0));
        let magnitude = u32::try_from(value.unsigned_abs()).unwrap();
        self.bytes.extend(magnitude.to_le_bytes());
        self
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.int(text.len() as i64);
        self.bytes.extend(text.as_bytes());
        self
    }

    pub(crate) fn null(&mut self) -> &mut Self {
        self.int(-1)
    }

    pub(crate) fn entry(
        &mut self,
        id: i64,
        kind: &str,
        name: &str,
        copy: Option<&str>,
    ) -> &mut Self {
        self.whole_entry(id, 1, (kind, name), "", copy, &[])
    }

    pub(crate) fn whole_entry(
        &mut self,
        id: i64,
        oid: u32,
        (kind, name): (&str, &str),
        definition: &str,
        copy: Option<&str>,
        dependencies: &[i64],
    ) -> &mut Self {
        let has_data = matches!(kind, "TABLE DATA" | "BLOBS");
        self.int(id).int(i64::from(has_data));
        self.text("1259").text(&oid.to_string()).text(name);
        self.text(kind).int(3);
        self.text(definition).text("");
        match copy {
            Some(copy) => self.text(copy),
            None => self.null(),
        };
        self.text("s").null();
        if self.minor >= 14 {
            self.null();
        }
        if self.minor >= 16 {
            self.int(0);
        }
        self.text("owner").text("false");
        for dependency in dependencies {
            self.text(&dependency.to_string());
        }
        self.null()
    }

    pub(crate) fn position(&mut self, state: u8, offset: u64) -> &mut Self {
        self.bytes.push(state);
        self.bytes.extend(offset.to_le_bytes());
        self
    }

    pub(crate) fn block(&mut self, id: i64, pieces: &[&[u8]]) -> &mut Self {
        self.bytes.push(1);
        self.int(id);
        for piece in pieces {
            self.int(piece.len() as i64);
            self.bytes.extend(*piece);
        }
        self.int(0)
    }

    pub(crate) fn check(&self) -> Result<archive::ArchiveSummary, ArchiveError> {
        check_custom(Cursor::new(&self.bytes), &CheckOptions::default())
    }
}
