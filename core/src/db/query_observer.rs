//! For tests that look at query plans: which statements are read with.

use super::Database;
use sea_orm::Statement;

impl Database {
    /// The same database, telling each statement that is read with, and its values.
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
