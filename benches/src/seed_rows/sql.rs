//! SQL that differs between the two databases.

use sea_orm::DbBackend;

#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect(pub(super) DbBackend);

impl Dialect {
    fn is_postgres(self) -> bool {
        self.0 == DbBackend::Postgres
    }

    /// A number in lower-case hexadecimal, with at least this many digits.
    pub(super) fn hex(self, number: &str, digits: usize) -> String {
        if self.is_postgres() {
            format!("lpad(to_hex(({number})::bigint), {digits}, '0')")
        } else {
            format!("printf('%0{digits}x', {number})")
        }
    }

    /// A UUID from 32 hexadecimal digits.
    pub(super) fn uuid(self, digits: &str) -> String {
        if self.is_postgres() {
            format!("({digits})::uuid")
        } else {
            format!("unhex({digits})")
        }
    }

    /// Milliseconds since the Unix epoch as a timestamp.
    pub(super) fn time(self, millis: &str) -> String {
        if self.is_postgres() {
            format!("to_timestamp(({millis}) / 1000.0)")
        } else {
            format!(
                "(strftime('%Y-%m-%dT%H:%M:%S', ({millis}) / 1000, 'unixepoch') || printf('.%03d+00:00', ({millis}) % 1000))"
            )
        }
    }

    /// A string as JSON.
    pub(super) fn json(self, text: &str) -> String {
        if self.is_postgres() {
            format!("({text})::jsonb")
        } else {
            text.to_owned()
        }
    }

    /// A null timestamp; PostgreSQL needs the type.
    pub(super) fn no_time(self) -> &'static str {
        if self.is_postgres() {
            "NULL::timestamptz"
        } else {
            "NULL"
        }
    }

    /// Settings that speed up writes on this connection.
    pub(super) fn prepare(self) -> Option<String> {
        // In kibibytes; large, because indexes on random values are written everywhere.
        (!self.is_postgres()).then(|| "PRAGMA cache_size = -262144".to_owned())
    }
}
