//! Bodies of the server's messages.

use bytes::Bytes;

use super::NativeError;

/// Fields of an `ErrorResponse` or `NoticeResponse`.
pub(super) fn error(body: &[u8]) -> NativeError {
    let mut error = Fields::default();
    let mut rest = body;
    while let Some((&code, after)) = rest.split_first() {
        if code == 0 {
            break;
        }
        let (value, after) = text(after);
        rest = after;
        match code {
            b'V' => error.severity = Some(value),
            // Translated; before 9.6 the only one.
            b'S' if error.severity.is_none() => error.severity = Some(value),
            b'C' => error.sqlstate = value,
            b'M' => error.message = value,
            b'D' => error.detail = Some(value),
            b'H' => error.hint = Some(value),
            b'W' => error.context = Some(value),
            _ => {}
        }
    }
    NativeError::Server {
        sqlstate: error.sqlstate,
        severity: error.severity.unwrap_or_default().into(),
        message: error.message,
        detail: error.detail.map(Into::into),
        hint: error.hint.map(Into::into),
        context: error.context.map(Into::into),
    }
}

#[derive(Default)]
struct Fields {
    severity: Option<String>,
    sqlstate: String,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    context: Option<String>,
}

/// A text up to its zero byte, and what follows.
pub(super) fn text(bytes: &[u8]) -> (String, &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0);
    let (text, rest) = match end {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[][..]),
    };
    (String::from_utf8_lossy(text).into_owned(), rest)
}

/// The rows of a `COPY 123` tag.
pub(super) fn copied(tag: &[u8]) -> Option<u64> {
    let (tag, _) = text(tag);
    tag.strip_prefix("COPY ")?.parse().ok()
}

/// Values of a `DataRow`.
pub(super) fn row(body: &Bytes) -> Result<Vec<Option<String>>, NativeError> {
    let damaged = || NativeError::protocol("a row that is shorter than it says");
    let (count, mut rest) = body.split_first_chunk::<2>().ok_or_else(damaged)?;
    let count = u16::from_be_bytes(*count);
    let mut values = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            values.push(None);
            rest = after;
            continue;
        };
        let value = after.get(..length).ok_or_else(damaged)?;
        let value = std::str::from_utf8(value)
            .map_err(|_| NativeError::protocol("a value that is not UTF-8"))?;
        values.push(Some(value.to_owned()));
        rest = &after[length..];
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_read_with_all_their_fields() {
        let body = b"SFEHLER\0VERROR\0C42P01\0Mno such table\0Dd\0Hh\0WCOPY t, line 3\0Fx.c\0\0";
        let NativeError::Server {
            sqlstate,
            severity,
            message,
            detail,
            hint,
            context,
        } = error(body)
        else {
            panic!("an error of the server");
        };
        assert_eq!((sqlstate.as_str(), &*severity), ("42P01", "ERROR"));
        assert_eq!(message, "no such table");
        assert_eq!((detail.as_deref(), hint.as_deref()), (Some("d"), Some("h")));
        assert_eq!(context.as_deref(), Some("COPY t, line 3"));
    }

    #[test]
    fn a_torn_row_is_an_error() {
        let whole = b"\0\x03\0\0\0\x01a\xff\xff\xff\xff\0\0\0\0";
        let values = row(&Bytes::from_static(whole)).expect("a row");
        assert_eq!(values, [Some("a".to_owned()), None, Some(String::new())]);
        for cut in 0..whole.len() {
            assert!(
                row(&Bytes::copy_from_slice(&whole[..cut])).is_err(),
                "{cut}"
            );
        }
    }

    #[test]
    fn tags_of_copies_are_counted() {
        assert_eq!(copied(b"COPY 17\0"), Some(17));
        assert_eq!(copied(b"SET\0"), None);
        assert_eq!(copied(b"COPY\0"), None);
    }
}
