//! Tracks recently used tokens, so that a token's last use is written at most once a minute, and never by a request
//! that waits for it.

use entity::{Timestamp, TokenId};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Number of tokens whose uses are tracked per minute; further ones are written in the next minute.
const MAX_REMEMBERED: usize = 10_000;

#[derive(Debug, Default)]
pub(crate) struct LastUses(Mutex<HashMap<TokenId, Timestamp>>);

impl LastUses {
    /// Returns true when a use of this token should be written now: it was not written, or attempted, since `known`.
    pub(crate) fn note(&self, token: TokenId, now: Timestamp, known: Timestamp) -> bool {
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if uses.get(&token).is_some_and(|last| *last >= known) {
            return false;
        }
        if uses.len() >= MAX_REMEMBERED {
            uses.retain(|_, last| *last >= known);
        }
        if uses.len() >= MAX_REMEMBERED {
            return false;
        }
        uses.insert(token, now);
        true
    }
}
