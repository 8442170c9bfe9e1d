//! Parses and writes `Content-Disposition` (RFC 6266; in forms RFC 7578).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Characters that need no encoding in an extended parameter (RFC 8187, `attr-char`).
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

/// An attachment with this name: in ASCII for old clients, exact for all others.
#[must_use]
pub(super) fn attachment(name: &str) -> String {
    let ascii: String = name
        .chars()
        .map(|c| match c {
            // Path separators, quotes and characters that a client might decode are of no use in a name to save under.
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

/// The parameters of the header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Disposition {
    /// The name of the form field.
    pub name: Option<String>,
    /// `filename*` if present, otherwise `filename`.
    pub filename: Option<String>,
}

impl Disposition {
    /// Parses the header. In a form, names are encoded as browsers do (WHATWG, "multipart/form-data encoding"). Of a
    /// repeated parameter the first counts. Bytes that are not UTF-8 are replaced by U+FFFD.
    #[must_use]
    pub(super) fn parse(header: &[u8], in_form: bool) -> Self {
        let text = String::from_utf8_lossy(header);
        let mut parsed = Self::default();
        let mut extended = None;
        for (name, value) in parameters(&text) {
            let value = match in_form {
                true => unescape(&value),
                false => value,
            };
            match name.as_str() {
                "name" => parsed.name.get_or_insert(value),
                "filename" => parsed.filename.get_or_insert(value),
                "filename*" => match decode_extended(&value) {
                    Some(value) => extended.get_or_insert(value),
                    None => continue,
                },
                _ => continue,
            };
        }
        parsed.filename = extended.or(parsed.filename);
        parsed
    }
}

/// Browsers encode exactly these three characters.
fn unescape(value: &str) -> String {
    value
        .replace("%22", "\"")
        .replace("%0D", "\r")
        .replace("%0A", "\n")
}

/// Decodes a name that is percent-encoded completely, as aiohttp sends it; browsers only encode three characters.
#[must_use]
pub(super) fn unquoted(name: &str) -> String {
    let is_quoted = name.bytes().all(|byte| {
        // Quotes and line ends are already decoded.
        byte.is_ascii_alphanumeric() || b"_.-~%\"\r\n".contains(&byte)
    });
    match percent_decode_str(name).decode_utf8() {
        Ok(decoded) if is_quoted => decoded.into_owned(),
        _ => name.to_owned(),
    }
}

/// RFC 8187: charset, language and percent-encoded text. The earlier RFC 5987 allowed a second charset.
fn decode_extended(value: &str) -> Option<String> {
    let mut fields = value.splitn(3, '\'');
    let charset = fields.next()?;
    let text = fields.nth(1)?;
    let decoded = percent_decode_str(text);
    if charset.eq_ignore_ascii_case("iso-8859-1") {
        return Some(decoded.map(char::from).collect());
    }
    let is_unicode = charset.eq_ignore_ascii_case("utf-8");
    is_unicode.then(|| decoded.decode_utf8_lossy().into_owned())
}

/// Parses `; name=value` and `; name="quoted value"`; names in lower case.
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

/// Returns the string up to its closing quote, and the rest. Only quotes and backslashes can be escaped, because
/// clients send Windows paths with single backslashes. A quote at the end of the header, or before another parameter,
/// closes the string even after a backslash: most clients escape nothing, and the name ends with a backslash.
fn quoted_string(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next_if(|(at, next)| match next {
                '"' => !is_closed_by(&text[at + 1..]),
                next => *next == '\\',
            }) {
                Some((_, escaped)) => value.push(escaped),
                None => value.push('\\'),
            },
            c => value.push(c),
        }
    }
    (value, "")
}

/// Whether the text after a quote is what follows a complete string.
fn is_closed_by(rest: &str) -> bool {
    let rest = rest.trim_start();
    let Some(next) = rest.strip_prefix(';') else {
        return rest.is_empty();
    };
    let is_token = |c: char| c.is_ascii_alphanumeric() || "-_*".contains(c);
    let name = next.trim_start().split_once('=').map(|(name, _)| name);
    next.trim().is_empty()
        || name.is_some_and(|name| !name.is_empty() && name.chars().all(is_token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filename(header: &str) -> Option<String> {
        Disposition::parse(header.as_bytes(), false).filename
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
                "attachment; FileName=\"x.txt\"; filename*=koi8-r''%FC",
                "x.txt",
            ),
            (
                "attachment; filename=\"x.txt\"; filename*=ISO-8859-1''%FC.txt",
                "ü.txt",
            ),
            (r#"attachment; filename="end\""#, r"end\"),
            (r#"attachment; filename="end\"; size=3"#, r"end\"),
            (r#"attachment; filename="a \"; b\".txt""#, "a \"; b\".txt"),
            (r#"attachment; filename="C:\temp\a.txt""#, r"C:\temp\a.txt"),
        ] {
            assert_eq!(filename(header).as_deref(), Some(name), "{header}");
        }
        assert_eq!(filename("inline"), None);
    }

    #[test]
    fn in_a_form_names_are_as_browsers_encode_them() {
        let header = br#"form-data; name="file"; filename="a %22b%22 100%.txt""#;
        let read = Disposition::parse(header, true);
        assert_eq!(read.name.as_deref(), Some("file"));
        assert_eq!(read.filename.as_deref(), Some("a \"b\" 100%.txt"));
        let latin = b"form-data; name=\"file\"; filename=\"Gr\xfc\xdfe.txt\"";
        let read = Disposition::parse(latin, true);
        assert_eq!(read.name.as_deref(), Some("file"));
        assert_eq!(read.filename.as_deref(), Some("Gr\u{fffd}\u{fffd}e.txt"));
        let twice = br#"form-data; name="file"; filename="x"; name="metadata""#;
        assert_eq!(
            Disposition::parse(twice, true).name.as_deref(),
            Some("file")
        );
    }

    #[test]
    fn names_that_are_encoded_as_a_whole_are_decoded() {
        assert_eq!(unquoted("%D1%84%20\"a\".txt"), "ф \"a\".txt");
        assert_eq!(unquoted("a%2520b%5C"), "a%20b\\");
        assert_eq!(unquoted("100% sure.txt"), "100% sure.txt");
        assert_eq!(unquoted("%FF.txt"), "%FF.txt");
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
