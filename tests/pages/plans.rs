//! No page, list, or step of the sweep or the audit runs a query that grows with its table: on a seeded installation the
//! database explains each read statement, and PostgreSQL also runs it and counts its rows.

use crate::support::{TestApp, query_log::serve_with_query_log};
use landfall_bench::seed_rows::{self as seed, SeedAmount};
use landfall_core::{audit, db::Database, sweep};
use sea_orm::{ConnectionTrait, DbBackend, Statement};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Rows enough for a planner to prefer an index, and few enough for a test.
const ROWS: u64 = 20_000;

/// Maximum rows that a step may process without growing with the table: a window, a bounded count.
const BOUND: u64 = 5_000;

/// Maximum rows that may be read without matching; more is a full scan for a few rows.
const FILTERED: u64 = 2_000;

/// Tables with fewer rows may be scanned completely, because an index would be slower.
const SMALL: u64 = 2_000;

/// Tables that grow for ever, or with the load.
const GROWING: [&str; 12] = [
    "files",
    "outbox_events",
    "deliveries",
    "attempts",
    "uploads",
    "parts",
    "batches",
    "audit_entries",
    "minute_counts",
    "idempotency_keys",
    "sessions",
    "tokens",
];

/// Indexes by time. Rows with the same time are sorted by id, which are at most those of one transaction.
const BY_MOMENT: [&str; 4] = [
    "deliveries_due",
    "files_expires",
    "files_retryable",
    "uploads_open",
];

/// Prefixes of statements that may read a whole table.
type Exempt = &'static [&'static str];

/// The audit reads all stored files in pages, and counts them first for its progress. It looks up the events of a page
/// by their unique keys, for which PostgreSQL prefers to scan a table as small as this one.
const AUDIT_ON_POSTGRES: Exempt = &[
    "SELECT \"files\".\"status\", COUNT(\"files\".\"id\") AS \"count\" FROM \"files\"",
    "SELECT \"outbox_events\".\"idempotency_key\" FROM \"outbox_events\" WHERE \"outbox_events\".\"event_type\" = $1 \
     AND \"outbox_events\".\"idempotency_key\" IN (",
];

type SeenStatements = Arc<Mutex<BTreeMap<String, Statement>>>;

/// Writes down each statement, once.
fn noting(seen: &SeenStatements) -> impl Fn(&Statement) + Send + Sync + 'static {
    let seen = Arc::clone(seen);
    move |statement| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.entry(statement.sql.clone())
            .or_insert_with(|| statement.clone());
    }
}

/// A second app of the installation, whose database reports its queries.
struct QueryLogApp {
    app: TestApp,
    url: String,
    seen: SeenStatements,
    _stop: tokio_util::sync::DropGuard,
}

impl QueryLogApp {
    async fn over(app: TestApp) -> Self {
        let amount = SeedAmount {
            files: ROWS,
            events: ROWS,
            until: chrono::Utc::now(),
        };
        seed::seed(&app.parts.app.db, amount, |_| {})
            .await
            .expect("rows by the thousand");
        let seen = SeenStatements::default();
        let (url, stop) = serve_with_query_log(&app, noting(&seen)).await;
        Self {
            app,
            url,
            seen,
            _stop: stop,
        }
    }

    async fn get(&self, path: &str) -> String {
        let response = self
            .app
            .client
            .get(format!("{}{path}", self.url))
            .send()
            .await
            .expect("a response");
        let status = response.status();
        let text = response.text().await.expect("a body");
        assert_eq!(status, 200, "{path}: {text}");
        text
    }

    async fn first(&self, path: &str) -> Value {
        let page: Value = serde_json::from_str(&self.get(path).await).expect("a page");
        page["items"][0].clone()
    }

    /// Every page and every list, with the filters they have and their second pages.
    async fn visit_everything(&self) {
        let file = self.first("/v1/files?status=stored").await;
        let failed = self.first("/v1/events?status=failed").await;
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let (id, sha256, event) = (
            text(&file["id"]),
            text(&file["sha256"]),
            text(&failed["id"]),
        );
        let webhook = text(&failed["deliveries"][0]["webhook_id"]);
        let mut in_batches = self.get("/v1/files?limit=200").await;
        let at = in_batches
            .find("\"batch_id\":\"")
            .expect("a file of a batch")
            + 12;
        let batch = in_batches.split_off(at)[..36].to_owned();
        for list in ["/files?", "/v1/files?"] {
            let batch_field = if list == "/files?" {
                "batch"
            } else {
                "batch_id"
            };
            for query in [
                String::new(),
                "status=stored".into(),
                "status=failed".into(),
                "status=deleted".into(),
                "q=invoice".into(),
                "q=invoice-1234".into(),
                "q=invoice&status=failed".into(),
                format!("q={id}"),
                format!("q={batch}"),
                format!("sha256={sha256}"),
                format!("sha256={sha256}&status=stored"),
                format!("{batch_field}={batch}"),
                format!("{batch_field}={batch}&status=failed"),
            ] {
                self.visit_pages(&format!("{list}{query}")).await;
            }
        }
        for query in [
            "owner=surveys",
            "owner=surveys&status=stored",
            "owner=surveys&status=failed",
            "owner=nobody",
            "owner=nobody&status=stored",
            "since=2026-01-01&until=2100-01-01",
            "since=2026-01-01&status=failed",
            "since=2026-01-01&owner=surveys",
            "q=invoice&since=2026-01-01",
        ] {
            self.visit_pages(&format!("/files?{query}")).await;
        }
        for list in ["/events?", "/v1/events?"] {
            let about = if list == "/events?" {
                "about"
            } else {
                "aggregate_id"
            };
            for query in [
                String::new(),
                "status=delivered".into(),
                "status=failed".into(),
                "event_type=file.stored".into(),
                "event_type=webhook.test".into(),
                "event_type=file.deleted&status=failed".into(),
                "event_type=file.deleted&status=delivered".into(),
                format!("{about}={id}"),
                format!("{about}={id}&event_type=file.stored&status=delivered"),
            ] {
                self.visit_pages(&format!("{list}{query}")).await;
            }
        }
        self.visit_pages("/events?since=2026-01-01&until=2100-01-01")
            .await;
        for status in ["", "?status=failed", "?status=delivered", "?status=pending"] {
            self.visit_pages(&format!("/webhooks/{webhook}{status}"))
                .await;
            self.visit_pages(&format!("/v1/webhooks/{webhook}/deliveries{status}"))
                .await;
        }
        for path in [
            "/".to_owned(),
            "/webhooks".into(),
            "/jobs".into(),
            "/log".into(),
            "/upload".into(),
            "/metrics".into(),
            "/readyz".into(),
            "/v1/webhooks".into(),
            format!("/files/{id}"),
            format!("/batches/{batch}"),
            format!("/batches/{batch}?status=failed"),
            format!("/events/{event}"),
            format!("/upload/states?ids={id}"),
            format!("/webhooks/{webhook}/replay?status=failed"),
            format!("/webhooks/{webhook}/replay?since=2026-01-01"),
            format!("/webhooks/{webhook}/replay?since=2026-01-01&until=2100-01-01&status=failed"),
            format!("/v1/files/{id}"),
            format!("/v1/events/{event}"),
            format!("/v1/webhooks/{webhook}"),
            format!("/v1/batches/{batch}"),
            format!("/v1/batches/{batch}/files"),
        ] {
            self.get(&path).await;
        }
    }

    /// A page, and the one it leads on to.
    async fn visit_pages(&self, path: &str) {
        let first = self.get(path).await;
        let cursor = first
            .split("cursor=")
            .nth(1)
            .and_then(|rest| rest.split(['"', '&']).next());
        let in_json = first
            .split("\"next_cursor\":\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        if let Some(cursor) = cursor.or(in_json).filter(|cursor| !cursor.is_empty()) {
            let separator = if path.contains('?') { '&' } else { '?' };
            self.get(&format!("{path}{separator}cursor={cursor}")).await;
        }
    }

    /// Runs the periodic work.
    async fn sweep_and_audit(&self) {
        let mut landfall = self.app.parts.app.clone();
        landfall.db = landfall.db.with_query_observer(noting(&self.seen));
        // The second sweep checks again what the first one recorded.
        for _ in 0..2 {
            let swept = sweep::sweep(&landfall).await.expect("the sweep runs");
            assert_eq!(swept.faults, Vec::<String>::new());
        }
        let audited = audit::audit(
            &landfall,
            audit::AuditOptions::default(),
            &audit::NoObserver,
        )
        .await;
        audited.expect("the audit runs");
    }

    async fn explain(&self, statement: &Statement) -> Vec<String> {
        let db = &self.app.parts.app.db;
        match db.backend() {
            DbBackend::Postgres => explain_on_postgres(db, statement).await,
            _ => explain_on_sqlite(db, statement).await,
        }
    }

    /// So that the silence of [`Self::explain_all`] means something.
    async fn tells_what_grows(&self) {
        for sql in [
            "SELECT id FROM files ORDER BY size_bytes LIMIT 5",
            "SELECT id FROM files WHERE status = 'stored' ORDER BY size_bytes LIMIT 5",
            "SELECT COUNT(*) AS n FROM files WHERE original_filename LIKE '%x%'",
            "SELECT COUNT(*) AS n FROM outbox_events WHERE status = 'delivered'",
            "SELECT id FROM deliveries WHERE last_error IS NOT NULL",
            // An index scan for something that does not exist.
            "SELECT id FROM files WHERE content_type = 'none/such' ORDER BY id LIMIT 5",
            "SELECT id FROM outbox_events WHERE created_at > '2026-01-01' AND event_type = 'file.stored' ORDER BY payload LIMIT 5",
        ] {
            let backend = self.app.parts.app.db.backend();
            let told = self.explain(&Statement::from_string(backend, sql)).await;
            // On SQLite, an index search does not say how many rows it finds.
            let counts = backend != DbBackend::Postgres && sql.contains("status = 'delivered'");
            assert!(counts || !told.is_empty(), "{sql}");
        }
    }

    async fn explain_all(&self, at_least: usize, exempt: Exempt) {
        let seen: Vec<Statement> = {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.values()
                .filter(|one| one.sql.trim_start().starts_with("SELECT"))
                .filter(|one| !exempt.iter().any(|begin| one.sql.starts_with(begin)))
                .cloned()
                .collect()
        };
        let count = seen.len();
        assert!(count >= at_least, "only {count} statements were seen");
        let mut faults = Vec::new();
        for statement in seen {
            let found = self.explain(&statement).await;
            faults.extend(
                found
                    .into_iter()
                    .map(|fault| format!("{fault}\n    of {}", statement.sql)),
            );
        }
        assert!(
            faults.is_empty(),
            "{} queries grow with a table:\n{}",
            faults.len(),
            faults.join("\n")
        );
    }
}

async fn explained(db: &Database, how: &str, statement: &Statement) -> Vec<sea_orm::QueryResult> {
    let explaining = Statement {
        sql: format!("{how} {}", statement.sql),
        ..statement.clone()
    };
    db.read()
        .query_all_raw(explaining)
        .await
        .unwrap_or_else(|error| panic!("{}: {error}", statement.sql))
}

/// A step of SQLite's plan (SQLite, «EXPLAIN QUERY PLAN»).
struct Step {
    parent: i32,
    id: i32,
    detail: String,
}

async fn explain_on_sqlite(db: &Database, statement: &Statement) -> Vec<String> {
    let rows = explained(db, "EXPLAIN QUERY PLAN", statement).await;
    let steps: Vec<Step> = rows
        .iter()
        .map(|row| Step {
            id: row.try_get("", "id").expect("an id"),
            parent: row.try_get("", "parent").expect("a parent"),
            detail: row.try_get("", "detail").expect("a detail"),
        })
        .collect();
    let whole: Vec<&str> = steps.iter().map(|step| step.detail.as_str()).collect();
    let windows: Vec<&Step> = steps
        .iter()
        .filter(|step| {
            ["CO-ROUTINE ", "MATERIALIZE "]
                .iter()
                .any(|word| step.detail.starts_with(word))
        })
        .collect();
    let is_window = |name: &str| {
        windows
            .iter()
            .any(|window| window.detail.ends_with(&format!(" {name}")))
    };
    let is_limited = statement.sql.contains(" LIMIT ");
    let sorts_within = |parent: i32| {
        steps
            .iter()
            .any(|step| step.parent == parent && step.detail.starts_with("USE TEMP B-TREE"))
    };
    let mut faults = Vec::new();
    for step in &steps {
        let words: Vec<&str> = step.detail.split(' ').collect();
        let reads_all = words[0] == "SCAN"
            && GROWING.contains(&words[1])
            && !(is_window(words[1]) && words.len() == 2);
        let walks = reads_all
            && step.detail.contains("USING")
            && step.detail.contains("INDEX")
            && is_limited
            && (!is_filtered(&statement.sql, words[1]) || is_partial(db, &step.detail).await)
            && !sorts_within(step.parent);
        if reads_all && !walks {
            faults.push(format!("{} in {whole:?}", step.detail));
        }
        // A sort processes what one search found, and only some searches find a bounded number of rows.
        if step.detail.starts_with("USE TEMP B-TREE") {
            let sorted = steps
                .iter()
                .filter(|one| one.parent == step.parent && one.id != step.id);
            let bounded = sorted
                .filter(|one| one.detail.starts_with("SEARCH") || one.detail.starts_with("SCAN"))
                .all(|one| {
                    is_window(one.detail.split(' ').nth(1).unwrap_or_default())
                        || is_bounded_search(&one.detail)
                        || (step.detail.ends_with("LAST TERM OF ORDER BY")
                            && is_by_moment(&one.detail))
                });
            if !bounded {
                faults.push(format!("{} in {whole:?}", step.detail));
            }
        }
    }
    faults
}

/// Whether each part of the statement that reads this table searches for some of its rows. A step that uses an index to
/// find them is a search; one that scans and filters may have to read all.
fn is_filtered(sql: &str, table: &str) -> bool {
    let from = format!("FROM \"{table}\"");
    let mut parts = sql
        .match_indices(&from)
        .map(|(at, _)| &sql[at + from.len()..]);
    parts.all(|rest| {
        let mut depth = 0;
        for (at, byte) in rest.bytes().enumerate() {
            match byte {
                b'(' => depth += 1,
                b')' if depth == 0 => return false,
                b')' => depth -= 1,
                b'W' if depth == 0 && rest[at..].starts_with("WHERE ") => {
                    return !rest[at..].starts_with("WHERE TRUE");
                }
                _ => {}
            }
        }
        false
    })
}

/// Whether the index that a step scans is a partial index.
async fn is_partial(db: &Database, detail: &str) -> bool {
    let name = detail.split(" INDEX ").nth(1).unwrap_or_default();
    let name = name.split(' ').next().unwrap_or_default();
    let of_index = Statement::from_sql_and_values(
        DbBackend::Sqlite,
        "SELECT sql FROM sqlite_master WHERE type = 'index' AND name = ? AND sql LIKE '% WHERE %'",
        [name.into()],
    );
    let found = db.read().query_one_raw(of_index).await;
    found.expect("the schema can be read").is_some()
}

/// Searches of which each value finds a bounded number of rows: a primary or unique key, the attempts of a delivery,
/// the deliveries of an event, the upload of a file. And all endpoints are few.
fn is_bounded_search(detail: &str) -> bool {
    let tables_without_growth = ["webhook_endpoints", "periodic_runs"];
    let bounded = [
        "sqlite_autoindex_",
        "attempts_delivery",
        "deliveries_event",
        "uploads_file",
        "outbox_events_key",
    ];
    let equals = detail.contains("=?");
    (equals && bounded.iter().any(|index| detail.contains(index)))
        || tables_without_growth
            .iter()
            .any(|table| detail.contains(table))
}

/// Whether the rows of a search are ordered by time.
fn is_by_moment(detail: &str) -> bool {
    BY_MOMENT
        .iter()
        .any(|index| detail.contains(&format!(" INDEX {index} ")))
}

async fn explain_on_postgres(db: &Database, statement: &Statement) -> Vec<String> {
    let rows = explained(db, "EXPLAIN (ANALYZE, FORMAT JSON)", statement).await;
    let plan: Value = rows[0].try_get("", "QUERY PLAN").expect("a plan");
    let mut faults = Vec::new();
    let sizes = sizes(db).await;
    walk(&plan[0]["Plan"], false, &sizes, &mut faults);
    faults
}

async fn sizes(db: &Database) -> BTreeMap<String, u64> {
    let counting = Statement::from_string(
        DbBackend::Postgres,
        "SELECT relname::text AS name, reltuples::bigint AS rows FROM pg_class WHERE relkind = 'r'",
    );
    let rows = db
        .read()
        .query_all_raw(counting)
        .await
        .expect("the sizes of the tables");
    let each = rows.iter().map(|row| {
        let rows: i64 = row.try_get("", "rows").expect("a number");
        (
            row.try_get("", "name").expect("a name"),
            u64::try_from(rows).unwrap_or(0),
        )
    });
    each.collect()
}

/// `limited`: an outer step takes a limited number of rows, and no step in between needs all of them first.
fn walk(node: &Value, limited: bool, sizes: &BTreeMap<String, u64>, faults: &mut Vec<String>) {
    let kind = node["Node Type"].as_str().unwrap_or_default();
    let rows = node["Plan Rows"].as_f64().unwrap_or(0.0) as u64;
    let table = node["Relation Name"].as_str().unwrap_or_default();
    let size = sizes.get(table).copied().unwrap_or(0);
    let tell = |what: &str| format!("{what}: {kind} of {rows} rows of {table} in {node}");
    // Where nearly every row is wanted, the first ones are taken as they lie.
    let takes_the_first = limited && rows > size / 2;
    if kind == "Seq Scan" && GROWING.contains(&table) && size > SMALL && !takes_the_first {
        faults.push(tell("reads the whole table"));
    }
    let of_all = |key: &str| {
        node[key].as_f64().unwrap_or(0.0) * node["Actual Loops"].as_f64().unwrap_or(1.0)
    };
    let removed = of_all("Rows Removed by Filter") + of_all("Rows Removed by Index Recheck");
    if GROWING.contains(&table) && removed as u64 > FILTERED {
        faults.push(tell("reads what it does not want"));
    }
    if kind.contains("Index") && !limited && rows > BOUND {
        faults.push(tell("reads without a limit"));
    }
    let wants_all = matches!(
        kind,
        "Sort" | "Incremental Sort" | "Aggregate" | "Hash" | "Materialize" | "WindowAgg"
    );
    let below = match kind {
        "Limit" => true,
        _ if wants_all => false,
        _ => limited,
    };
    for child in node["Plans"].as_array().into_iter().flatten() {
        walk(child, below, sizes, faults);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_query_grows_with_its_table_on_sqlite() {
    let watched = QueryLogApp::over(TestApp::builder().workers(&[]).start().await).await;
    watched.visit_everything().await;
    watched.explain_all(40, &[]).await;
    watched.tells_what_grows().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn no_query_grows_with_its_table_on_postgres() {
    let watched = QueryLogApp::over(TestApp::builder().workers(&[]).postgres().start().await).await;
    watched.visit_everything().await;
    watched.explain_all(40, &[]).await;
    watched.tells_what_grows().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_query_of_the_sweep_or_the_audit_grows_with_its_table_on_sqlite() {
    let watched = QueryLogApp::over(TestApp::builder().workers(&[]).start().await).await;
    watched.sweep_and_audit().await;
    watched.explain_all(25, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn no_query_of_the_sweep_or_the_audit_grows_with_its_table_on_postgres() {
    let watched = QueryLogApp::over(TestApp::builder().workers(&[]).postgres().start().await).await;
    watched.sweep_and_audit().await;
    watched.explain_all(25, AUDIT_ON_POSTGRES).await;
}
