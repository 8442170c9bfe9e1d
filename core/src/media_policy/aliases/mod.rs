//! The canonical name of each media type, registered (IANA, "Media Types") if there is one, and its aliases: those of
//! browsers and their engines, of the Windows registry, of `shared-mime-info`, and of earlier registrations.

mod documents;
mod media;

type Aliases = (&'static str, &'static [&'static str]);

/// Every canonical name with its aliases.
pub(super) fn all() -> impl Iterator<Item = &'static Aliases> {
    media::ALIASES.iter().chain(documents::ALIASES)
}
