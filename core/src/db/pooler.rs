//! Connection poolers between this process and PostgreSQL, such as pgbouncer: found out when the database is opened.
//!
//! In transaction mode a pooler gives each transaction any of its connections to the server. Settings of a session would
//! then apply to other clients, so they are made per transaction. Prepared statements belong to a connection, too. A
//! pooler may keep them apart for its clients (pgbouncer 1.21 with `max_prepared_statements`); otherwise every call is a
//! transaction that first drops what others have left on the connection.

use sea_orm::sqlx::{
    self, ConnectOptions, Connection, PgConnection, Row,
    postgres::{PgConnectOptions, PgRow},
};
use std::{collections::HashSet, time::Duration};

/// How often each of two connections is asked which server process answers it.
const ROUNDS: usize = 5;

/// With a pooler in session mode whose connections are all in use, the second connection would wait.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// The name of a prepared statement is in use, or not known.
const STATEMENT_STATES: [&str; 2] = ["42P05", "26000"];

/// The settings of a session, for one transaction.
macro_rules! local_settings {
    () => {
        "SET LOCAL statement_timeout = '30s'; SET LOCAL lock_timeout = '10s'; \
         SET LOCAL idle_in_transaction_session_timeout = '30s'"
    };
}

/// How this process is connected to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// Each connection belongs to this process, as far as it can tell.
    #[default]
    Direct,
    /// Transactions share connections, and the pooler keeps prepared statements of its clients apart.
    Transactions,
    /// Transactions share connections, and the prepared statements on them.
    TransactionsAndStatements,
}

impl Pooling {
    /// What must run at the beginning of each transaction.
    pub(super) fn preamble(self) -> Option<&'static str> {
        match self {
            Self::Direct => None,
            Self::Transactions => Some(local_settings!()),
            Self::TransactionsAndStatements => Some(concat!("DEALLOCATE ALL; ", local_settings!())),
        }
    }

    /// Whether a statement outside of a transaction may not find what it has prepared.
    pub(super) fn needs_transactions(self) -> bool {
        self == Self::TransactionsAndStatements
    }

    /// A description for operators; `None` without a pooler.
    #[must_use]
    pub fn description(self) -> Option<&'static str> {
        match self {
            Self::Direct => None,
            Self::Transactions => Some("through a connection pooler in transaction mode"),
            Self::TransactionsAndStatements => Some(
                "through a connection pooler in transaction mode that does not keep prepared statements apart, which costs \
                 round trips (pgbouncer 1.21 or later does with max_prepared_statements)",
            ),
        }
    }
}

/// Finds out whether two connections are answered by one server process.
///
/// # Errors
/// If the server cannot be reached.
pub(super) async fn detect(options: &PgConnectOptions) -> Result<Pooling, sqlx::Error> {
    let mut one = options.connect().await?;
    let mut other = options.connect().await?;
    let shared = tokio::time::timeout(PROBE_TIMEOUT, is_shared(&mut one, &mut other)).await;
    let pooling = match shared {
        Ok(Ok(true)) => match keeps_statements_apart(&mut one, &mut other).await? {
            true => Pooling::Transactions,
            false => Pooling::TransactionsAndStatements,
        },
        Ok(Ok(false)) | Err(_) => Pooling::Direct,
        Ok(Err(error)) => return Err(error),
    };
    for connection in [one, other] {
        // A pooler in session mode may never answer.
        let _ = tokio::time::timeout(PROBE_TIMEOUT, connection.close()).await;
    }
    Ok(pooling)
}

/// A server process answers one connection at a time, unless a pooler moves its clients between them.
async fn is_shared(one: &mut PgConnection, other: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let (mut of_one, mut of_other) = (HashSet::new(), HashSet::new());
    for _ in 0..ROUNDS {
        of_one.insert(server_process(one).await?);
        of_other.insert(server_process(other).await?);
    }
    Ok(of_one.len() > 1 || of_other.len() > 1 || !of_one.is_disjoint(&of_other))
}

async fn server_process(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    // Not prepared.
    let row: PgRow = sqlx::raw_sql("SELECT pg_backend_pid()")
        .fetch_one(connection)
        .await?;
    row.try_get(0)
}

/// Both connections give their statements the same names.
async fn keeps_statements_apart(
    one: &mut PgConnection,
    other: &mut PgConnection,
) -> Result<bool, sqlx::Error> {
    const STATEMENTS: [&str; ROUNDS] = [
        "SELECT $1::int4 + 1",
        "SELECT $1::int4 + 2",
        "SELECT $1::int4 + 3",
        "SELECT $1::int4 + 4",
        "SELECT $1::int4 + 5",
    ];
    for statement in STATEMENTS {
        for connection in [&mut *one, &mut *other] {
            let answer = sqlx::query(statement)
                .bind(1_i32)
                .fetch_one(connection)
                .await;
            match answer {
                Ok(_) => {}
                Err(sqlx::Error::Database(error))
                    if error
                        .code()
                        .is_some_and(|code| STATEMENT_STATES.contains(&&*code)) =>
                {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(true)
}
