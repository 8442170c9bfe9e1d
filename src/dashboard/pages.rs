//! The table of pages: which path, which method, and what a visitor needs for it.

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

/// Pages on their way into the server's routes.
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
    /// A page to look at.
    pub(super) fn get<E>(self, path: &'static str, need: Access, page: E) -> Self
    where
        E: IntoEndpoint,
        E::Endpoint: 'static,
        <E::Endpoint as Endpoint>::Output: IntoResponse,
    {
        self.with(path, Method::GET, need, BodyKind::Form, page)
    }

    /// What a button does. It needs `admin` besides what is said here, unless it is `Open` or `SignedIn`.
    pub(super) fn post<E>(self, path: &'static str, need: Access, page: E) -> Self
    where
        E: IntoEndpoint,
        E::Endpoint: 'static,
        <E::Endpoint as Endpoint>::Output: IntoResponse,
    {
        self.with(path, Method::POST, need, BodyKind::Form, page)
    }

    /// A path and a method of whatever kind.
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

    /// Tells which paths there are.
    pub(crate) fn name(&self, routes: &mut Routes) {
        for (method, path) in self.each() {
            routes.add(path, method);
        }
    }

    /// Every method and path.
    pub(crate) fn each(&self) -> impl Iterator<Item = (Method, &'static str)> {
        self.0
            .iter()
            .map(|entry| (entry.method.clone(), entry.path))
    }

    /// Puts a gate before each page and adds it to the routes.
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
