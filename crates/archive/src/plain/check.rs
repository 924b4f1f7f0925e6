//! Is a plain dump whole, and does it hold nothing but what pg_dump writes?

use std::io::Read;
use std::ops::Range;

use memchr::memchr;

use super::lexer::{Lexer, Token};
use crate::{error::ArchiveError, name::LastName, primitives::ArchiveReader, summary::TableData};

/// Longest part of a statement that is kept, bytes.
const STATEMENT_KEPT: usize = 8 * 1024;
/// Longest line of a command of psql's own that is looked at, bytes.
const COMMAND_LIMIT: usize = 256;
/// Most `\restrict` lines of one script (a pair for each dump in it).
const COMMANDS_LIMIT: usize = 1000;
/// Client encodings in which a second byte can look like a backslash, so that scanners of SQL can
/// be led astray. No server stores them.
const UNSAFE_ENCODINGS: &[&str] = &[
    "sjis",
    "shiftjis",
    "shiftjis2004",
    "mskanji",
    "win932",
    "windows932",
    "big5",
    "win950",
    "windows950",
    "gbk",
    "win936",
    "windows936",
    "uhc",
    "win949",
    "windows949",
    "gb18030",
    "johab",
];

/// Which program wrote a plain dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainKind {
    /// `pg_dump`: one database.
    Database,
    /// `pg_dumpall`: roles and tablespaces, and perhaps databases.
    Cluster,
}

/// A plain dump that was read to its last byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainSummary {
    /// Which program wrote it.
    pub kind: PlainKind,
    /// Version of the server, as the comment at the top says.
    pub server_version: Option<String>,
    /// Version of the program that wrote it.
    pub dump_version: Option<String>,
    /// Rows of each `COPY … FROM stdin`, in the order of the script.
    pub tables: Vec<TableData>,
    /// Statements.
    pub statements: u64,
    /// Whether a statement creates a database (`pg_dump -C`).
    pub creates_database: bool,
    /// Whether a statement begins or ends a transaction (large objects in plain dumps do).
    pub controls_transactions: bool,
    /// Where the `\restrict` and `\unrestrict` lines are, with their line breaks; a psql before
    /// August 2025 must not see them.
    pub restrict_lines: Vec<Range<u64>>,
    /// Bytes that were read.
    pub stored_bytes: u64,
}

impl PlainSummary {
    /// Major version of the server that was dumped, where the script says one.
    #[must_use]
    pub fn server_major(&self) -> Option<u32> {
        crate::header::major_of(self.server_version.as_deref()?)
    }
}

/// Reads a whole plain dump (decompressed) in constant memory. It must end with pg_dump's closing
/// comment, every `COPY` must have its terminator, every quote must be closed; commands of psql
/// itself are refused but for a matching pair of `\restrict` and `\unrestrict`, and so is `COPY`
/// from or to programs and files.
///
/// # Errors
/// [`ArchiveError::ScriptIncomplete`], [`ArchiveError::UnsafeScript`], [`ArchiveError::Read`].
pub fn check_plain(reader: impl Read) -> Result<PlainSummary, ArchiveError> {
    let mut reader = ArchiveReader::new(reader, "the plain dump");
    let mut check = Check::new();
    loop {
        let buffered = reader.fill()?;
        let length = buffered.len();
        if length == 0 {
            break;
        }
        if memchr(0, buffered).is_some() {
            return Err(check.unsafe_script("it holds a zero byte"));
        }
        check.push(buffered)?;
        reader.consume(length);
    }
    check.finish(reader.offset())
}

struct Check {
    lexer: Lexer,
    tokens: Vec<Token>,
    mode: Mode,
    line: u64,
    /// Bytes taken so far.
    offset: u64,
    /// Offset of the command that is read now.
    command_start: u64,
    at_line_start: bool,
    kind: Option<PlainKind>,
    /// Whether the closing comment was read and nothing that does something came after it.
    complete: bool,
    restrict_key: Option<Vec<u8>>,
    /// Whether the script's client encoding is UTF-8.
    utf8: bool,
    statement: Statement,
    /// Schema of the table before.
    schema: LastName,
    summary: PlainSummary,
}

enum Mode {
    /// Statements.
    Sql,
    /// A backslash was read: the rest of the line.
    Command(Vec<u8>),
    /// After `COPY … FROM stdin;`, before the end of the line.
    CopyBegins,
    /// Rows of COPY.
    Copy { line: CopyLine },
}

/// What is known of a line of rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CopyLine {
    Start,
    Backslash,
    Terminator,
    TerminatorReturn,
    Row,
}

/// What is known of the statement that is read now.
#[derive(Default)]
struct Statement {
    text: Vec<u8>,
    tokens: u64,
    first: Option<String>,
    second: Option<String>,
    /// The last two tokens, where they are words.
    last: [Option<String>; 2],
    /// Parameter that a literal or word named, and that must only be set in one way.
    parameter: Option<&'static str>,
    value: Option<Vec<u8>>,
}

impl Check {
    fn new() -> Self {
        Self {
            lexer: Lexer::default(),
            tokens: Vec::new(),
            mode: Mode::Sql,
            line: 1,
            offset: 0,
            command_start: 0,
            at_line_start: true,
            kind: None,
            complete: false,
            restrict_key: None,
            utf8: true,
            statement: Statement::default(),
            schema: LastName::default(),
            summary: PlainSummary {
                kind: PlainKind::Database,
                server_version: None,
                dump_version: None,
                tables: Vec::new(),
                statements: 0,
                creates_database: false,
                controls_transactions: false,
                restrict_lines: Vec::new(),
                stored_bytes: 0,
            },
        }
    }

    fn unsafe_script(&self, problem: impl Into<String>) -> ArchiveError {
        ArchiveError::UnsafeScript {
            line: self.line,
            problem: problem.into(),
        }
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<(), ArchiveError> {
        while let Some(&byte) = bytes.first() {
            if let Mode::Copy { line } = self.mode {
                let taken = self.copy(line, bytes);
                bytes = &bytes[taken..];
                continue;
            }
            bytes = &bytes[1..];
            self.offset += 1;
            match &mut self.mode {
                Mode::Command(text) => {
                    if byte == b'\n' {
                        let text = std::mem::take(text);
                        self.mode = Mode::Sql;
                        self.command(&text)?;
                    } else if text.len() < COMMAND_LIMIT {
                        text.push(byte);
                    }
                }
                Mode::CopyBegins => match byte {
                    b'\n' => {
                        self.mode = Mode::Copy {
                            line: CopyLine::Start,
                        };
                    }
                    b' ' | b'\t' | b'\r' => {}
                    _ => return Err(self.unsafe_script("something follows COPY on its line")),
                },
                Mode::Sql | Mode::Copy { .. } => self.sql(byte)?,
            }
            if byte == b'\n' {
                self.line += 1;
                self.at_line_start = true;
            } else {
                self.at_line_start = false;
            }
        }
        Ok(())
    }

    /// Takes bytes of rows; returns how many.
    fn copy(&mut self, mut line: CopyLine, bytes: &[u8]) -> usize {
        let mut taken = 0;
        let table = self.summary.tables.len().saturating_sub(1);
        let mut rows = 0;
        let mut ended = false;
        while let Some(&byte) = bytes.get(taken) {
            match (line, byte) {
                (CopyLine::Start, b'\\') => line = CopyLine::Backslash,
                (CopyLine::Backslash, b'.') => line = CopyLine::Terminator,
                (CopyLine::Terminator, b'\r') => line = CopyLine::TerminatorReturn,
                (CopyLine::Terminator | CopyLine::TerminatorReturn, b'\n') => {
                    taken += 1;
                    self.line += 1;
                    ended = true;
                    break;
                }
                _ => {
                    if let Some(end) = memchr(b'\n', &bytes[taken..]) {
                        rows += 1;
                        self.line += 1;
                        line = CopyLine::Start;
                        taken += end + 1;
                    } else {
                        line = CopyLine::Row;
                        taken = bytes.len();
                    }
                    continue;
                }
            }
            taken += 1;
        }
        if let Some(table) = self.summary.tables.get_mut(table) {
            table.bytes += taken as u64;
            table.rows = Some(table.rows.unwrap_or(0) + rows);
        }
        self.offset += taken as u64;
        self.mode = if ended {
            self.at_line_start = true;
            Mode::Sql
        } else {
            Mode::Copy { line }
        };
        taken
    }

    fn sql(&mut self, byte: u8) -> Result<(), ArchiveError> {
        let mut tokens = std::mem::take(&mut self.tokens);
        self.lexer.push(byte, &mut tokens);
        if self.statement.text.len() < STATEMENT_KEPT
            && (self.statement.tokens > 0 || !tokens.is_empty() || !self.lexer.in_sql())
        {
            self.statement.text.push(byte);
        }
        for token in tokens.drain(..) {
            self.token(token)?;
        }
        self.tokens = tokens;
        Ok(())
    }

    fn token(&mut self, token: Token) -> Result<(), ArchiveError> {
        match &token {
            Token::Comment(text) => {
                self.comment(text);
                if self.statement.tokens == 0 {
                    self.statement.text.clear();
                }
                return Ok(());
            }
            Token::Backslash => {
                if !self.at_line_start || !self.lexer.between_statements() {
                    return Err(self.unsafe_script(
                        "a backslash outside of quotes, which psql takes for a command",
                    ));
                }
                self.statement.text.clear();
                self.command_start = self.offset - 1;
                self.mode = Mode::Command(Vec::new());
                return Ok(());
            }
            Token::Ambiguous => {
                return Err(self.unsafe_script(
                    "a string that versions of psql read differently, and that pg_dump never \
                     writes",
                ));
            }
            Token::End => return self.end_of_statement(),
            Token::Word(_) | Token::Literal(_) | Token::Other => {}
        }
        self.complete = false;
        self.statement.take(token);
        Ok(())
    }

    fn comment(&mut self, text: &[u8]) {
        let text = text.trim_ascii();
        let after = |prefix: &str| {
            text.strip_prefix(prefix.as_bytes())
                .map(|rest| String::from_utf8_lossy(rest).trim().to_owned())
        };
        match text {
            b"PostgreSQL database dump" => {
                self.kind.get_or_insert(PlainKind::Database);
            }
            b"PostgreSQL database cluster dump" => {
                self.kind.get_or_insert(PlainKind::Cluster);
            }
            b"PostgreSQL database dump complete" => {
                self.complete = self.kind == Some(PlainKind::Database);
            }
            b"PostgreSQL database cluster dump complete" => {
                self.complete = self.kind == Some(PlainKind::Cluster);
            }
            _ => {
                if let Some(version) = after("Dumped from database version ") {
                    self.summary.server_version.get_or_insert(version);
                } else if let Some(version) = after("Dumped by pg_dump version ") {
                    self.summary.dump_version.get_or_insert(version);
                }
            }
        }
    }

    /// A command of psql's own: the text after the backslash.
    fn command(&mut self, text: &[u8]) -> Result<(), ArchiveError> {
        // The line break was counted when the command ended.
        let text = text.trim_ascii_end();
        let (name, key) = match text.iter().position(u8::is_ascii_whitespace) {
            Some(end) => (&text[..end], text[end..].trim_ascii()),
            None => (text, &b""[..]),
        };
        let plain_key = !key.is_empty() && key.iter().all(u8::is_ascii_alphanumeric);
        match name {
            b"restrict" if plain_key && self.restrict_key.is_none() => {
                self.restrict_key = Some(key.to_vec());
                self.command_seen()?;
                self.complete = false;
                Ok(())
            }
            b"unrestrict" if plain_key && self.restrict_key.as_deref() == Some(key) => {
                self.restrict_key = None;
                self.command_seen()
            }
            b"connect" | b"c" => Err(self.unsafe_script(
                "\\connect: it leads to another database (pg_dump -C and pg_dumpall write this)",
            )),
            _ => Err(self.unsafe_script(format!(
                "the command \\{} of psql",
                String::from_utf8_lossy(&name[..name.len().min(20)])
            ))),
        }
    }

    /// Remembers the place of a command that may stay.
    fn command_seen(&mut self) -> Result<(), ArchiveError> {
        if self.summary.restrict_lines.len() >= COMMANDS_LIMIT {
            return Err(self.unsafe_script("too many \\restrict lines"));
        }
        self.summary
            .restrict_lines
            .push(self.command_start..self.offset);
        Ok(())
    }

    fn end_of_statement(&mut self) -> Result<(), ArchiveError> {
        let statement = std::mem::take(&mut self.statement);
        self.summary.statements += 1;
        self.complete = false;
        match statement.first.as_deref() {
            Some("copy") => {
                if statement.last != [Some("from".to_owned()), Some("stdin".to_owned())] {
                    return Err(self.unsafe_script("a COPY that is not FROM stdin"));
                }
                let (schema, name, lossy) = copied_table(&statement.text);
                self.summary.tables.push(TableData {
                    dump_id: 0,
                    oid: 0,
                    schema: self.schema.share(&schema),
                    name: name.into(),
                    bytes: 0,
                    rows: Some(0),
                    fingerprint: None,
                    lossy,
                });
                self.mode = Mode::CopyBegins;
            }
            Some("create") if statement.second.as_deref() == Some("database") => {
                self.summary.creates_database = true;
            }
            Some(
                "begin" | "commit" | "rollback" | "start" | "end" | "abort" | "savepoint"
                | "release" | "prepare",
            ) => self.summary.controls_transactions = true,
            _ => {}
        }
        statement
            .parameter
            .map_or(Ok(()), |parameter| self.parameter(parameter, &statement))
    }

    /// Parameters that change how psql reads what follows.
    fn parameter(&mut self, parameter: &str, statement: &Statement) -> Result<(), ArchiveError> {
        let set = statement.first.as_deref() == Some("set")
            && statement.second.as_deref() == Some(parameter);
        let value = statement
            .value
            .as_deref()
            .map(|value| {
                value
                    .iter()
                    .filter(|byte| byte.is_ascii_alphanumeric())
                    .map(|byte| char::from(byte.to_ascii_lowercase()))
                    .collect::<String>()
            })
            .unwrap_or_default();
        let good = set
            && match parameter {
                "client_encoding" => {
                    self.utf8 = value == "utf8" || value == "unicode";
                    statement.tokens == 4
                        && !value.is_empty()
                        && !UNSAFE_ENCODINGS.contains(&value.as_str())
                }
                _ => statement.tokens == 4 && statement.last[1].as_deref() == Some("on"),
            };
        if good {
            Ok(())
        } else {
            Err(self.unsafe_script(format!(
                "it sets {parameter} in a way that would change how psql reads what follows"
            )))
        }
    }

    fn finish(mut self, stored_bytes: u64) -> Result<PlainSummary, ArchiveError> {
        if let Mode::Command(text) = &self.mode {
            let text = text.clone();
            self.mode = Mode::Sql;
            self.command(&text)?;
        } else if matches!(self.mode, Mode::Sql) {
            // A file may end without a line break.
            self.sql(b'\n')?;
        }
        let incomplete = |problem: String| Err(ArchiveError::ScriptIncomplete { problem });
        if !matches!(self.mode, Mode::Sql) {
            return incomplete(format!(
                "it ends at line {} inside the rows of a table",
                self.line
            ));
        }
        let Some(kind) = self.kind else {
            return incomplete(
                "it does not begin with pg_dump's comment \"PostgreSQL database dump\"".to_owned(),
            );
        };
        if !self.lexer.between_statements() || self.statement.tokens > 0 {
            return incomplete(format!("it ends at line {} inside a statement", self.line));
        }
        if !self.complete {
            return incomplete("the closing comment \"dump complete\" is missing".to_owned());
        }
        if self.restrict_key.is_some() {
            return incomplete("\\restrict has no matching \\unrestrict".to_owned());
        }
        if !self.utf8 {
            self.summary.tables.iter_mut().for_each(TableData::not_utf8);
        }
        self.summary.kind = kind;
        self.summary.stored_bytes = stored_bytes;
        Ok(self.summary)
    }
}

impl Statement {
    fn take(&mut self, token: Token) {
        self.tokens += 1;
        let word = match token {
            Token::Word(word) => Some(word),
            Token::Literal(value) => {
                self.note_parameter(&value);
                self.value = Some(value);
                None
            }
            _ => None,
        };
        if let Some(word) = &word {
            self.note_parameter(word.as_bytes());
            if self.tokens == 1 {
                self.first = Some(word.clone());
            } else if self.tokens == 2 {
                self.second = Some(word.clone());
            }
        }
        self.last.swap(0, 1);
        self.last[1] = word;
    }

    fn note_parameter(&mut self, text: &[u8]) {
        for parameter in ["client_encoding", "standard_conforming_strings"] {
            if text.eq_ignore_ascii_case(parameter.as_bytes()) {
                self.parameter = Some(parameter);
            }
        }
    }
}

/// Schema and name of `COPY schema.name (…) FROM stdin`, and whether a part was not UTF-8.
fn copied_table(statement: &[u8]) -> (String, String, bool) {
    let text = statement.trim_ascii();
    let text = text.get(4..).unwrap_or_default().trim_ascii_start();
    let (first, rest) = identifier(text);
    let (schema, name) = match rest.strip_prefix(b".") {
        Some(rest) => (first, identifier(rest).0),
        None => (Vec::new(), first),
    };
    let lossy = std::str::from_utf8(&schema).is_err() || std::str::from_utf8(&name).is_err();
    (
        String::from_utf8_lossy(&schema).into_owned(),
        String::from_utf8_lossy(&name).into_owned(),
        lossy,
    )
}

/// The identifier at the start of `text`, unquoted, and what follows it.
fn identifier(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut name = Vec::new();
    let Some(mut rest) = text.strip_prefix(b"\"") else {
        let end = text
            .iter()
            .position(|byte| matches!(byte, b'.' | b'(') || byte.is_ascii_whitespace())
            .unwrap_or(text.len());
        return (text[..end].to_ascii_lowercase(), &text[end..]);
    };
    while let Some(end) = memchr(b'"', rest) {
        name.extend_from_slice(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix(b"\"") {
            Some(after) => {
                name.push(b'"');
                rest = after;
            }
            None => break,
        }
    }
    (name, rest)
}
