//! psql's view of a script: where statements begin and end, what is quoted, and where a
//! backslash would be a command of psql itself.
//!
//! Follows psql's own scanner (`psqlscan.l`): quotes, escape strings, quoted identifiers, dollar
//! quotes, nested comments, parentheses, and `BEGIN ATOMIC` bodies, in which a semicolon does
//! not end the statement. Where scanners of different majors disagree, the script is refused.

/// What the scanner sees besides characters that mean nothing to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A backslash outside of quotes: psql takes what follows as its own command.
    Backslash,
    /// A word outside of quotes, in lower case, cut at 64 bytes.
    Word(String),
    /// The semicolon that ends a statement.
    End,
    /// Any other character outside of quotes and comments that is not white space.
    Other,
    /// A string literal, with its content cut at 64 bytes.
    Literal(Vec<u8>),
    /// A line comment, with its text cut at 256 bytes, without the dashes.
    Comment(Vec<u8>),
    /// Something that psql's scanners of different majors read differently: an escape string that
    /// goes on after a line break, `1e'…'`, an endless dollar tag.
    Ambiguous,
}

/// Longest part of a word or literal that is kept, bytes.
const KEPT: usize = 64;
/// Longest part of a comment or dollar tag that is kept, bytes.
const KEPT_COMMENT: usize = 256;

#[derive(Default)]
enum State {
    #[default]
    Sql,
    Word,
    /// One dash.
    Dash,
    LineComment,
    /// One slash.
    Slash,
    BlockComment {
        depth: u32,
        last: u8,
    },
    /// In `'…'`, with backslash escapes or not.
    Literal {
        escapes: bool,
        escaped: bool,
        /// A quote was read: the end, or the first half of a doubled one.
        quote: bool,
    },
    /// In `"…"`.
    Quoted,
    /// After a dollar: a tag, or not.
    DollarTag,
    /// In `$tag$…$tag$`.
    Dollar {
        /// Bytes of the closing tag that matched.
        matched: usize,
    },
}

/// The scanner. Bytes go in; tokens come out.
#[derive(Default)]
pub(crate) struct Lexer {
    state: State,
    text: Vec<u8>,
    tag: Vec<u8>,
    parens: u32,
    /// First letters of the first words, as psql keeps them, to know `CREATE FUNCTION`.
    first_words: Vec<u8>,
    words: usize,
    begins: u32,
    /// After an escape string: whether a line break was seen since.
    after_escape_string: Option<bool>,
    /// Whether the word that is read now, or the next byte, follows a digit.
    after_digit: bool,
}

impl Lexer {
    /// Whether the script is between statements' characters, not inside quotes or comments.
    pub(crate) fn in_sql(&self) -> bool {
        matches!(self.state, State::Sql)
    }

    /// Whether everything that was opened is closed and the last statement ended.
    pub(crate) fn between_statements(&self) -> bool {
        self.in_sql() && self.words == 0 && self.parens == 0 && self.begins == 0
    }

    /// Takes one byte.
    pub(crate) fn push(&mut self, byte: u8, out: &mut Vec<Token>) {
        match &mut self.state {
            State::Sql => self.sql(byte, out),
            State::Word => {
                if is_word(byte) {
                    if self.text.len() < KEPT {
                        self.text.push(byte.to_ascii_lowercase());
                    } else {
                        // A word this long is none of those that matter.
                        self.text.truncate(KEPT);
                    }
                } else if byte == b'\'' && matches!(self.text.as_slice(), b"e") {
                    if self.after_digit {
                        out.push(Token::Ambiguous);
                    }
                    self.begin_literal(true);
                } else if byte == b'\'' && matches!(self.text.as_slice(), b"b" | b"x" | b"n") {
                    self.begin_literal(false);
                } else {
                    self.end_word(out);
                    self.sql(byte, out);
                }
            }
            State::Dash => {
                if byte == b'-' {
                    self.text.clear();
                    self.state = State::LineComment;
                } else {
                    self.other(out);
                    self.sql(byte, out);
                }
            }
            State::LineComment => {
                if matches!(byte, b'\n' | b'\r') {
                    out.push(Token::Comment(std::mem::take(&mut self.text)));
                    self.state = State::Sql;
                    self.sql(byte, out);
                } else if self.text.len() < KEPT_COMMENT {
                    self.text.push(byte);
                }
            }
            State::Slash => {
                if byte == b'*' {
                    self.state = State::BlockComment { depth: 1, last: 0 };
                } else {
                    self.other(out);
                    self.sql(byte, out);
                }
            }
            State::BlockComment { depth, last } => match (*last, byte) {
                (b'*', b'/') => {
                    *depth -= 1;
                    *last = 0;
                    if *depth == 0 {
                        self.state = State::Sql;
                    }
                }
                (b'/', b'*') => {
                    *depth = depth.saturating_add(1);
                    *last = 0;
                }
                _ => *last = byte,
            },
            State::Literal {
                escapes,
                escaped,
                quote,
            } => {
                if *quote {
                    if byte == b'\'' {
                        *quote = false;
                    } else {
                        let escapes = *escapes;
                        out.push(Token::Literal(std::mem::take(&mut self.text)));
                        self.state = State::Sql;
                        self.after_escape_string = escapes.then_some(false);
                        self.sql(byte, out);
                    }
                } else if *escaped {
                    *escaped = false;
                } else if byte == b'\\' && *escapes {
                    *escaped = true;
                } else if byte == b'\'' {
                    *quote = true;
                } else if self.text.len() < KEPT {
                    self.text.push(byte);
                }
            }
            State::Quoted => {
                // A doubled quote ends and begins again at once, which is the same.
                if byte == b'"' {
                    self.state = State::Sql;
                    out.push(Token::Other);
                }
            }
            State::DollarTag => {
                let begins = self.tag.len() == 1;
                if byte == b'$' {
                    self.tag.push(byte);
                    self.state = State::Dollar { matched: 0 };
                } else if (is_word_start(byte) || (!begins && byte.is_ascii_digit()))
                    && self.tag.len() < KEPT_COMMENT
                {
                    self.tag.push(byte);
                } else {
                    if self.tag.len() >= KEPT_COMMENT {
                        out.push(Token::Ambiguous);
                    }
                    // No tag after all ($1, or a lone dollar).
                    let rest = std::mem::take(&mut self.tag);
                    self.other(out);
                    for byte in rest.into_iter().skip(1).chain([byte]) {
                        self.push(byte, out);
                    }
                }
            }
            State::Dollar { matched } => {
                if byte == self.tag[*matched] {
                    *matched += 1;
                    if *matched == self.tag.len() {
                        self.state = State::Sql;
                        out.push(Token::Other);
                    }
                } else {
                    // A dollar can only be the first byte of the closing tag.
                    *matched = usize::from(byte == b'$');
                }
            }
        }
    }

    fn sql(&mut self, byte: u8, out: &mut Vec<Token>) {
        let after_digit = std::mem::take(&mut self.after_digit);
        if byte.is_ascii_whitespace() || byte == 0x0b {
            if byte == b'\n'
                && let Some(line_break) = &mut self.after_escape_string
            {
                *line_break = true;
            }
            return;
        }
        if byte == b'-' {
            self.state = State::Dash;
            return;
        }
        let after = self.after_escape_string.take();
        match byte {
            b'\'' => {
                if after == Some(true) {
                    out.push(Token::Ambiguous);
                }
                self.begin_literal(false);
            }
            b'"' => self.state = State::Quoted,
            b'$' => {
                self.tag.clear();
                self.tag.push(byte);
                self.state = State::DollarTag;
            }
            b'/' => self.state = State::Slash,
            b'\\' => out.push(Token::Backslash),
            b'(' => {
                self.parens = self.parens.saturating_add(1);
                out.push(Token::Other);
            }
            b')' => {
                self.parens = self.parens.saturating_sub(1);
                out.push(Token::Other);
            }
            b';' if self.parens == 0 && self.begins == 0 => {
                self.words = 0;
                self.first_words.clear();
                out.push(Token::End);
            }
            _ if is_word_start(byte) => {
                self.text.clear();
                self.text.push(byte.to_ascii_lowercase());
                self.state = State::Word;
                self.after_digit = after_digit;
            }
            _ => {
                self.after_digit = byte.is_ascii_digit() || (byte == b'.' && after_digit);
                out.push(Token::Other);
            }
        }
    }

    fn begin_literal(&mut self, escapes: bool) {
        self.text.clear();
        self.state = State::Literal {
            escapes,
            escaped: false,
            quote: false,
        };
    }

    fn other(&mut self, out: &mut Vec<Token>) {
        self.after_escape_string = None;
        self.state = State::Sql;
        out.push(Token::Other);
    }

    /// psql's own bookkeeping to find the bodies of SQL-standard functions.
    fn end_word(&mut self, out: &mut Vec<Token>) {
        self.state = State::Sql;
        let word = std::mem::take(&mut self.text);
        if self.words < 4
            && matches!(
                word.as_slice(),
                b"create" | b"function" | b"procedure" | b"or" | b"replace"
            )
        {
            self.first_words.resize(self.words, 0);
            self.first_words.push(word[0]);
        }
        self.words += 1;
        let routine = matches!(
            self.first_words.as_slice(),
            [b'c', b'f' | b'p', ..] | [b'c', b'o', b'r', b'f' | b'p', ..]
        );
        if routine && self.parens == 0 {
            match word.as_slice() {
                b"begin" => self.begins = self.begins.saturating_add(1),
                b"case" if self.begins > 0 => self.begins = self.begins.saturating_add(1),
                b"end" => self.begins = self.begins.saturating_sub(1),
                _ => {}
            }
        }
        out.push(Token::Word(String::from_utf8_lossy(&word).into_owned()));
    }
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_word(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit() || byte == b'$'
}
