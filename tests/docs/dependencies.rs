//! docs/dependencies.md has a line for each dependency, and for nothing else.

use super::read;
use std::collections::{BTreeMap, BTreeSet};
use toml::{Table, Value};

/// All dependencies of a manifest.
fn dependencies(manifest: &Table) -> BTreeMap<String, Value> {
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let tables = kinds
        .iter()
        .filter_map(|kind| manifest.get(*kind)?.as_table());
    tables.flat_map(Clone::clone).collect()
}

fn manifest(path: &str) -> Table {
    read(path).parse().expect("a manifest is TOML")
}

#[test]
fn every_dependency_and_only_those_has_a_reason() {
    let root = manifest("Cargo.toml");
    let shared = root["workspace"]["dependencies"]
        .as_table()
        .expect("a table");
    let members = root["workspace"]["members"].as_array().expect("a list");
    let members = members.iter().filter_map(Value::as_str);
    let mut used = dependencies(&root);
    for member in members {
        used.extend(dependencies(&manifest(&format!("{member}/Cargo.toml"))));
    }
    let unused: Vec<_> = shared
        .keys()
        .filter(|name| !used.contains_key(*name))
        .collect();
    assert!(
        unused.is_empty(),
        "no crate of the workspace uses {unused:?}"
    );
    let is_ours = |name: &str| {
        let spec = shared.get(name).or_else(|| used.get(name));
        spec.is_some_and(|spec| spec.get("path").is_some())
    };

    let page = read("docs/dependencies.md");
    let mut explained = BTreeSet::new();
    for line in page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| --"))
    {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [names, reason] = cells[..] else {
            panic!("a line has a crate and a reason: {line}");
        };
        if names == "crate" {
            continue;
        }
        assert!(!reason.is_empty(), "{line}");
        for name in names.split(", ") {
            assert!(
                explained.insert(name.to_owned()),
                "{name} is explained twice"
            );
        }
    }
    let unexplained: Vec<_> = used
        .keys()
        .filter(|name| !is_ours(name) && !explained.contains(*name))
        .collect();
    assert!(
        unexplained.is_empty(),
        "docs/dependencies.md does not say why {unexplained:?}"
    );
    let left: Vec<_> = explained
        .iter()
        .filter(|name| !used.contains_key(*name))
        .collect();
    assert!(
        left.is_empty(),
        "docs/dependencies.md explains {left:?}, which nothing uses"
    );
}
