//! Which tokens were used lately, so that their last use is written once a minute at most, and by nobody who waits.

use entity::{Timestamp, TokenId};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Tokens whose uses are written within a minute; those of others are written in the next one.
const MAX_REMEMBERED: usize = 10_000;

#[derive(Debug, Default)]
pub(crate) struct LastUses(Mutex<HashMap<TokenId, Timestamp>>);

impl LastUses {
    /// True when a use of this token is to be written now: none since `known` was, or was tried to be.
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
