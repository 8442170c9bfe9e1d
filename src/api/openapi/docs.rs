//! `/docs`: the definition in `/openapi.json` as a readable page, without scripts or external resources.

use crate::api::mount::RewriteLinks;
use http::header;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use poem::Response;
use serde_json::Value;

const STYLE: &str = include_str!("docs.css");

/// Content-Security-Policy: the page may load nothing but its inline style.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Returns the page as a response.
#[must_use]
pub(in crate::api) fn response(page: &str) -> Response {
    Response::builder()
        .content_type("text/html; charset=utf-8")
        .header(header::CONTENT_SECURITY_POLICY, POLICY)
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .extension(RewriteLinks)
        .body(page.to_owned())
}

/// Renders a definition as a page.
#[must_use]
pub(in crate::api) fn render(spec: &Value) -> String {
    let paths = spec["paths"].as_object();
    let schemas = spec["components"]["schemas"].as_object();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Landfall API" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    h1 { "Landfall API " small { (text(&spec["info"]["version"])) } }
                    p { (prose(&spec["info"]["description"])) }
                    p { "Machine-readable: " a href="/openapi.json" { "/openapi.json" } "." }
                    @for (path, methods) in paths.into_iter().flatten() {
                        @for (method, operation) in methods.as_object().into_iter().flatten() {
                            (operation_of(path, method, operation))
                        }
                    }
                    (problems(&spec["components"]["examples"]))
                    h2 { "Types" }
                    @for (name, schema) in schemas.into_iter().flatten() {
                        section id={ "type-" (name) } {
                            h3 { (name) }
                            p { (prose(&schema["description"])) }
                            (properties(schema))
                        }
                    }
                }
            }
        }
    };
    page.into_string()
}

fn operation_of(path: &str, method: &str, operation: &Value) -> Markup {
    let parameters = operation["parameters"].as_array();
    let responses = operation["responses"].as_object();
    html! {
        section id=(text(&operation["operationId"])) {
            h2 { span.method { (method.to_uppercase()) } " " code { (path) } }
            p { strong { (prose(&operation["summary"])) } }
            @if !text(&operation["description"]).is_empty() { p { (prose(&operation["description"])) } }
            @if parameters.is_some_and(|list| !list.is_empty()) {
                table {
                    thead { tr { th scope="col" { "Parameter" } th scope="col" { "In" } th scope="col" { "Type" } th scope="col" { "Meaning" } } }
                    tbody {
                        @for parameter in parameters.into_iter().flatten() {
                            tr {
                                td { code { (text(&parameter["name"])) } }
                                td { (text(&parameter["in"])) }
                                td { (detect_type(&parameter["schema"])) }
                                td { (prose(&parameter["description"])) }
                            }
                        }
                    }
                }
            }
            @for (kind, body) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
                p { "Body " code { (kind) } ": " (detect_type(&body["schema"])) }
                @if body["schema"]["properties"].is_object() { (properties(&body["schema"])) }
            }
            ul {
                @for (status, response) in responses.into_iter().flatten() {
                    li {
                        code { (status) } " " (prose(&response["description"])) " "
                        @for (_, body) in response["content"].as_object().into_iter().flatten() {
                            (detect_type(&body["schema"])) " "
                        }
                    }
                }
            }
        }
    }
}

/// Lists every problem code with an example.
fn problems(examples: &Value) -> Markup {
    html! {
        h2 #problems { "Problems" }
        table {
            thead { tr { th scope="col" { "Code" } th scope="col" { "Status" } th scope="col" { "Title" } th scope="col" { "For example" } } }
            tbody {
                @for (code, example) in examples.as_object().into_iter().flatten() {
                    tr {
                        td { code { (code) } }
                        td { (example["value"]["status"]) }
                        td { (text(&example["value"]["title"])) }
                        td { (prose(&example["value"]["detail"])) }
                    }
                }
            }
        }
    }
}

fn properties(schema: &Value) -> Markup {
    let required = schema["required"].as_array();
    let is_required =
        |name: &str| required.is_some_and(|list| list.iter().any(|field| field == name));
    html! {
        @if let Some(fields) = schema["properties"].as_object() {
            table {
                thead { tr { th scope="col" { "Field" } th scope="col" { "Type" } th scope="col" { "Meaning" } } }
                tbody {
                    @for (name, field) in fields {
                        tr {
                            td { code { (name) } @if is_required(name) { " *" } }
                            td { (detect_type(field)) }
                            td { (prose(&field["description"])) }
                        }
                    }
                }
            }
        }
        @if let Some(words) = schema["enum"].as_array() {
            p { @for word in words { code { (text(word)) } " " } }
        }
        @if schema["example"].is_object() {
            pre { (serde_json::to_string_pretty(&schema["example"]).unwrap_or_default()) }
        }
    }
}

fn detect_type(schema: &Value) -> Markup {
    let reference = schema["$ref"]
        .as_str()
        .or_else(|| schema["allOf"][0]["$ref"].as_str());
    if let Some(name) = reference.and_then(|reference| reference.rsplit('/').next()) {
        return html! { a href={ "#type-" (name) } { (name) } };
    }
    if schema["type"] == "array" {
        return html! { "list of " (detect_type(&schema["items"])) };
    }
    html! {
        @match schema["type"].as_str() {
            Some(kind) => (kind),
            None => "any",
        }
        @if let Some(format) = schema["format"].as_str() { " (" (format) ")" }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// Renders text: what is between backticks is code (CommonMark, "Code spans"). An unpaired backtick is kept.
fn prose(value: &Value) -> Markup {
    let pieces: Vec<&str> = text(value).split('`').collect();
    html! {
        @for (at, piece) in pieces.iter().enumerate() {
            @if at % 2 == 0 { (piece) }
            @else if at + 1 < pieces.len() { code { (piece) } }
            @else { "`" (piece) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_backticks_is_code() {
        let rendered = |text: &str| prose(&text.into()).into_string();
        let found = rendered("Send `a<b`, or `c`.");
        assert_eq!(found, "Send <code>a&lt;b</code>, or <code>c</code>.");
        assert_eq!(rendered("one ` alone"), "one ` alone");
        assert_eq!(rendered(""), "");
    }
}
