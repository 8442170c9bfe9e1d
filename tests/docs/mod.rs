//! Compares the documents with the code.

mod book;
mod compose;
mod dependencies;
mod getting_started;
mod operations;
mod readme;
mod reference;
mod shell;
mod snippets;

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    let path: PathBuf = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
