//! The book's table of contents, and the links of every document.

use super::{read, root};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
};

const REPOSITORY: &str = "https://github.com/landfall-project/landfall/";

/// Documents in the root folder whose links are checked, besides those in `docs/`.
const ROOT_DOCUMENTS: [&str; 5] = [
    "README.md",
    "CONTRIBUTING.md",
    "ARCHITECTURE.md",
    "SECURITY.md",
    "CHANGELOG.md",
];

/// Every page of `docs/`, relative to the root.
fn pages() -> BTreeSet<String> {
    fn walk(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let relative = path.strip_prefix(root()).expect("a file below the root");
                found.insert(relative.display().to_string());
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(&root().join("docs"), &mut found);
    found
}

/// The text without code: fenced blocks become empty lines, and code spans in the text become spaces.
fn without_code(text: &str) -> String {
    let mut is_fenced = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        } else if !is_fenced {
            for (at, piece) in line.split('`').enumerate() {
                prose.push_str(if at % 2 == 0 { piece } else { " " });
            }
        }
        prose.push('\n');
    }
    assert!(!is_fenced, "a code block is not closed");
    prose
}

/// The targets of inline links and images, and of reference definitions.
fn targets(text: &str) -> Vec<String> {
    let prose = without_code(text);
    let inline = prose.split("](").skip(1).filter_map(|rest| {
        let target = rest.split(')').next()?;
        Some(target.split_whitespace().next()?.to_owned())
    });
    let definitions = prose.lines().filter_map(|line| {
        let (_, target) = line.strip_prefix('[')?.split_once("]: ")?;
        Some(target.trim().to_owned())
    });
    inline.chain(definitions).collect()
}

/// The anchors of a page's headings, as mdBook and GitHub derive them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut found = BTreeSet::new();
    let mut is_fenced = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_fenced = !is_fenced;
        }
        let level = line.chars().take_while(|c| *c == '#').count();
        if is_fenced || level == 0 || !line[level..].starts_with(' ') {
            continue;
        }
        let slug: String = line[level..]
            .trim()
            .chars()
            .filter_map(|c| match c {
                c if c.is_alphanumeric() || c == '_' || c == '-' => Some(c.to_ascii_lowercase()),
                c if c.is_whitespace() => Some('-'),
                _ => None,
            })
            .collect();
        let count = seen.entry(slug.clone()).or_default();
        found.insert(match *count {
            0 => slug,
            n => format!("{slug}-{n}"),
        });
        *count += 1;
    }
    found
}

/// Resolves `.` and `..`; returns `None` for a path that leaves the repository.
fn normalized(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for piece in path.components() {
        match piece {
            std::path::Component::ParentDir => {
                if !out.pop() {
                    return None;
                }
            }
            std::path::Component::CurDir => {}
            other => out.push(other),
        }
    }
    Some(out)
}

/// What is wrong with a link of a page, if anything.
fn problem(page: &str, target: &str) -> Option<String> {
    let (path, anchor) = match target.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (target, None),
    };
    let is_book_page = page.starts_with("docs/");
    let file = if let Some(rest) = path.strip_prefix(REPOSITORY) {
        let path = rest
            .strip_prefix("blob/main/")
            .or_else(|| rest.strip_prefix("tree/main/"));
        // Other pages of the project's site, such as its issues.
        PathBuf::from(path?)
    } else if path.contains("://") || path.starts_with("mailto:") {
        return None;
    } else if path.is_empty() {
        PathBuf::from(page)
    } else {
        let folder = Path::new(page).parent().expect("a page is in a folder");
        let Some(file) = normalized(&folder.join(path)) else {
            return Some("leaves the repository".to_owned());
        };
        if is_book_page && !file.starts_with("docs") {
            return Some(format!(
                "leaves the book; write {REPOSITORY}blob/main/{}",
                file.display()
            ));
        }
        file
    };
    if !root().join(&file).exists() {
        return Some("does not exist".to_owned());
    }
    let anchor = anchor.filter(|_| file.extension().is_some_and(|extension| extension == "md"))?;
    let is_there = anchors(&read(&file.display().to_string())).contains(anchor);
    (!is_there).then(|| format!("{} has no heading #{anchor}", file.display()))
}

#[test]
fn every_link_of_the_documents_resolves() {
    let mut checked = 0;
    let mut problems = Vec::new();
    let documents = pages().into_iter().chain(ROOT_DOCUMENTS.map(str::to_owned));
    for page in documents {
        for target in targets(&read(&page)) {
            checked += 1;
            if let Some(problem) = problem(&page, &target) {
                problems.push(format!("{page}: {target}: {problem}"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(checked > 100, "{checked} links were found");
}

#[test]
fn every_included_file_exists() {
    let mut checked = 0;
    for page in pages() {
        let text = read(&page);
        for directive in text.split("{{#include ").skip(1) {
            let path = directive.split(['}', ':']).next().expect("a path");
            let included = root().join("docs").join(path.trim());
            assert!(included.is_file(), "{page} includes {path}");
            checked += 1;
        }
    }
    assert!(checked > 5, "{checked} included files were found");
}

#[test]
fn table_of_contents_lists_every_page_once() {
    let mut listed: BTreeMap<String, usize> = BTreeMap::new();
    for target in targets(&read("docs/SUMMARY.md")) {
        *listed.entry(format!("docs/{target}")).or_default() += 1;
    }
    let twice: Vec<_> = listed.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let mut expected = pages();
    assert!(expected.remove("docs/SUMMARY.md"));
    let listed: BTreeSet<String> = listed.into_keys().collect();
    let missing: Vec<_> = expected.difference(&listed).collect();
    assert!(
        missing.is_empty(),
        "docs/SUMMARY.md does not list {missing:?}"
    );
    assert_eq!(listed, expected);
}
