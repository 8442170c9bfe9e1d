//! The statements that generate each row from its number `n`.

use super::{SeedAmount, sql::Dialect};
use entity::WebhookId;

/// The milliseconds of a week.
pub(super) const SPAN_MS: i64 = 7 * 24 * 60 * 60 * 1000;

/// URL, event types, description, active, consecutive failures, reason for being disabled. Names below `.invalid` never
/// resolve (RFC 6761), so nothing is ever sent.
const ENDPOINTS: [(&str, &str, &str, bool, u32, &str); 6] = [
    ("media", "[\"file.stored\"]", "Media pipeline", true, 0, ""),
    ("records", "[]", "Records system", true, 0, ""),
    (
        "search",
        "[\"file.stored\",\"file.deleted\"]",
        "Search index",
        true,
        0,
        "",
    ),
    ("archive", "[]", "Cold archive", true, 0, ""),
    ("billing", "[]", "Billing", true, 14, ""),
    (
        "legacy",
        "[]",
        "Old importer",
        false,
        0,
        "the receiver answered 410 Gone",
    ),
];

/// Thousandths of the files in each status except `stored`, up to but excluding the number.
const UPLOADING: u32 = 2;
const STAGED: u32 = 6;
const FINALIZING: u32 = 8;
pub(super) const FAILED: u32 = 14;
pub(super) const DELETED: u32 = 30;

pub(super) struct RowGenerator {
    pub(super) sql: Dialect,
    pub(super) amount: SeedAmount,
    pub(super) endpoints: [WebhookId; ENDPOINTS.len()],
}

impl RowGenerator {
    pub(super) fn new(sql: Dialect, amount: SeedAmount) -> Self {
        Self {
            sql,
            amount,
            endpoints: ENDPOINTS.map(|_| WebhookId::generate()),
        }
    }

    /// Numbers from `first` to `last` with derived values: `ms`, its start; `share`, its thousandth; `sha`, a digest;
    /// `batch_ms`, the start of its batch. `count` spreads them over the week.
    pub(super) fn numbers(&self, first: u64, last: u64, count: u64) -> String {
        let start = self.amount.until.timestamp_millis() - SPAN_MS;
        let digest: Vec<String> = (1..=8_u64)
            .map(|word| {
                self.sql.hex(
                    &format!("(n * {}) % 4294967296", 2_654_435_761 + 1_013_904 * word),
                    8,
                )
            })
            .collect();
        format!(
            "WITH RECURSIVE seq(n) AS (SELECT CAST({first} AS bigint) UNION ALL SELECT n + 1 FROM seq WHERE n < {last}), \
             made AS (SELECT n, {start} + n * {SPAN_MS} / {count} AS ms, {start} + (n / 50) * 50 * {SPAN_MS} / {count} AS batch_ms, \
             ((n * 2654435761) % 4294967296) * 1000 / 4294967296 AS share, {} AS sha FROM seq) ",
            digest.join(" || ")
        )
    }

    /// The digits of an id: time, number and kind.
    fn digits(&self, kind: &str) -> String {
        let (moment, number) = (self.sql.hex("ms", 12), self.sql.hex("n", 15));
        format!("{moment} || '7{kind}8' || {number}")
    }

    pub(super) fn id(&self, kind: &str) -> String {
        self.sql.uuid(&self.digits(kind))
    }

    /// An id in its readable form.
    pub(super) fn written(&self, kind: &str) -> String {
        let digits = self.digits(kind);
        let part = |from: usize, length: usize| format!("substr({digits}, {from}, {length})");
        [
            part(1, 8),
            part(9, 4),
            part(13, 4),
            part(17, 4),
            part(21, 12),
        ]
        .join(" || '-' || ")
    }

    pub(super) fn at(&self, after: i64) -> String {
        self.sql.time(&format!("ms + {after}"))
    }

    /// This value in those thousandths, otherwise null.
    pub(super) fn when(&self, condition: &str, value: &str, none: &str) -> String {
        format!("CASE WHEN {condition} THEN {value} ELSE {none} END")
    }

    /// Single rows: endpoints, a sweep, the counts of a day, an operator log.
    pub(super) fn once(&self) -> Vec<String> {
        let now = self.amount.until.timestamp_millis();
        let at = self.sql.time(&now.to_string());
        let mut all: Vec<String> = self.sql.prepare().into_iter().collect();
        for (id, (host, types, description, active, failures, reason)) in
            self.endpoints.iter().zip(ENDPOINTS)
        {
            let id = self.sql.uuid(&format!("'{}'", id.0.simple()));
            let types = self.sql.json(&format!("'{types}'"));
            all.push(format!(
                "INSERT INTO webhook_endpoints (id, url, event_types, description, active, secret, consecutive_failures, \
                 disabled_reason, created_at, updated_at) VALUES ({id}, 'https://{host}.invalid/landfall', {types}, \
                 '{description}', {active}, 'whsec_c2VlZGVkIHNlY3JldCBvZiBhbiBlbmRwb2ludA==', {failures}, nullif('{reason}', ''), {at}, {at})"
            ));
        }
        let report = self.sql.json("'{}'");
        all.push(format!(
            "INSERT INTO periodic_runs (name, started_at, finished_at, report) VALUES ('sweep', {at}, {at}, {report})"
        ));
        let minute = now / 60_000;
        for (name, count) in [
            ("files_received", "90 + n % 37"),
            ("bytes_received", "(90 + n % 37) * 2400000"),
            ("files_stored", "88 + n % 41"),
            (
                "files_failed",
                "CASE WHEN n % 97 < 3 THEN 1 + n % 4 ELSE 0 END",
            ),
            ("deliveries_delivered", "110 + n % 53"),
            (
                "attempts_failed",
                "CASE WHEN n % 61 < 5 THEN 3 + n % 7 ELSE 0 END",
            ),
        ] {
            all.push(format!(
                "{}INSERT INTO minute_counts (minute, name, count) SELECT {minute} - n, '{name}', {count} FROM made",
                self.numbers(1, 1440, 1440)
            ));
        }
        all.push(format!(
            "{}INSERT INTO audit_entries (id, at, actor, action, subject, detail) SELECT {}, {}, 'ops', 'event.redeliver', \
             'event:' || n, {} FROM made",
            self.numbers(1, 5_000, 5_000),
            self.id("005"),
            self.at(0),
            self.sql.json("'{\"deliveries\":1}'"),
        ));
        all
    }

    /// Files, the uploads of those still arriving, and the batches of some.
    pub(super) fn of_files(&self, first: u64, last: u64) -> Vec<String> {
        let numbers = self.numbers(first, last, self.amount.files);
        vec![
            format!("{numbers}{}", self.files()),
            format!("{numbers}{}", self.uploads()),
            self.batches(first, last),
        ]
    }

    fn files(&self) -> String {
        let name = "CASE n % 6 WHEN 0 THEN 'Survey North Sea ' || n || '.tif' WHEN 1 THEN 'invoice-' || n || '.pdf' \
                    WHEN 2 THEN 'IMG_' || n || '.jpg' WHEN 3 THEN 'møtereferat ' || n || '.docx' \
                    WHEN 4 THEN '測量 ' || n || '.csv' ELSE 'backup-' || n || '.tar.zst' END";
        let staged = format!("share >= {UPLOADING}");
        let claimed = format!("share >= {STAGED}");
        let landed = format!("share >= {FAILED}");
        let none = self.sql.no_time();
        let waiting = format!(
            "{} || ':' || (1024 + (n * 40503) % 52428800)",
            self.written("001")
        );
        let key = "'uploads/2026/11/' || n || '.bin'";
        let columns = [
            ("id", self.id("001")),
            ("owner", "CASE n % 10 WHEN 9 THEN NULL WHEN 0 THEN 'surveys' WHEN 1 THEN 'surveys' WHEN 2 THEN 'billing' ELSE 'media' END".to_owned()),
            ("status", format!(
                "CASE WHEN share < {UPLOADING} THEN 'uploading' WHEN share < {STAGED} THEN 'staged' WHEN share < {FINALIZING} THEN 'finalizing' \
                 WHEN share < {FAILED} THEN 'failed' WHEN share < {DELETED} THEN 'deleted' ELSE 'stored' END"
            )),
            ("original_filename", name.to_owned()),
            ("search_name", format!("lower({name})")),
            ("content_type", "CASE n % 6 WHEN 0 THEN 'image/tiff' WHEN 1 THEN 'application/pdf' WHEN 2 THEN 'image/jpeg' ELSE 'application/octet-stream' END".to_owned()),
            ("size_bytes", "1024 + (n * 40503) % 52428800".to_owned()),
            ("sha256", self.when(&landed, "sha", "NULL")),
            ("metadata", self.sql.json("'{\"source\":\"scanner-' || (n % 9) || '\",\"order\":' || n || '}'")),
            ("batch_id", self.when("(n / 50) % 4 = 0", &self.batch(), "NULL")),
            ("staging_key", self.when(&format!("share >= {UPLOADING} AND share < {FINALIZING}"),
                    &waiting, "NULL")),
            ("storage_key", self.when(&format!("(share >= {STAGED} AND share < {FINALIZING}) OR share >= {DELETED}"), key, "NULL")),
            ("finalize_attempts", "CASE WHEN n % 211 = 0 THEN 1 ELSE 0 END".to_owned()),
            ("finalize_crashes", "0".to_owned()),
            ("lease_owner", self.when(&format!("share >= {STAGED} AND share < {FINALIZING}"), "'node-1-4242'", "NULL")),
            ("lease_expires_at", self.when(&format!("share >= {STAGED} AND share < {FINALIZING}"), &self.at(30_124), none)),
            ("claimed_at", self.when(&claimed, &self.at(124), none)),
            ("claimed_by", self.when(&claimed, "'node-' || (n % 3) || '-4242'", "NULL")),
            ("landed_at", self.when(&landed, &self.at(516), none)),
            ("error_code", self.when(&format!("share >= {FINALIZING} AND share < {FAILED}"), "'digest_mismatch'", "NULL")),
            ("error_message", self.when(&format!("share >= {FINALIZING} AND share < {FAILED}"), "'the bytes are not those that were declared'", "NULL")),
            ("created_at", self.at(0)),
            ("updated_at", self.at(524)),
            ("staged_at", self.when(&staged, &self.at(120), none)),
            ("stored_at", self.when(&landed, &self.at(524), none)),
            ("deleted_at", self.when(&format!("share >= {FAILED} AND share < {DELETED}"), &self.at(90_000), none)),
        ];
        insert("files", &columns, "")
    }

    /// Fifty consecutive files may be a batch, which is as old as the first.
    fn batch(&self) -> String {
        let moment = self.sql.hex("batch_ms", 12);
        let number = self.sql.hex("n / 50", 15);
        self.sql.uuid(&format!("{moment} || '70068' || {number}"))
    }

    fn uploads(&self) -> String {
        let columns = [
            ("id", self.id("001")),
            ("file_id", self.id("001")),
            ("kind", "'append'".to_owned()),
            ("status", "'in_progress'".to_owned()),
            (
                "total_size_bytes",
                "1024 + (n * 40503) % 52428800".to_owned(),
            ),
            ("completed_parts", "0".to_owned()),
            ("bytes_received", "512".to_owned()),
            ("fence", "1".to_owned()),
            ("created_at", self.at(0)),
            ("updated_at", self.at(60_000)),
            ("expires_at", self.at(SPAN_MS * 2)),
        ];
        insert("uploads", &columns, &format!(" WHERE share < {UPLOADING}"))
    }

    fn batches(&self, first: u64, last: u64) -> String {
        let made = self.numbers(first, last, self.amount.files);
        let batches = format!(
            "SELECT DISTINCT {} AS id FROM made WHERE (n / 50) % 4 = 0",
            self.batch()
        );
        let count = |which: &str| format!("SUM(CASE WHEN {which} THEN 1 ELSE 0 END)");
        let (stored, failed) = (
            count("files.status IN ('stored', 'deleted')"),
            count("files.status = 'failed'"),
        );
        let status = format!(
            "CASE WHEN {stored} + {failed} < COUNT(*) THEN 'in_progress' WHEN {failed} > 0 THEN 'partial' ELSE 'complete' END"
        );
        let done =
            format!("CASE WHEN {stored} + {failed} = COUNT(*) THEN MAX(files.updated_at) END");
        format!(
            "{made}INSERT INTO batches (id, owner, status, metadata, total_files, stored_count, failed_count, created_at, updated_at, \
             finalized_at, completed_at) SELECT files.batch_id, NULL, {status}, {}, COUNT(*), {stored}, {failed}, MIN(files.created_at), \
             MAX(files.updated_at), {done}, {done} FROM files WHERE files.batch_id IN ({batches}) GROUP BY files.batch_id \
             ON CONFLICT (id) DO UPDATE SET total_files = excluded.total_files, stored_count = excluded.stored_count, \
             failed_count = excluded.failed_count, status = excluded.status, finalized_at = excluded.finalized_at, \
             completed_at = excluded.completed_at",
            self.sql.json("'{}'"),
        )
    }
}

pub(super) fn insert(table: &str, columns: &[(&str, String)], which: &str) -> String {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let values: Vec<&str> = columns.iter().map(|(_, value)| value.as_str()).collect();
    format!(
        "INSERT INTO {table} ({}) SELECT {} FROM made{which}",
        names.join(", "),
        values.join(", ")
    )
}
