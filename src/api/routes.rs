//! The methods of each path, for `Allow` (RFC 9110, section 10.2.1).

use http::Method;
use poem_openapi::OpenApi;
use std::collections::BTreeMap;

/// The paths of the API and their methods.
#[derive(Clone, Debug, Default)]
pub struct Routes(BTreeMap<String, Vec<Method>>);

impl Routes {
    /// The paths of an OpenAPI definition.
    #[must_use]
    pub fn from_openapi<T: OpenApi>() -> Self {
        let mut routes = Self::default();
        for path in T::meta().into_iter().flat_map(|api| api.paths) {
            for operation in path.operations {
                routes.add(&path.path, operation.method);
            }
        }
        routes
    }

    /// Adds a path that is not in a definition.
    pub fn add(&mut self, path: &str, method: Method) {
        let methods = self.0.entry(path.to_owned()).or_default();
        if method == Method::GET && !methods.contains(&Method::HEAD) {
            methods.push(Method::HEAD);
        }
        if !methods.contains(&method) {
            methods.push(method);
        }
        methods.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    }

    /// Returns the pattern of a path: a metrics label that does not depend on ids.
    #[must_use]
    pub(crate) fn pattern(&self, path: &str) -> Option<&str> {
        let mut patterns = self.0.keys();
        patterns
            .find(|pattern| matches(pattern, path))
            .map(String::as_str)
    }

    /// Returns the methods of a path.
    #[must_use]
    pub fn allowed(&self, path: &str) -> Vec<Method> {
        let matching = self.0.iter().filter(|(pattern, _)| matches(pattern, path));
        matching.flat_map(|(_, methods)| methods.clone()).collect()
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    let mut path = path.split('/');
    let fits = pattern.split('/').all(|segment| {
        let given = path.next();
        given.is_some_and(|given| segment.starts_with(['{', ':']) || segment == given)
    });
    fits && path.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_an_id_has_the_methods_of_its_pattern() {
        let mut routes = Routes::default();
        routes.add("/v1/files/{id}", Method::GET);
        routes.add("/v1/files/{id}", Method::DELETE);
        routes.add("/v1/files", Method::POST);
        let allowed = routes.allowed("/v1/files/7");
        assert_eq!(allowed, [Method::DELETE, Method::GET, Method::HEAD]);
        assert_eq!(routes.allowed("/v1/files"), [Method::POST]);
        assert!(routes.allowed("/v1/files/7/content").is_empty());
        assert_eq!(routes.pattern("/v1/files/7"), Some("/v1/files/{id}"));
        assert_eq!(routes.pattern("/v1"), None);
    }
}
