//! What kind of content is taken in: the lists of the configuration, held against what the client says before the
//! first byte, and against what the bytes show at finalize.
//!
//! Refuses to guess where bytes show nothing: text has no signature, so what is said of it stands.

mod sniff;

use crate::config::Uploads;
pub use sniff::{HEAD, sniff};

/// What a client says that does not know.
pub const UNKNOWN: &str = "application/octet-stream";

/// Why a file is not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    #[error("files of the type `{0}` are not taken in")]
    Type(String),
    #[error("files whose names end with `.{0}` are not taken in")]
    Extension(String),
    #[error("only files whose names end with one of {0} are taken in")]
    OtherExtension(String),
    #[error(
        "the file is said to be `{declared}`, and its bytes are `{found}`, which is not taken in"
    )]
    Bytes { declared: String, found: String },
    #[error("the file is said to be `{0}`, and its bytes are no such image")]
    NoImage(String),
}

/// Holds a name and a declared type against the lists, before the first byte.
///
/// # Errors
/// [`NotAllowed`], with what is wrong.
pub fn require_declared(lists: &Uploads, name: &str, content_type: &str) -> Result<(), NotAllowed> {
    // Windows ignores dots and spaces at the end of a name, so `x.exe.` is one too.
    let name = name.trim_end_matches(['.', ' ']).to_lowercase();
    let ends_with = |extension: &str| {
        name.strip_suffix(extension)
            .is_some_and(|stem| stem.ends_with('.'))
    };
    if let Some(denied) = lists.denied_extensions.iter().find(|one| ends_with(one)) {
        return Err(NotAllowed::Extension(denied.clone()));
    }
    if !lists.allowed_extensions.is_empty()
        && !lists.allowed_extensions.iter().any(|one| ends_with(one))
    {
        let allowed = lists.allowed_extensions.join(", ");
        return Err(NotAllowed::OtherExtension(allowed));
    }
    if is_taken(lists, content_type) {
        Ok(())
    } else {
        Err(NotAllowed::Type(content_type.to_owned()))
    }
}

/// True when the bytes decide something: whether the file is taken in, or what type it is.
#[must_use]
pub fn needs_sniffing(lists: &Uploads, declared: &str) -> bool {
    is_unknown(declared) || !lists.allowed_types.is_empty() || !lists.denied_types.is_empty()
}

/// Holds what the bytes show against the lists; answers the type the file has: the declared one, or the one the bytes
/// show where none was declared.
///
/// # Errors
/// [`NotAllowed::Bytes`] for bytes of a denied type, or of one that is neither on the list nor another word for the
/// declared one; [`NotAllowed::NoImage`] where a list is to let in images and the bytes are not the one declared.
pub fn judge(
    lists: &Uploads,
    declared: &str,
    found: Option<&'static str>,
) -> Result<String, NotAllowed> {
    let Some(found) = found else {
        let is_image = essence(declared).starts_with("image/");
        if is_image && !lists.allowed_types.is_empty() && infer::is_mime_supported(&named(declared))
        {
            return Err(NotAllowed::NoImage(declared.to_owned()));
        }
        return Ok(declared.to_owned());
    };
    let denied = lists.denied_types.iter().any(|one| covers(one, found));
    let allowed = lists.allowed_types.is_empty()
        || lists.allowed_types.iter().any(|one| covers(one, found))
        || agrees(declared, found);
    if denied || !allowed {
        return Err(NotAllowed::Bytes {
            declared: declared.to_owned(),
            found: found.to_owned(),
        });
    }
    Ok(if is_unknown(declared) {
        found.to_owned()
    } else {
        declared.to_owned()
    })
}

fn is_taken(lists: &Uploads, content_type: &str) -> bool {
    let names = |list: &[String]| list.iter().any(|one| covers(one, content_type));
    !names(&lists.denied_types) && (lists.allowed_types.is_empty() || names(&lists.allowed_types))
}

fn is_unknown(content_type: &str) -> bool {
    essence(content_type) == UNKNOWN
}

/// The type without its parameters, in lower case.
fn essence(content_type: &str) -> String {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

/// True when an entry of a list, a type or `type/*`, means this type.
fn covers(entry: &str, content_type: &str) -> bool {
    let entry = entry.trim().to_ascii_lowercase();
    match entry.strip_suffix("/*") {
        Some("*") => true,
        Some(kind) => essence(content_type)
            .split_once('/')
            .is_some_and(|(own, _)| own == kind),
        None => named(&entry) == named(content_type),
    }
}

/// One name for types that go by several: registered ones (IANA, «Media Types») and those in use before.
fn named(content_type: &str) -> String {
    let essence = essence(content_type);
    match essence.as_str() {
        "application/x-msdownload"
        | "application/x-dosexec"
        | "application/x-msdos-program"
        | "application/exe"
        | "application/x-exe" => "application/vnd.microsoft.portable-executable".to_owned(),
        "application/x-elf" | "application/x-sharedlib" | "application/x-pie-executable" => {
            "application/x-executable".to_owned()
        }
        "application/x-sh" | "application/x-shellscript" => "text/x-shellscript".to_owned(),
        "application/x-rar-compressed" | "application/x-rar" => "application/vnd.rar".to_owned(),
        "application/x-gzip" => "application/gzip".to_owned(),
        "application/x-zip-compressed" => "application/zip".to_owned(),
        "application/xml" => "text/xml".to_owned(),
        "application/xhtml+xml" => "text/html".to_owned(),
        "image/jpg" | "image/pjpeg" => "image/jpeg".to_owned(),
        "image/x-ms-bmp" | "image/x-bmp" => "image/bmp".to_owned(),
        "image/x-icon" => "image/vnd.microsoft.icon".to_owned(),
        "audio/wav" | "audio/wave" | "audio/vnd.wave" => "audio/x-wav".to_owned(),
        "audio/mp3" => "audio/mpeg".to_owned(),
        "audio/flac" => "audio/x-flac".to_owned(),
        _ => essence,
    }
}

/// True when bytes that show `found` may well be what was declared: another word for it, the container it comes in,
/// or sound and moving pictures, whose containers hold either.
fn agrees(declared: &str, found: &str) -> bool {
    let (declared, found) = (named(declared), named(found));
    let is_media = |kind: &str| kind.starts_with("audio/") || kind.starts_with("video/");
    let is_document = declared.starts_with("application/") && declared != UNKNOWN;
    match found.as_str() {
        _ if declared == found => true,
        "application/zip" | "application/x-ole-storage" => is_document,
        "text/xml" => declared.ends_with("+xml"),
        _ => is_media(&declared) && is_media(&found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    fn lists(change: impl FnOnce(&mut Uploads)) -> Uploads {
        let mut lists = Config::load(Sources {
            file: None,
            environment: Vec::new(),
        })
        .expect("the defaults are allowed")
        .uploads;
        change(&mut lists);
        lists
    }

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn types_are_taken_whole_or_by_family() {
        let lists = lists(|lists| lists.allowed_types = words(&["image/*", "application/pdf"]));
        let taken = |kind: &str| require_declared(&lists, "a", kind).is_ok();
        assert!(taken("image/png"));
        assert!(taken("Application/PDF; version=2"));
        assert!(!taken("imagery/png"));
        assert!(!taken("text/plain"));
        assert!(!taken("image"));
    }

    #[test]
    fn denied_types_and_extensions_win() {
        let lists = lists(|lists| {
            lists.allowed_types = words(&["*/*"]);
            lists.denied_types = words(&["application/x-msdownload", "text/*"]);
            lists.denied_extensions = words(&["exe", "tar.gz"]);
        });
        let taken = |name: &str, kind: &str| require_declared(&lists, name, kind);
        assert!(taken("a.png", "image/png").is_ok());
        assert!(taken("exe", "image/png").is_ok());
        assert!(taken("a.gz", "application/gzip").is_ok());
        for name in ["a.exe", "a.ExE", "a.exe. .", "b.tar.gz"] {
            assert!(
                matches!(taken(name, "image/png"), Err(NotAllowed::Extension(_))),
                "{name}"
            );
        }
        let other_word = "application/vnd.microsoft.portable-executable";
        for kind in ["text/html; charset=utf-8", other_word] {
            assert!(
                matches!(taken("a", kind), Err(NotAllowed::Type(_))),
                "{kind}"
            );
        }
    }

    #[test]
    fn allowed_extensions_are_the_only_ones() {
        let lists = lists(|lists| lists.allowed_extensions = words(&["jpg", "png"]));
        assert!(require_declared(&lists, "A.JPG", UNKNOWN).is_ok());
        for name in ["jpg", "a.gif", "a.jpg.exe", "ajpg"] {
            let refused = require_declared(&lists, name, UNKNOWN);
            assert!(
                matches!(refused, Err(NotAllowed::OtherExtension(_))),
                "{name}"
            );
        }
    }

    #[test]
    fn bytes_speak_where_nothing_was_said() {
        let all = lists(|_| {});
        let of = |declared: &str, found| judge(&all, declared, found).expect("all is taken in");
        assert_eq!(of(UNKNOWN, Some("image/png")), "image/png");
        assert_eq!(of(UNKNOWN, None), UNKNOWN);
        assert_eq!(of("image/jpeg", Some("image/png")), "image/jpeg");
        assert!(needs_sniffing(&all, UNKNOWN));
        assert!(!needs_sniffing(&all, "image/png"));
    }

    #[test]
    fn bytes_of_another_type_do_not_pass_for_an_allowed_one() {
        let images = lists(|lists| lists.allowed_types = words(&["image/png", "image/jpg"]));
        assert!(judge(&images, "image/jpg", Some("image/jpeg")).is_ok());
        for found in ["application/x-executable", "image/gif", "text/html"] {
            assert!(judge(&images, "image/png", Some(found)).is_err(), "{found}");
        }
        assert!(matches!(
            judge(&images, "image/png", None),
            Err(NotAllowed::NoImage(_))
        ));
        let unsigned = lists(|lists| lists.allowed_types = words(&["image/svg+xml", "text/csv"]));
        assert!(judge(&unsigned, "image/svg+xml", None).is_ok());
        assert!(judge(&unsigned, "image/svg+xml", Some("text/xml")).is_ok());
        assert!(judge(&unsigned, "text/csv", None).is_ok());
        assert!(judge(&unsigned, "text/csv", Some("application/zip")).is_err());
    }

    #[test]
    fn containers_agree_with_what_comes_in_them() {
        let office = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
        let some = lists(|lists| lists.allowed_types = words(&[office, "audio/mp4"]));
        assert!(judge(&some, office, Some("application/zip")).is_ok());
        assert!(judge(&some, "audio/mp4", Some("video/mp4")).is_ok());
        assert!(judge(&some, "audio/mp4", Some("application/zip")).is_err());
        let no_zip = lists(|lists| lists.denied_types = words(&["application/zip"]));
        assert!(judge(&no_zip, office, Some("application/zip")).is_err());
    }
}
