//! Lets tests inspect query plans: reports every read statement.

use super::Database;
use sea_orm::Statement;

impl Database {
    /// Returns the database with an observer that is called with each read statement and its values.
    #[must_use]
    pub fn with_query_observer(
        mut self,
        watcher: impl Fn(&Statement) + Send + Sync + 'static,
    ) -> Self {
        self.read
            .connection
            .set_metric_callback(move |info| watcher(info.statement));
        self
    }
}
