//! The shell commands in documents.

use super::read;
use std::{path::Path, process::Stdio};
use tokio::process::Command;

/// The lines of a document's `sh` blocks.
pub fn commands(document: &str) -> Vec<String> {
    let text = read(document);
    let blocks = text.split("```sh\n").skip(1);
    let lines = blocks.flat_map(|block| block.split("```").next().unwrap_or("").lines());
    lines.map(str::to_owned).collect()
}

/// Runs a command in a folder, with these variables in addition, and returns its output.
pub async fn run(line: &str, folder: &Path, environment: &[(String, String)]) -> String {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", line])
        .current_dir(folder)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null());
    let output = shell.output().await.expect("a shell runs");
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}
