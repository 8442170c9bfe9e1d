//! Empty query parameters: a form sends `?status=` for no filter.

use http::{Method, Uri};

/// Removes empty parameters from the URI of a GET.
pub(super) fn without_empty_parameters(method: &Method, uri: &Uri) -> Option<Uri> {
    let query = uri.query()?;
    let empty = |pair: &str| {
        pair.split_once('=')
            .is_none_or(|(_, value)| value.is_empty())
    };
    if !method.is_safe() || !query.split('&').any(empty) {
        return None;
    }
    let kept: Vec<&str> = query.split('&').filter(|pair| !empty(pair)).collect();
    let target = match kept.is_empty() {
        true => uri.path().to_owned(),
        false => format!("{}?{}", uri.path(), kept.join("&")),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.parse().ok()?);
    Uri::from_parts(parts).ok()
}
