//! The command line, as a person and a script see it: against a really running server, by what it prints and its
//! exit status.

mod admin;
mod check;
mod listings;
mod measuring;
mod uploading;
mod webhooks;

use crate::support::{
    Installation, TestApp,
    process::{binary, program as program_in},
};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The output and exit status of a command.
#[derive(Debug)]
struct CommandOutput {
    status: i32,
    stdout: String,
    stderr: String,
}

impl CommandOutput {
    async fn of(arguments: &[&str], environment: &[(String, String)]) -> Self {
        Self::run_program(&binary(), arguments, environment).await
    }

    async fn run_program(
        program: &Path,
        arguments: &[&str],
        environment: &[(String, String)],
    ) -> Self {
        let output = program_in(program, environment)
            .args(arguments)
            .output()
            .await;
        let output = output.expect("the program runs");
        Self {
            status: output.status.code().expect("it ends by itself"),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }

    /// Returns the standard output; asserts success and no errors.
    fn done(self) -> String {
        assert_eq!(self.status, 0, "{self:?}");
        assert_eq!(self.stderr, "", "nothing but the answer");
        self.stdout
    }

    /// The same in JSON.
    fn json(self) -> Value {
        let text = self.done();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"))
    }

    /// Returns the standard error; asserts status 1 and no output.
    fn failed(self) -> String {
        assert_eq!(self.status, 1, "{self:?}");
        assert_eq!(self.stdout, "", "there is no answer");
        self.stderr
    }

    /// Standard error of a command that was called wrongly.
    fn misused(self) -> String {
        assert_eq!(self.status, 2, "{self:?}");
        assert_eq!(self.stdout, "", "there is no answer");
        self.stderr
    }
}

/// A client of a server, with a folder for its files and its memory.
#[derive(Debug)]
struct Client {
    environment: Vec<(String, String)>,
    folder: TempDir,
}

impl Client {
    fn of(app: &TestApp) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state").display().to_string();
        let environment = vec![
            ("LANDFALL_URL".to_owned(), app.url.clone()),
            ("XDG_STATE_HOME".to_owned(), state),
        ];
        Self {
            environment,
            folder,
        }
    }

    async fn run(&self, arguments: &[&str]) -> CommandOutput {
        CommandOutput::of(arguments, &self.environment).await
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path: PathBuf = self.folder.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        path.display().to_string()
    }
}

/// A command that works from the settings.
async fn configured(installation: &Installation, arguments: &[&str]) -> CommandOutput {
    CommandOutput::of(arguments, &installation.environment()).await
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}
