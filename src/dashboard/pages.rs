//! The table of pages: path, method, and required access.

use super::{
    auth::{Access, BodyKind, GuardedPage},
    state::Dashboard,
};
use crate::api::Routes;
use http::Method;
use poem::{
    Endpoint, EndpointExt, IntoEndpoint, IntoResponse, Response, Route, RouteMethod,
    endpoint::BoxEndpoint,
};
use std::collections::BTreeMap;

/// The pages, before they are added to the server's routes.
#[derive(Default)]
pub(crate) struct Pages(Vec<PageEntry>);

struct PageEntry {
    path: &'static str,
    method: Method,
    need: Access,
    body: BodyKind,
    page: BoxEndpoint<'static, Response>,
}

impl Pages {
    /// Adds a page.
    pub(super) fn get<E>(self, path: &'static str, need: Access, page: E) -> Self
    where
        E: IntoEndpoint,
        E::Endpoint: 'static,
        <E::Endpoint as Endpoint>::Output: IntoResponse,
    {
        self.with(path, Method::GET, need, BodyKind::Form, page)
    }

    /// Adds an action. It requires `admin` in addition to the given access, unless that is `Open` or `SignedIn`.
    pub(super) fn post<E>(self, path: &'static str, need: Access, page: E) -> Self
    where
        E: IntoEndpoint,
        E::Endpoint: 'static,
        <E::Endpoint as Endpoint>::Output: IntoResponse,
    {
        self.with(path, Method::POST, need, BodyKind::Form, page)
    }

    /// Adds a path with any method and body kind.
    pub(super) fn with<E>(
        mut self,
        path: &'static str,
        method: Method,
        need: Access,
        body: BodyKind,
        page: E,
    ) -> Self
    where
        E: IntoEndpoint,
        E::Endpoint: 'static,
        <E::Endpoint as Endpoint>::Output: IntoResponse,
    {
        self.0.push(PageEntry {
            path,
            method,
            need,
            body,
            page: page.into_endpoint().map_to_response().boxed(),
        });
        self
    }

    /// Adds the paths to the routes used for metrics and `Allow`.
    pub(crate) fn name(&self, routes: &mut Routes) {
        for (method, path) in self.each() {
            routes.add(path, method);
        }
    }

    /// Returns every method and path.
    pub(crate) fn each(&self) -> impl Iterator<Item = (Method, &'static str)> {
        self.0
            .iter()
            .map(|entry| (entry.method.clone(), entry.path))
    }

    /// Wraps each page in its checks and adds it to the routes.
    pub(crate) fn mount(self, route: Route, dashboard: &Dashboard) -> Route {
        let mut methods: BTreeMap<&'static str, RouteMethod> = BTreeMap::new();
        for entry in self.0 {
            let gate = GuardedPage {
                dashboard: dashboard.clone(),
                need: entry.need,
                body: entry.body,
                page: entry.page,
            };
            let so_far = methods.remove(entry.path).unwrap_or_default();
            methods.insert(entry.path, so_far.method(entry.method, gate));
        }
        let each = methods.into_iter();
        each.fold(route, |route, (path, methods)| route.at(path, methods))
    }
}
