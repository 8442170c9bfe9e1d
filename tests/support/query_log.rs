//! A second API of an app, whose database reports its queries.

use super::TestApp;
use landfall::{api::Shutdown, server};
use sea_orm::Statement;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Serves it until the guard is dropped, and returns its URL. `watcher` is called with each read statement.
pub async fn serve_with_query_log(
    app: &TestApp,
    watcher: impl Fn(&Statement) + Send + Sync + 'static,
) -> (String, DropGuard) {
    let mut with_query_observer = app.parts.app.clone();
    with_query_observer.db = with_query_observer.db.with_query_observer(watcher);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let stop = CancellationToken::new();
    tokio::spawn(server::serve(
        with_query_observer,
        app.parts.queues.clone(),
        app.parts.meter.clone(),
        listener,
        Shutdown::immediate(stop.clone()),
    ));
    (url, stop.drop_guard())
}
