//! `Content-Disposition` (RFC 6266; in forms RFC 7578), read and written.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What may stand unencoded in an extended parameter (RFC 8187, `attr-char`).
const ATTR_CHAR: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// An attachment of this name: for old clients in ASCII, for all others exactly.
#[must_use]
pub(super) fn attachment(name: &str) -> String {
    let ascii: String = name
        .chars()
        .map(|c| match c {
            // Separators, quotes and what a client might decode are of no use in a name to save under.
            '"' | '\\' | '/' | '%' => '_',
            c if c.is_ascii_graphic() || c == ' ' => c,
            _ => '_',
        })
        .collect();
    if ascii == name {
        return format!("attachment; filename=\"{ascii}\"");
    }
    let exact = utf8_percent_encode(name, ATTR_CHAR);
    format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{exact}")
}

/// The parameters of a header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Disposition {
    /// Of the form's field.
    pub name: Option<String>,
    /// `filename*` where there is one, else `filename`.
    pub filename: Option<String>,
}

impl Disposition {
    /// Reads a header; in a form, names are as browsers encode them (WHATWG, «multipart/form-data encoding»).
    #[must_use]
    pub(super) fn parse(header: &[u8], in_form: bool) -> Option<Self> {
        let text = std::str::from_utf8(header).ok()?;
        let mut parsed = Self::default();
        let mut extended = None;
        for (name, value) in parameters(text) {
            let value = match in_form {
                true => unescape(&value),
                false => value,
            };
            match name.as_str() {
                "name" => parsed.name = Some(value),
                "filename" => parsed.filename = Some(value),
                "filename*" => extended = decode_extended(&value),
                _ => {}
            }
        }
        parsed.filename = extended.or(parsed.filename);
        Some(parsed)
    }
}

/// Browsers encode exactly these three.
fn unescape(value: &str) -> String {
    value
        .replace("%22", "\"")
        .replace("%0D", "\r")
        .replace("%0A", "\n")
}

/// RFC 8187: charset, language and percent-encoded text.
fn decode_extended(value: &str) -> Option<String> {
    let mut fields = value.splitn(3, '\'');
    let charset = fields.next()?;
    let text = fields.nth(1)?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
}

/// `; name=value` and `; name="quoted value"`, the names in lower case.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let Some((_, mut rest)) = text.split_once(';') else {
        return found;
    };
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', '\t', ';']).to_ascii_lowercase();
        let after = after.trim_start();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted_string(quoted),
            None => {
                let (value, next) = after.split_once(';').unwrap_or((after, ""));
                (value.trim_end().to_owned(), next)
            }
        };
        found.push((name, value));
        rest = next;
    }
    found
}

/// The string up to its closing quote, and what follows. Only a quote and a backslash can be escaped: clients send
/// Windows paths with single backslashes.
fn quoted_string(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next_if(|(_, next)| matches!(next, '"' | '\\')) {
                Some((_, escaped)) => value.push(escaped),
                None => value.push('\\'),
            },
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filename(header: &str) -> Option<String> {
        Disposition::parse(header.as_bytes(), false)?.filename
    }

    #[test]
    fn names_are_read_in_every_form_clients_send() {
        for (header, name) in [
            ("attachment; filename=plain.txt", "plain.txt"),
            ("attachment; filename=\"a b; c.txt\"", "a b; c.txt"),
            (r#"attachment; filename="a \"b\".txt""#, "a \"b\".txt"),
            ("attachment; filename=\"Zürich.txt\"", "Zürich.txt"),
            (
                "attachment; filename*=UTF-8''Z%C3%BCrich.txt; filename=\"Z.txt\"",
                "Zürich.txt",
            ),
            (
                "attachment; FileName=\"x.txt\"; filename*=latin1''%FC",
                "x.txt",
            ),
        ] {
            assert_eq!(filename(header).as_deref(), Some(name), "{header}");
        }
        assert_eq!(filename("inline"), None);
    }

    #[test]
    fn in_a_form_names_are_as_browsers_encode_them() {
        let header = br#"form-data; name="file"; filename="a %22b%22 100%.txt""#;
        let read = Disposition::parse(header, true).unwrap();
        assert_eq!(read.name.as_deref(), Some("file"));
        assert_eq!(read.filename.as_deref(), Some("a \"b\" 100%.txt"));
    }

    #[test]
    fn any_name_survives_being_written_and_read() {
        for name in [
            "a.txt",
            "Été à Zürich 🚢.mp4",
            "a\"b\\c/d%20.txt",
            "\u{202e}gpj.exe",
        ] {
            let header = attachment(name);
            assert!(header.is_ascii());
            assert_eq!(filename(&header).as_deref(), Some(name), "{header}");
        }
    }
}
