//! An app's API once more, on a database that tells what it is asked.

use super::TestApp;
use landfall::server;
use sea_orm::Statement;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Serves it until the guard is dropped, and answers where. `watcher` is told each statement that is read with.
pub async fn serve_watched(
    app: &TestApp,
    watcher: impl Fn(&Statement) + Send + Sync + 'static,
) -> (String, DropGuard) {
    let mut landfall = app.parts.app.clone();
    landfall.db = landfall.db.with_query_observer(watcher);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let stop = CancellationToken::new();
    tokio::spawn(server::serve(
        landfall,
        app.parts.queues.clone(),
        app.parts.meter.clone(),
        listener,
        stop.clone(),
    ));
    (url, stop.drop_guard())
}
