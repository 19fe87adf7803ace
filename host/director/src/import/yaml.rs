//! YAML as a person would write it: collections in one line where they fit, texts in quotes only
//! where they must be.

use std::fmt::Write as _;

/// Columns of a line.
const WIDTH: usize = 100;

/// A value to be written.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A scalar, as it stands in the file.
    Scalar(String),
    /// A list; in one line always.
    List(Vec<Self>),
    /// Keys, which are plain words, and their values.
    Mapping(Vec<(&'static str, Self)>),
}

impl Value {
    /// A number, a word or an address: whatever means the same with and without quotes.
    pub(super) fn plain(value: impl ToString) -> Self {
        let text = value.to_string();
        // `2001:db8::` and `::1` would be keys or end as such.
        if text.starts_with(':') || text.ends_with(':') {
            Self::quoted(&text)
        } else {
            Self::Scalar(text)
        }
    }

    /// Any text.
    pub(super) fn text(text: &str) -> Self {
        if is_plain(text) { Self::Scalar(text.to_owned()) } else { Self::quoted(text) }
    }

    fn quoted(text: &str) -> Self {
        let mut quoted = String::with_capacity(text.len() + 2);
        quoted.push('"');
        for c in text.chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                '\n' => quoted.push_str("\\n"),
                '\t' => quoted.push_str("\\t"),
                // What is no printable character, or one that some take for the end of a line.
                _ if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                    // Writing to a String cannot fail.
                    let _ = write!(quoted, "\\u{:04x}", u32::from(c));
                }
                _ => quoted.push(c),
            }
        }
        quoted.push('"');
        Self::Scalar(quoted)
    }

    /// In one line.
    fn in_line(&self, text: &mut String) {
        match self {
            Self::Scalar(scalar) => text.push_str(scalar),
            Self::List(list) => {
                text.push('[');
                for (index, value) in list.iter().enumerate() {
                    text.push_str(if index == 0 { "" } else { ", " });
                    value.in_line(text);
                }
                text.push(']');
            }
            Self::Mapping(entries) if entries.is_empty() => text.push_str("{}"),
            Self::Mapping(entries) => {
                for (index, (key, value)) in entries.iter().enumerate() {
                    text.push_str(if index == 0 { "{ " } else { ", " });
                    text.push_str(key);
                    text.push_str(": ");
                    value.in_line(text);
                }
                text.push_str(" }");
            }
        }
    }
}

/// Writes `key: value`, over several lines where one would be too long.
pub(super) fn entry(text: &mut String, indent: usize, key: &str, value: &Value) {
    let mut line = format!("{:indent$}{key}: ", "");
    let start = line.len();
    value.in_line(&mut line);
    match value {
        Value::Mapping(entries) if line.chars().count() > WIDTH => {
            line.truncate(start - 1);
            text.push_str(&line);
            text.push('\n');
            for (key, value) in entries {
                entry(text, indent + 2, key, value);
            }
        }
        _ => {
            text.push_str(&line);
            text.push('\n');
        }
    }
}

/// Writes a mapping as an element of a list, over several lines where one would be too long.
pub(super) fn element(text: &mut String, indent: usize, entries: Vec<(&'static str, Value)>) {
    let mapping = Value::Mapping(entries);
    let mut line = format!("{:indent$}- ", "");
    mapping.in_line(&mut line);
    let Value::Mapping(entries) = &mapping else { return };
    if line.chars().count() <= WIDTH {
        text.push_str(&line);
        text.push('\n');
        return;
    }
    let start = text.len();
    for (key, value) in entries {
        entry(text, indent + 2, key, value);
    }
    // The dash is in the first key's indentation.
    text.replace_range(start + indent..=start + indent, "-");
}

/// Writes a comment, over several lines where one would be too long.
pub(super) fn comment(text: &mut String, indent: usize, words: &str) {
    let mut length = WIDTH;
    let mut is_first = true;
    for word in words.split(' ') {
        let width = word.chars().count() + 1;
        if length + width > WIDTH {
            if !is_first {
                text.push('\n');
            }
            let margin = if is_first { "#" } else { "#  " };
            let _ = write!(text, "{:indent$}{margin}", "");
            length = indent + margin.len();
            is_first = false;
        }
        if !word.is_empty() {
            text.push(' ');
            text.push_str(word);
            length += width;
        }
    }
    text.push('\n');
}

/// Whether a text means the same without quotes, to every reader of YAML.
fn is_plain(text: &str) -> bool {
    let is_word = |octet: u8| octet.is_ascii_alphanumeric() || b"/._-".contains(&octet);
    text.as_bytes().first().is_some_and(|first| first.is_ascii_alphabetic() || *first == b'/')
        && text.bytes().all(is_word)
        && !["null", "true", "false", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &Value) -> String {
        let mut text = String::new();
        value.in_line(&mut text);
        text
    }

    #[test]
    fn texts_have_quotes_where_they_would_mean_something_else() {
        for plain in ["web", "/healthz", "www.example.com", "sh", "tcp-203.0.113.10-80"] {
            assert_eq!(written(&Value::text(plain)), plain);
        }
        for (text, quoted) in [
            ("", r#""""#),
            ("null", r#""null""#),
            ("No", r#""No""#),
            ("80", r#""80""#),
            ("1e3", r#""1e3""#),
            (".", r#"".""#),
            ("-x", r#""-x""#),
            ("a: b", r#""a: b""#),
            ("a #b", r#""a #b""#),
            ("\"\\", r#""\"\\""#),
            ("a\nb\u{7}\u{2028}", r#""a\nb\u0007\u2028""#),
        ] {
            assert_eq!(written(&Value::text(text)), quoted);
        }
        assert_eq!(written(&Value::plain("2001:db8::")), "\"2001:db8::\"");
        assert_eq!(written(&Value::plain("2001:db8::1")), "2001:db8::1");
    }

    #[test]
    fn collections_are_in_one_line_where_they_fit() {
        let long = |length| Value::Scalar("x".repeat(length));
        let mut text = String::new();
        let entries = |length| vec![("a", long(length)), ("b", Value::Mapping(Vec::new()))];
        element(&mut text, 2, entries(20));
        element(&mut text, 2, entries(100));
        entry(&mut text, 2, "key", &Value::Mapping(entries(20)));
        entry(&mut text, 2, "key", &Value::Mapping(entries(100)));
        let text = text.replace(&"x".repeat(100), "X").replace(&"x".repeat(20), "x");
        assert_eq!(
            text,
            "  - { a: x, b: {} }\n  - a: X\n    b: {}\n  key: { a: x, b: {} }\n  key:\n    a: X\n    b: {}\n"
        );
    }

    #[test]
    fn comments_are_wrapped() {
        let mut text = String::new();
        comment(&mut text, 2, "word ".repeat(30).trim_end());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("  # word"), "{text}");
        assert!(lines[1].starts_with("  #   word"), "{text}");
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{text}");
    }
}
