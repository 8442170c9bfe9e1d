//! Reading: only committed data is visible, and every statement has a timeout.

use super::{
    connection_monitor::ConnectionMonitor,
    pooler::Pooling,
    postgres::{self, READ_TIMEOUT},
};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult,
    QueryResult, Statement, prelude::async_trait::async_trait,
};
use std::sync::Arc;

/// A handle for reading from the database; cheap to clone.
#[derive(Clone, Debug)]
pub struct DatabaseReader {
    pub(super) connection: DatabaseConnection,
    /// `None` on SQLite, where calls depend on the disk only.
    pub(super) monitor: Option<Arc<ConnectionMonitor>>,
    pub(super) pooling: Pooling,
}

impl DatabaseReader {
    /// The connection, without a client-side timeout.
    pub(super) fn inner(&self) -> &DatabaseConnection {
        &self.connection
    }

    /// Runs a trivial query.
    pub(super) async fn ping(&self) -> Result<(), DbErr> {
        self.within(self.connection.ping()).await
    }

    /// Begins a transaction if a pooler requires one for each statement.
    async fn transaction(&self) -> Result<Option<DatabaseTransaction>, DbErr> {
        if !self.pooling.needs_transactions() {
            return Ok(None);
        }
        let begun = postgres::begin(self.connection.clone(), self.pooling).await;
        begun.map(Some)
    }

    async fn within<T>(&self, call: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        match &self.monitor {
            Some(monitor) => monitor.call(READ_TIMEOUT, call).await,
            None => call.await,
        }
    }
}

#[async_trait]
impl ConnectionTrait for DatabaseReader {
    fn get_database_backend(&self) -> DbBackend {
        self.connection.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.within(async {
            let Some(transaction) = self.transaction().await? else {
                return self.connection.execute_raw(statement).await;
            };
            let result = transaction.execute_raw(statement).await?;
            transaction.commit().await.map(|()| result)
        })
        .await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.within(self.connection.execute_unprepared(sql)).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.within(async {
            let Some(transaction) = self.transaction().await? else {
                return self.connection.query_one_raw(statement).await;
            };
            let row = transaction.query_one_raw(statement).await?;
            transaction.commit().await.map(|()| row)
        })
        .await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.within(async {
            let Some(transaction) = self.transaction().await? else {
                return self.connection.query_all_raw(statement).await;
            };
            let rows = transaction.query_all_raw(statement).await?;
            transaction.commit().await.map(|()| rows)
        })
        .await
    }
}
