//! Alerts and their runbooks, and the commands in the documents.

use super::{read, root};
use clap::Parser;
use landfall::cli::Cli;
use landfall_core::config::DEFAULTS;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};
use toml::{Table, Value};

const ALERTS: &str = "examples/monitoring/alerts.yaml";
const RUNBOOKS: &str = "https://github.com/landfall-project/landfall/blob/main/docs/runbooks.md#";

#[test]
fn every_alert_has_a_runbook() {
    let alerts = read(ALERTS);
    let runbooks = read("docs/runbooks.md");
    let names: Vec<&str> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(names.len() > 10, "{names:?}");
    for name in &names {
        assert!(runbooks.contains(&format!("\n## {name}\n")), "{name}");
        let url = format!("runbook_url: {RUNBOOKS}{}", name.to_lowercase());
        assert!(alerts.contains(&url), "{name} links to its runbook");
    }
    let sections = runbooks
        .lines()
        .filter_map(|line| line.strip_prefix("## Landfall"));
    assert_eq!(sections.count(), names.len(), "no runbook is left over");
}

/// Markdown, configuration and scripts that people read.
fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let is_document = ["md", "yaml", "service", "conf", "toml"]
            .iter()
            .any(|extension| path.extension().is_some_and(|found| found == *extension));
        if path.is_dir() {
            documents(&path, found);
        } else if is_document {
            found.push(path);
        }
    }
}

/// The documents that operators read.
fn all_documents() -> Vec<PathBuf> {
    let mut files = vec![root().join("README.md"), root().join("compose.yaml")];
    for folder in ["docs", "deploy", "examples"] {
        documents(&root().join(folder), &mut files);
    }
    files
}

/// The commands of a document: code spans, and lines that start the program.
fn commands(text: &str) -> impl Iterator<Item = &str> {
    let spans = text.split('`').skip(1).step_by(2);
    let spans = spans.filter(|span| span.starts_with("landfall ") && !span.contains('\n'));
    let lines = text.lines().filter_map(|line| {
        let line = line.trim_start_matches(['#', ' ']);
        line.strip_prefix("ExecStart=/usr/local/bin/")
            .or_else(|| line.strip_prefix("docker compose exec api "))
    });
    spans.chain(lines)
}

/// Whether a word is a placeholder: `FILE`, `[--json]`, `…`.
fn is_placeholder(word: &str) -> bool {
    word.contains(['[', '…', '|', '<', '$']) || word.chars().any(|c| c.is_ascii_uppercase())
}

#[test]
fn every_command_in_a_document_can_be_run() {
    use clap::error::ErrorKind::{
        DisplayHelpOnMissingArgumentOrSubcommand, MissingRequiredArgument, MissingSubcommand,
    };
    let mut checked = 0;
    for file in all_documents() {
        let text = std::fs::read_to_string(&file).expect("text");
        for command in commands(&text) {
            let words: Vec<&str> = command.split_whitespace().collect();
            if words.iter().any(|word| is_placeholder(word)) {
                continue;
            }
            checked += 1;
            let Err(error) = Cli::try_parse_from(&words) else {
                continue;
            };
            // A sentence may name a command without its arguments.
            let is_named = matches!(
                error.kind(),
                MissingRequiredArgument
                    | MissingSubcommand
                    | DisplayHelpOnMissingArgumentOrSubcommand
            );
            let is_line = !text.contains(&format!("`{command}`"));
            assert!(
                is_named && !is_line,
                "{}: {command}: {error}",
                file.display()
            );
        }
    }
    assert!(checked > 20, "{checked} commands were found");
}

/// The names in a text that start with a prefix and continue with letters, digits and underscores.
fn names<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(prefix).map(|(at, _)| {
        let name = &text[at..];
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        &name[..end.unwrap_or(name.len())]
    })
}

#[test]
fn every_variable_in_a_document_is_a_setting() {
    let defaults: Table = DEFAULTS.parse().expect("config.toml is TOML");
    let is_setting = |name: &str| {
        let path = name.strip_prefix("LANDFALL__")?.to_lowercase();
        let mut value = Value::Table(defaults.clone());
        for key in path.split("__") {
            value = value.get(key)?.clone();
        }
        (!value.is_table()).then_some(())
    };
    let mut checked = BTreeSet::new();
    for file in all_documents() {
        let text = std::fs::read_to_string(&file).expect("text");
        for name in names(&text, "LANDFALL__") {
            // `LANDFALL__SECTION__KEY` explains how the names are made.
            if name == "LANDFALL__SECTION__KEY" {
                continue;
            }
            let of_a_file = name.strip_suffix("_FILE");
            let is_known = is_setting(name).or_else(|| is_setting(of_a_file?));
            assert!(is_known.is_some(), "{}: {name}", file.display());
            checked.insert(name.to_owned());
        }
    }
    assert!(checked.len() > 50, "{checked:?}");
}

#[test]
fn deployments_scale_on_documented_metrics() {
    let keda = read("deploy/kubernetes/keda.yaml");
    let metrics: Vec<_> = names(&keda, "landfall_").collect();
    assert!(!metrics.is_empty());
    let page = read("docs/metrics.md");
    for metric in metrics {
        assert!(page.contains(&format!("| `{metric}` |")), "{metric}");
    }
}
