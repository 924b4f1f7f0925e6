//! Numbers, times and names for people.

use jiff::Timestamp;

/// `12.3 MB`, decimal units.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: &[&str] = &["B", "kB", "MB", "GB", "TB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `0.84 s`, `12 s`, `3 min 5 s`.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.2} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s => format!("{} min {} s", (s as u64) / 60, (s as u64) % 60),
    }
}

/// `200,000`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `3 h ago`: the largest unit only.
pub(crate) fn age(then: Timestamp, now: Timestamp) -> String {
    let elapsed = now.duration_since(then).as_secs();
    match elapsed {
        i64::MIN..0 => "in the future".to_owned(),
        0..60 => format!("{elapsed} s ago"),
        60..3600 => format!("{} min ago", elapsed / 60),
        3600..172_800 => format!("{} h ago", elapsed / 3600),
        _ => format!("{} d ago", elapsed / 86_400),
    }
}

/// UTC to the second.
pub(crate) fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A name as data: quoted when it holds more than plain characters, so that it cannot move the
/// cursor or look like something else.
pub(crate) fn name(name: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/' | '@');
    if !name.is_empty() && name.chars().all(plain) {
        name.to_owned()
    } else {
        format!("{name:?}")
    }
}

/// Words that came from a file or a server, on one line and without what moves the cursor.
pub(crate) fn words(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// How programs run next to the server, as manifests call it.
pub(crate) fn transport(transport: dbexec::Transport) -> String {
    let word = serde_json::to_value(transport).unwrap_or_default();
    match word.as_str().unwrap_or_default() {
        "exec" => "docker exec in the server's container".to_owned(),
        "sidecar" => "a sidecar: a short-lived container beside the server's".to_owned(),
        "host" => "programs of this host".to_owned(),
        other => words(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_short() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (12_345_678, "12.3 MB"),
            (2_000_000_000_000, "2.0 TB"),
            (u64::MAX, "18446744.1 TB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn counts_have_separators() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn ages_never_lie_about_the_future() {
        let now: Timestamp = "2026-11-23T06:00:00Z".parse().unwrap();
        for (then, text) in [
            ("2026-11-23T05:59:30Z", "30 s ago"),
            ("2026-11-23T05:00:00Z", "1 h ago"),
            ("2026-11-13T05:00:00Z", "10 d ago"),
            ("2026-11-23T06:00:01Z", "in the future"),
        ] {
            assert_eq!(age(then.parse().unwrap(), now), text);
        }
    }

    #[test]
    fn words_cannot_move_the_cursor() {
        assert_eq!(words("a\u{1b}[2J\nb é"), "a [2J b é");
        assert_eq!(transport(dbexec::Transport::Host), "programs of this host");
    }

    #[test]
    fn hostile_names_are_quoted() {
        assert_eq!(name("shop-db_1"), "shop-db_1");
        assert_eq!(name(""), "\"\"");
        assert_eq!(name("a\u{1b}[2J\nb"), "\"a\\u{1b}[2J\\nb\"");
    }
}
