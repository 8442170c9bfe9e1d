//! The methods of each path, for `Allow` (RFC 9110, section 10.2.1), and what its parameters may be.

use http::Method;
use poem_openapi::{
    OpenApi,
    registry::{MetaSchema, MetaSchemaRef, Registry},
};
use serde_json::Value;
use std::collections::BTreeMap;

/// The paths of the API, with their methods and parameters.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    methods: BTreeMap<String, Vec<Method>>,
    /// What a parameter must be, by path, method and name.
    parameters: BTreeMap<String, Vec<(Method, String, String)>>,
}

impl Routes {
    /// The paths of an OpenAPI definition.
    #[must_use]
    pub fn from_openapi<T: OpenApi>() -> Self {
        let mut registry = Registry::new();
        T::register(&mut registry);
        let mut routes = Self::default();
        for path in T::meta().into_iter().flat_map(|api| api.paths) {
            for operation in path.operations {
                for parameter in operation.params {
                    let expected = requirement(&parameter.schema, &registry);
                    let parameters = routes.parameters.entry(path.path.clone()).or_default();
                    parameters.push((operation.method.clone(), parameter.name, expected));
                }
                routes.add(&path.path, operation.method);
            }
        }
        routes
    }

    /// Adds a path that is not in a definition.
    pub fn add(&mut self, path: &str, method: Method) {
        let methods = self.methods.entry(path.to_owned()).or_default();
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
        let mut patterns = self.methods.keys();
        patterns
            .find(|pattern| matches(pattern, path))
            .map(String::as_str)
    }

    /// Returns what a parameter must be, such as "must be an integer from 1 to 200".
    #[must_use]
    pub(crate) fn parameter(&self, path: &str, method: &Method, name: &str) -> Option<&str> {
        let mut matching = self.parameters.iter();
        let (_, parameters) = matching.find(|(pattern, _)| matches(pattern, path))?;
        // Poem handles HEAD as GET.
        let method = if *method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        let mut parameters = parameters.iter();
        let found = parameters.find(|(of, parameter, _)| of == method && parameter == name);
        found.map(|(_, _, expected)| expected.as_str())
    }

    /// Returns the methods of a path.
    #[must_use]
    pub fn allowed(&self, path: &str) -> Vec<Method> {
        let matching = self.methods.iter();
        let matching = matching.filter(|(pattern, _)| matches(pattern, path));
        matching.flat_map(|(_, methods)| methods.clone()).collect()
    }
}

/// Says what a value must be, as its schema declares it.
fn requirement(schema: &MetaSchemaRef, registry: &Registry) -> String {
    let schema = match schema {
        MetaSchemaRef::Inline(schema) => Some(&**schema),
        MetaSchemaRef::Reference(name) => registry.schemas.get(name),
    };
    let Some(schema) = schema else {
        return "is not valid".to_owned();
    };
    let choices: Vec<&str> = schema.enum_items.iter().filter_map(Value::as_str).collect();
    match (schema.ty, schema.format) {
        _ if !choices.is_empty() => format!("must be one of {}", choices.join(", ")),
        ("integer", _) => integer_requirement(schema),
        (_, Some("uuid")) => "must be a UUID".to_owned(),
        (_, Some("date-time")) => "must be an RFC 3339 time".to_owned(),
        _ => match schema.max_length {
            Some(max) => format!("must be text of at most {max} characters"),
            None => format!("must be a valid {}", schema.ty),
        },
    }
}

fn integer_requirement(schema: &MetaSchema) -> String {
    match (schema.minimum, schema.maximum) {
        (Some(min), Some(max)) => format!("must be an integer from {min} to {max}"),
        (Some(min), None) => format!("must be an integer of at least {min}"),
        (None, Some(max)) => format!("must be an integer of at most {max}"),
        (None, None) => "must be an integer".to_owned(),
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

    #[test]
    fn parameters_are_described_by_their_schemas() {
        let routes = crate::api::routes();
        let of_files = |method: Method, name| routes.parameter("/v1/files", &method, name);
        let limit = of_files(Method::GET, "limit");
        assert_eq!(limit, Some("must be an integer from 1 to 200"));
        assert_eq!(of_files(Method::HEAD, "limit"), limit);
        let batch = of_files(Method::GET, "batch_id");
        assert_eq!(batch, Some("must be a UUID"));
        let status = of_files(Method::GET, "status");
        assert_eq!(
            status,
            Some("must be one of uploading, staged, finalizing, stored, failed, deleted")
        );
        assert_eq!(of_files(Method::POST, "limit"), None);
    }
}
