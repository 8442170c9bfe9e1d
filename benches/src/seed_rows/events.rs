//! Events, deliveries and attempts, generated from the number of the event.

use super::rows::{DELETED, FAILED, RowGenerator, SPAN_MS, insert};

/// The index of the endpoint that responds with 503.
const FAILING: usize = 4;

/// Shares of the events, in thousandths.
const EVENT_PENDING: u32 = 2;
const EVENT_FAILED: u32 = 6;

/// An offset, so that other thousandths are selected than for files.
const THOUSANDTH: &str = "(((n * 2246822519) % 4294967296) * 1000 / 4294967296)";

impl RowGenerator {
    /// Events `first` to `last`, with their deliveries (two for every fourth event, one for the others) and attempts.
    /// Each belongs to the file of the same number, or is a test of an endpoint if there is no such file.
    pub(super) fn of_events(&self, first: u64, last: u64) -> Vec<String> {
        let files = self.amount.files.max(1);
        let numbers = self.numbers(first, last, self.amount.files.max(self.amount.events));
        let mut all = vec![
            format!("{numbers}{}", self.events(files)),
            format!(
                "{numbers}{}",
                self.deliveries("003", &self.main(), true, "")
            ),
            format!(
                "{numbers}{}",
                self.deliveries("004", &self.endpoint(3), false, " WHERE n % 4 = 0")
            ),
            format!(
                "{numbers}{}",
                self.attempts("00b", "004", "200", 545, " WHERE n % 4 = 0")
            ),
        ];
        let delivered = format!(" WHERE {THOUSANDTH} >= {EVENT_FAILED}");
        all.push(format!(
            "{numbers}{}",
            self.attempts("00a", "003", "200", 540, &delivered)
        ));
        for (kind, after) in [("00c", 540), ("00d", 61_000), ("00e", 190_000)] {
            let failing = format!(" WHERE {THOUSANDTH} < {EVENT_FAILED}");
            all.push(format!(
                "{numbers}{}",
                self.attempts(kind, "003", "503", after, &failing)
            ));
        }
        all
    }

    fn endpoint(&self, index: usize) -> String {
        self.sql
            .uuid(&format!("'{}'", self.endpoints[index].0.simple()))
    }

    fn main(&self) -> String {
        let (failing, ours) = (
            self.endpoint(FAILING),
            [0, 1, 2].map(|index| self.endpoint(index)),
        );
        format!(
            "CASE WHEN {THOUSANDTH} < {EVENT_FAILED} OR n % 500 = 0 THEN {failing} WHEN n % 3 = 0 THEN {} WHEN n % 3 = 1 THEN {} ELSE {} END",
            ours[0], ours[1], ours[2]
        )
    }

    fn events(&self, files: u64) -> String {
        let stored = format!("n <= {files} AND share >= {DELETED}");
        let deleted = format!("n <= {files} AND share >= {FAILED} AND share < {DELETED}");
        let about_file = format!("n <= {files} AND share >= {FAILED}");
        let file = self.written("001");
        let payload = format!(
            "'{{\"file_id\":\"' || {file} || '\",\"original_filename\":\"' || n || '.bin\",\"content_type\":\"application/octet-stream\",\
             \"size_bytes\":' || (1024 + (n * 40503) % 52428800) || ',\"sha256\":\"' || sha || '\",\"url\":\"https://files.invalid/' || n || '\"}}'"
        );
        let number = format!("{THOUSANDTH} < {EVENT_PENDING}");
        let failed = format!("{THOUSANDTH} >= {EVENT_PENDING} AND {THOUSANDTH} < {EVENT_FAILED}");
        let columns = [
            ("id", self.id("002")),
            (
                "event_type",
                format!(
                    "CASE WHEN {stored} THEN 'file.stored' WHEN {deleted} THEN 'file.deleted' ELSE 'webhook.test' END"
                ),
            ),
            (
                "aggregate_type",
                format!("CASE WHEN {about_file} THEN 'UploadFile' ELSE 'Webhook' END"),
            ),
            (
                "aggregate_id",
                format!(
                    "CASE WHEN {about_file} THEN {} ELSE {} END",
                    self.id("001"),
                    self.endpoint(0)
                ),
            ),
            (
                "idempotency_key",
                format!(
                    "CASE WHEN {about_file} THEN 'UploadFile:' || {file} ELSE 'Webhook:' || n END"
                ),
            ),
            ("payload", self.sql.json(&payload)),
            (
                "status",
                format!(
                    "CASE WHEN {number} THEN 'pending' WHEN {failed} THEN 'failed' ELSE 'delivered' END"
                ),
            ),
            (
                "pending_deliveries",
                format!("CASE WHEN {number} THEN 1 ELSE 0 END"),
            ),
            (
                "failed_deliveries",
                format!("CASE WHEN {failed} THEN 1 ELSE 0 END"),
            ),
            ("created_at", self.at(524)),
            (
                "delivered_at",
                format!(
                    "CASE WHEN {THOUSANDTH} >= {EVENT_FAILED} THEN {} ELSE {} END",
                    self.at(560),
                    self.sql.no_time()
                ),
            ),
        ];
        insert("outbox_events", &columns, "")
    }

    /// `fails`: deliveries of pending or failed events are pending or failed too.
    fn deliveries(&self, kind: &str, webhook: &str, fails: bool, which: &str) -> String {
        let none = self.sql.no_time();
        let (pending, failed) = if fails {
            (EVENT_PENDING, EVENT_FAILED)
        } else {
            (0, 0)
        };
        let delivered = format!("{THOUSANDTH} >= {failed}");
        let attempts = format!("CASE WHEN {delivered} THEN 1 ELSE 3 END");
        let columns = [
            ("id", self.id(kind)),
            ("event_id", self.id("002")),
            ("webhook_id", webhook.to_owned()),
            (
                "status",
                format!(
                    "CASE WHEN {THOUSANDTH} < {pending} THEN 'pending' WHEN {THOUSANDTH} < {failed} THEN 'failed' ELSE 'delivered' END"
                ),
            ),
            ("attempt_count", attempts.clone()),
            ("attempts_this_round", attempts),
            (
                "next_attempt_at",
                self.when(
                    &format!("{THOUSANDTH} < {pending}"),
                    &self.at(SPAN_MS),
                    none,
                ),
            ),
            ("delivered_at", self.when(&delivered, &self.at(560), none)),
            (
                "last_error",
                self.when(
                    &delivered,
                    "NULL",
                    "'the receiver answered 503 Service Unavailable'",
                ),
            ),
            ("created_at", self.at(524)),
            ("updated_at", self.at(560)),
        ];
        insert("deliveries", &columns, which)
    }

    fn attempts(&self, kind: &str, of: &str, code: &str, after: i64, which: &str) -> String {
        let (error, body) = match code {
            "200" => ("NULL", "'{\"ok\":true}'"),
            _ => (
                "'the receiver answered 503 Service Unavailable'",
                "'<h1>Service Unavailable</h1>'",
            ),
        };
        let columns = [
            ("id", self.id(kind)),
            ("delivery_id", self.id(of)),
            ("at", self.at(after)),
            ("status_code", code.to_owned()),
            ("duration_ms", "8 + (n * 7919) % 180".to_owned()),
            ("error", error.to_owned()),
            ("response_body", body.to_owned()),
        ];
        insert("attempts", &columns, which)
    }
}
