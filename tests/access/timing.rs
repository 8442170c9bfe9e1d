//! Rejections take the same time whether or not the resource exists.
//!
//! Most of a request's time is spent in the database, so the first test compares the statements as text, which is
//! independent of the load of the machine. What is not a statement (a hash, reading a file, a wait) is covered by the
//! second: it sends both requests alternately, so that load affects both alike, and takes the median of the
//! differences, which single slow responses do not change. The bound is wide enough for a machine that is building at
//! the same time, and far below the cost of a slow hash (tens of milliseconds) or a timeout.

use super::{
    matrix::{Route, TwoOwners, revoked, status_and_text},
    token,
};
use crate::support::query_log::serve_with_query_log;
use landfall_core::tokens::TokenScope;
use reqwest::RequestBuilder;
use std::{
    mem,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio_util::sync::DropGuard;

/// Pairs of requests of which the median is taken.
const PAIRS: usize = 31;

/// Maximum difference between the two.
const BOUND: Duration = Duration::from_millis(5);

/// A fixture whose database reports its queries.
struct QueryLogFixture {
    fixture: TwoOwners,
    asked: Arc<Mutex<Vec<String>>>,
    _stop: DropGuard,
}

impl QueryLogFixture {
    async fn new() -> Self {
        let mut fixture = TwoOwners::new().await;
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let noting = Arc::clone(&asked);
        let watcher = move |statement: &sea_orm::Statement| {
            noting.lock().unwrap().push(statement.sql.clone());
        };
        let (url, stop) = serve_with_query_log(&fixture.app, watcher).await;
        fixture.url = url;
        Self {
            fixture,
            asked,
            _stop: stop,
        }
    }

    /// Returns the statements of a request, and the status of its response.
    async fn statements(&self, request: RequestBuilder) -> (u16, Vec<String>) {
        self.asked.lock().unwrap().clear();
        let (status, _) = status_and_text(request).await;
        (status, mem::take(&mut self.asked.lock().unwrap()))
    }

    /// The same of a thing that exists and of one that does not.
    async fn both(&self, route: &Route, token: Option<&str>) -> [(u16, Vec<String>); 2] {
        let with = |request: RequestBuilder| match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let absent = with(self.fixture.request(route, false));
        let absent = self.statements(absent).await;
        let there = with(self.fixture.request(route, true));
        [self.statements(there).await, absent]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_run_the_same_queries_whether_or_not_the_resource_exists() {
    let watched = QueryLogFixture::new().await;
    let app = &watched.fixture.app;
    let revoked = revoked(app).await;
    let reader = token(app, "alice", &[TokenScope::Read]).await;
    let bob = token(app, "bob", &[TokenScope::Read, TokenScope::Upload]).await;
    for token in [
        None,
        Some("lf_made_up"),
        Some(&revoked),
        Some(&reader),
        Some(&bob),
    ] {
        let mut compared = 0;
        for route in watched
            .fixture
            .routes
            .iter()
            .filter(|r| r.path.contains("{id}"))
        {
            let [there, absent] = watched.both(route, token).await;
            // Alice's own token may see her resources, but not what needs another scope.
            if there.0 != 403 && token == Some(reader.as_str()) {
                continue;
            }
            assert!((401..=404).contains(&there.0), "{route:?}: {there:?}");
            assert_eq!(there, absent, "{route:?}");
            compared += 1;
        }
        assert!(compared > 10, "only {compared} routes refused {token:?}");
    }
    // So that the silence of the above means something: who may see a thing has more read.
    let admin = token(app, "root", &[TokenScope::Admin]).await;
    let told = watched.fixture.routes.iter();
    let mut told = told.filter(|r| r.method == "GET" && r.path == "/v1/events/{id}");
    let [there, absent] = watched.both(told.next().unwrap(), Some(&admin)).await;
    assert_eq!((there.0, absent.0), (200, 404));
    assert!(there.1.len() > absent.1.len(), "{there:?} and {absent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rejections_take_the_same_time_whether_or_not_the_resource_exists() {
    let fixture = TwoOwners::new().await;
    let bob = token(&fixture.app, "bob", &[TokenScope::Read, TokenScope::Upload]).await;
    for route in fixture.routes.iter().filter(|r| r.path.contains("{id}")) {
        let took = async |exists: bool| {
            let request = fixture.request(route, exists).bearer_auth(&bob);
            let asked = Instant::now();
            let (status, _) = status_and_text(request).await;
            assert!([403, 404].contains(&status), "{route:?}: {status}");
            asked.elapsed().as_secs_f64()
        };
        let mut differences = Vec::new();
        for _ in 0..PAIRS {
            let there = took(true).await;
            differences.push(there - took(false).await);
        }
        differences.sort_by(f64::total_cmp);
        let median = differences[PAIRS / 2];
        assert!(
            median.abs() < BOUND.as_secs_f64(),
            "{route:?}: {differences:?}"
        );
    }
}
