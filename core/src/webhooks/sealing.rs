//! Webhook secrets at rest: sealed with ChaCha20-Poly1305 (RFC 8439) under `webhooks.secret_key`, or plain without a
//! key.
//!
//! Owns the format of sealed text, and re-sealing: from plain to sealed, from one key to the next, and back. Sealed
//! text is bound to its row: moved to another row it cannot be opened. No process starts with a key that cannot open
//! the existing secrets.
//!
//! A crash while secrets are re-sealed leaves some as they were; the next start continues. [`super::key_rotation`]
//! decides when re-sealing may start.

use super::headers;
use crate::db::Database;
use base64::{Engine, engine::general_purpose::STANDARD};
use entity::{WebhookId, webhook_endpoint as endpoint};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sea_orm::{
    ColumnTrait, Condition, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::Expr,
};
use std::{
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Prefix of sealed text; neither a secret nor a JSON response starts like this.
const PREFIX: &str = "sealed:v1:";

/// Endpoints read per query.
const PAGE: u64 = 500;

/// A 256-bit key. Never printed.
#[derive(Clone)]
pub struct SealingKey {
    key: Arc<LessSafeKey>,
    /// Identifies the key without revealing anything about it.
    fingerprint: Arc<str>,
}

/// Not a valid key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is the base64 of 32 bytes")]
pub struct InvalidKey;

impl FromStr for SealingKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let bytes = STANDARD.decode(text).map_err(|_| InvalidKey)?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(|_| InvalidKey)?;
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        digest.update(b"landfall webhooks.secret_key\0");
        digest.update(&bytes);
        Ok(Self {
            key: Arc::new(LessSafeKey::new(key)),
            fingerprint: STANDARD.encode(&digest.finish().as_ref()[..9]).into(),
        })
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey")
    }
}

/// Why sealed text cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("it is sealed, and webhooks.secret_key is not set")]
    NoKey,
    #[error(
        "webhooks.secret_key is not the key it is sealed with; if that one was replaced, it is webhooks.previous_secret_key"
    )]
    WrongKey,
}

/// Why secrets could not be re-sealed with the current key.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    #[error("the secret of webhook endpoint {0} cannot be opened")]
    Sealed(WebhookId, #[source] SealError),
    #[error("webhook endpoints could not be read or written")]
    Database(#[from] DbErr),
}

/// Seals and opens secrets; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Sealing {
    /// Seals and opens; `None` means that secrets are stored in plain text.
    key: Option<SealingKey>,
    /// Opens secrets sealed before the key was changed or removed.
    previous: Option<SealingKey>,
    rotation: Arc<Mutex<RotationState>>,
}

/// How far this process is in re-sealing secrets with its key.
#[derive(Debug, Default)]
struct RotationState {
    /// Hosts of processes that do not know the key: until there are none, secrets are sealed with the previous key.
    waiting_for: Vec<String>,
    settled: bool,
}

impl Sealing {
    /// With `webhooks.secret_key` and `webhooks.previous_secret_key`.
    #[must_use]
    pub fn new(key: Option<SealingKey>, previous: Option<SealingKey>) -> Self {
        Self {
            key,
            previous,
            rotation: Arc::default(),
        }
    }

    /// Whether secrets are sealed.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// The key that opens older secrets.
    #[must_use]
    pub fn previous(&self) -> Option<SealingKey> {
        self.previous.clone()
    }

    /// Fingerprints of the keys that this process knows.
    pub(super) fn fingerprints(&self) -> Vec<String> {
        let keys = self.key.iter().chain(&self.previous);
        keys.map(|key| key.fingerprint.to_string()).collect()
    }

    /// Fingerprint of the sealing key.
    pub(super) fn fingerprint(&self) -> Option<&str> {
        self.key.as_ref().map(|key| &*key.fingerprint)
    }

    /// The hosts of processes that do not know `webhooks.secret_key`, because of which the previous key is still used.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<String> {
        self.rotation().waiting_for.clone()
    }

    /// From now on seals with the previous key. Returns whether the hosts waited for have changed.
    pub(super) fn wait_for(&self, hosts: &[String]) -> bool {
        let mut rotation = self.rotation();
        let is_news = rotation.waiting_for != hosts;
        rotation.waiting_for = hosts.to_vec();
        is_news
    }

    /// From now on seals with the key.
    pub(super) fn use_key(&self) {
        self.rotation().waiting_for.clear();
    }

    pub(super) fn note_settled(&self) {
        self.rotation().settled = true;
    }

    pub(super) fn is_settled(&self) -> bool {
        self.rotation().settled
    }

    fn rotation(&self) -> MutexGuard<'_, RotationState> {
        self.rotation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns text that can be opened only with the key and for the same `of`; without a key, the text itself. While a
    /// process does not know the key, the previous key is used.
    #[must_use]
    pub fn seal(&self, of: &str, plain: &str) -> String {
        let sealing = match self.rotation().waiting_for.is_empty() {
            true => &self.key,
            false => &self.previous,
        };
        let Some(SealingKey { key, .. }) = sealing else {
            return plain.to_owned();
        };
        // So few secrets are ever sealed that a random nonce is never repeated (RFC 8439, section 4).
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut bytes = plain.as_bytes().to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(unique, Aad::from(of), &mut bytes)
            .expect("a text is far shorter than the cipher's longest");
        let sealed = [&nonce[..], &bytes].concat();
        format!("{PREFIX}{}", STANDARD.encode(sealed))
    }

    /// Opens text that was sealed for `of`; plain text is returned as it is.
    ///
    /// # Errors
    /// [`SealError`], also when it was sealed for something else, or modified.
    pub fn open(&self, of: &str, stored: &str) -> Result<String, SealError> {
        let Some(encoded) = stored.strip_prefix(PREFIX) else {
            return Ok(stored.to_owned());
        };
        let mut keys = self.key.iter().chain(&self.previous).peekable();
        if keys.peek().is_none() {
            return Err(SealError::NoKey);
        }
        let sealed = STANDARD.decode(encoded).map_err(|_| SealError::WrongKey)?;
        keys.find_map(|key| opened(key, of, &sealed))
            .ok_or(SealError::WrongKey)
    }

    /// Returns the text as it should be stored now; `None` when it already is.
    pub(super) fn renewed(&self, of: &str, stored: &str) -> Result<Option<String>, SealError> {
        let is_sealed = stored.starts_with(PREFIX);
        let plain = self.open(of, stored)?;
        let is_current = match &self.key {
            None => !is_sealed,
            Some(key) => {
                let alone = Self::new(Some(key.clone()), None);
                is_sealed && alone.open(of, stored).is_ok()
            }
        };
        Ok((!is_current).then(|| self.seal(of, &plain)))
    }
}

fn opened(SealingKey { key, .. }: &SealingKey, of: &str, sealed: &[u8]) -> Option<String> {
    let (nonce, bytes) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut bytes = bytes.to_vec();
    let plain = key.open_in_place(nonce, Aad::from(of), &mut bytes).ok()?;
    String::from_utf8(plain.to_vec()).ok()
}

/// Checks that every secret can be opened.
///
/// # Errors
/// [`SettleError::Sealed`] with the first one that cannot, and database errors.
pub(super) async fn verify(db: &Database, sealing: &Sealing) -> Result<(), SettleError> {
    let mut after = None;
    loop {
        let rows = page(db, after).await?;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        after = Some(last.id);
        for row in rows {
            let of = row.id.to_string();
            for stored in [Some(&row.secret), row.previous_secret.as_ref()]
                .into_iter()
                .flatten()
            {
                let opened = sealing.open(&of, stored);
                opened.map_err(|error| SettleError::Sealed(row.id, error))?;
            }
            headers::open(sealing, row.id, row.headers.as_deref())
                .map_err(|error| SettleError::Sealed(row.id, error))?;
        }
    }
}

async fn page(db: &Database, after: Option<WebhookId>) -> Result<Vec<endpoint::Model>, DbErr> {
    let mut select = endpoint::Entity::find()
        .filter(endpoint::Column::DeletedAt.is_null())
        .order_by_asc(endpoint::Column::Id)
        .limit(PAGE);
    if let Some(after) = after {
        select = select.filter(endpoint::Column::Id.gt(after));
    }
    select.all(db.read()).await
}

/// Deletes the secrets and headers of deleted endpoints, which older releases keep.
async fn wipe_deleted(db: &Database) -> Result<(), DbErr> {
    let wipe = endpoint::Entity::update_many()
        .col_expr(endpoint::Column::Secret, Expr::val(""))
        .col_expr(endpoint::Column::PreviousSecret, Expr::val(None::<String>))
        .col_expr(endpoint::Column::Headers, Expr::val(None::<String>))
        .filter(endpoint::Column::DeletedAt.is_not_null())
        .filter(
            Condition::any()
                .add(endpoint::Column::Secret.ne(""))
                .add(endpoint::Column::Headers.is_not_null()),
        );
    db.write(move |transaction| Box::pin(async move { wipe.exec(transaction).await }))
        .await
        .map(drop)
}

/// Stores every secret as configured: sealed with the key, or plain without one. Returns how many endpoints were
/// changed. Safe to run in several processes at once.
///
/// # Errors
/// [`SettleError::Sealed`] when a secret cannot be opened; earlier ones stay changed, and the next call skips them.
pub(super) async fn settle(db: &Database, sealing: &Sealing) -> Result<u64, SettleError> {
    wipe_deleted(db).await?;
    let (mut settled, mut after) = (0, None);
    loop {
        let rows = page(db, after).await?;
        let Some(last) = rows.last() else {
            return Ok(settled);
        };
        after = Some(last.id);
        for row in rows {
            settled += settle_one(db, sealing, row).await?;
        }
    }
}

async fn settle_one(
    db: &Database,
    sealing: &Sealing,
    row: endpoint::Model,
) -> Result<u64, SettleError> {
    let (id, of) = (row.id, row.id.to_string());
    let renewed = |stored: &str| {
        let renewed = sealing.renewed(&of, stored);
        renewed.map_err(|error| SettleError::Sealed(id, error))
    };
    let secret = renewed(&row.secret)?;
    let previous = row.previous_secret.as_deref().map(renewed).transpose()?;
    let previous = previous.flatten();
    let headers = headers::renewed(sealing, id, row.headers.as_deref())
        .map_err(|error| SettleError::Sealed(id, error))?;
    if secret.is_none() && previous.is_none() && headers.is_none() {
        return Ok(0);
    }
    // What was changed concurrently is already stored correctly.
    let mut change = endpoint::Entity::update_many()
        .filter(endpoint::Column::Id.eq(id))
        .filter(endpoint::Column::Secret.eq(&row.secret));
    change = match &row.headers {
        Some(stored) => change.filter(endpoint::Column::Headers.eq(stored)),
        None => change.filter(endpoint::Column::Headers.is_null()),
    };
    if let Some(headers) = headers {
        change = change.col_expr(endpoint::Column::Headers, Expr::val(headers));
    }
    if let Some(secret) = secret {
        change = change.col_expr(endpoint::Column::Secret, Expr::val(secret));
    }
    if let Some(previous) = previous {
        change = change.col_expr(endpoint::Column::PreviousSecret, Expr::val(previous));
    }
    let changed = db
        .write(move |transaction| {
            Box::pin(async move { Ok::<_, DbErr>(change.exec(transaction).await?.rows_affected) })
        })
        .await?;
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Option<SealingKey> {
        Some(STANDARD.encode([byte; 32]).parse().unwrap())
    }

    fn sealing(byte: u8) -> Sealing {
        Sealing::new(key(byte), None)
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_as_what_it_is() {
        let sealed = sealing(1).seal("a", "whsec_secret");
        assert!(sealed.starts_with(PREFIX) && !sealed.contains("secret"));
        assert_eq!(sealing(1).open("a", &sealed).unwrap(), "whsec_secret");
        assert_ne!(
            sealing(1).seal("a", "whsec_secret"),
            sealed,
            "never the same twice"
        );
        assert_eq!(sealing(1).open("b", &sealed), Err(SealError::WrongKey));
        assert_eq!(sealing(2).open("a", &sealed), Err(SealError::WrongKey));
        assert_eq!(Sealing::default().open("a", &sealed), Err(SealError::NoKey));
        for broken in [
            PREFIX,
            &sealed[..20],
            &format!("{sealed}AAAA"),
            "sealed:v1:?",
        ] {
            assert_eq!(
                sealing(1).open("a", broken),
                Err(SealError::WrongKey),
                "{broken}"
            );
        }
    }

    #[test]
    fn without_a_key_everything_is_itself() {
        assert_eq!(Sealing::default().seal("a", "plain"), "plain");
        assert_eq!(sealing(1).open("a", "plain").unwrap(), "plain");
    }

    #[test]
    fn a_new_key_a_first_one_and_none_renew_what_there_is() {
        let by_first = sealing(1).seal("a", "secret");
        assert_eq!(sealing(1).renewed("a", &by_first), Ok(None));
        let changed = Sealing::new(key(2), key(1));
        let by_second = changed.renewed("a", &by_first).unwrap().unwrap();
        assert_eq!(sealing(2).open("a", &by_second).unwrap(), "secret");
        assert_eq!(sealing(2).renewed("a", &by_first), Err(SealError::WrongKey));
        let first = sealing(1).renewed("a", "secret").unwrap().unwrap();
        assert!(first.starts_with(PREFIX));
        let taken_away = Sealing::new(None, key(1)).renewed("a", &by_first);
        assert_eq!(taken_away, Ok(Some("secret".to_owned())));
    }

    #[test]
    fn keys_have_32_bytes_and_are_not_printed() {
        for wrong in [
            "",
            "hunter2",
            &STANDARD.encode([1; 31]),
            &STANDARD.encode([1; 33]),
        ] {
            assert_eq!(
                wrong.parse::<SealingKey>().unwrap_err(),
                InvalidKey,
                "{wrong}"
            );
        }
        let printed = format!("{:?}", sealing(1));
        assert!(!printed.contains("AQEB"), "{printed}");
    }
}
