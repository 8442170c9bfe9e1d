//! Files of many formats, made by a program that knows them, declared as browsers, phones, curl, Windows and Linux
//! declare them: each is taken in where its type is, whatever name that goes by, and none passes for an image.

use landfall_core::{
    config::{Config, ConfigSources, UploadsConfig},
    media_policy::{HeadExtent, MediaPolicyError, UNKNOWN, judge, require_declared},
};
use serde::Deserialize;
use std::{path::PathBuf, process::Command};

/// What the issue of formats is about: fewer would leave some kind out.
const AT_LEAST: usize = 60;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/content/formats.py");

#[derive(Debug, Deserialize)]
struct Made {
    path: PathBuf,
    name: String,
    declared: Vec<String>,
    /// What is found out of it when nothing is declared; none where several names are as right.
    found: Option<String>,
}

impl Made {
    fn head(&self) -> Vec<u8> {
        let mut bytes = std::fs::read(&self.path).expect("the file was made");
        bytes.truncate(
            usize::try_from(landfall_core::media_policy::MAX_HEAD_LEN).expect("it is small"),
        );
        bytes
    }
}

fn made() -> (tempfile::TempDir, Vec<Made>) {
    let folder = tempfile::tempdir().expect("a folder");
    let python = std::env::var("LANDFALL_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let output = Command::new(python).arg(SCRIPT).arg(folder.path()).output();
    let output = output.expect("Python 3 runs; install it, or name one by LANDFALL_TEST_PYTHON");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let made: Vec<Made> = serde_json::from_slice(&output.stdout).expect("a list");
    assert!(made.len() >= AT_LEAST, "{} formats", made.len());
    (folder, made)
}

fn lists(allowed: &[&str], denied: &[&str]) -> UploadsConfig {
    let owned = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect();
    let config = Config::load(ConfigSources::default()).expect("the defaults are allowed");
    UploadsConfig {
        allowed_types: owned(allowed),
        denied_types: owned(denied),
        ..config.uploads
    }
}

fn judged(lists: &UploadsConfig, file: &Made, declared: &str) -> Result<String, MediaPolicyError> {
    require_declared(lists, &file.name, declared)?;
    judge(lists, &file.name, declared, &file.head(), HeadExtent::All)
}

#[test]
fn every_format_is_taken_in_as_what_clients_declare_it() {
    let (_folder, made) = made();
    let mut wrong = Vec::new();
    for file in &made {
        for declared in &file.declared {
            for allowed in &file.declared {
                let one_format = judged(&lists(&[declared], &[]), file, declared);
                if one_format.as_ref() != Ok(declared) {
                    wrong.push(format!("{} as {declared}: {one_format:?}", file.name));
                }
                // A list says the format by one of its names, if they are names of one.
                let other_name = judged(&lists(&[allowed], &[]), file, declared);
                if let Err(error @ MediaPolicyError::Bytes { .. }) = other_name {
                    wrong.push(format!("{} as {declared}: {error}", file.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn formats_are_found_where_none_is_declared() {
    let (_folder, made) = made();
    let all = lists(&[], &[]);
    let mut wrong = Vec::new();
    for file in &made {
        let found = judged(&all, file, UNKNOWN).expect("all is taken in");
        if let Some(right) = &file.found
            && found != *right
        {
            wrong.push(format!("{}: {found}, not {right}", file.name));
        }
        let allowed = judged(&lists(&[&found], &[]), file, UNKNOWN);
        if allowed.as_ref() != Ok(&found) {
            wrong.push(format!(
                "{} where {found} is taken in: {allowed:?}",
                file.name
            ));
        }
        let is_one = |declared: &String| judged(&lists(&[declared], &[]), file, UNKNOWN).is_ok();
        if file.found.is_some() && !file.declared.iter().any(is_one) {
            wrong.push(format!(
                "{} is {found}, which is none of {:?}",
                file.name, file.declared
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_else_passes_for_an_image() {
    let (_folder, made) = made();
    let images = lists(&["image/*"], &[]);
    for file in &made {
        let is_image = file
            .declared
            .iter()
            .any(|declared| declared.starts_with("image/"));
        for posing in ["image/png", "image/jpeg", "image/gif", "image/webp"] {
            let taken = judged(&images, file, posing).is_ok();
            assert!(!taken || is_image, "{} passes for {posing}", file.name);
        }
        let undeclared = judged(&images, file, UNKNOWN).is_ok();
        assert!(!undeclared || is_image, "{} passes for an image", file.name);
    }
}

#[test]
fn programs_are_caught_whatever_they_are_declared_as() {
    let (_folder, made) = made();
    let denied = lists(
        &[],
        &["application/x-msdownload", "application/x-executable"],
    );
    for file in &made {
        let is_program = ["program", "setup.exe"].contains(&file.name.as_str());
        for declared in [
            "image/png",
            "text/csv",
            "application/zip",
            "application/x-own",
            UNKNOWN,
        ] {
            let judged = judged(&denied, file, declared);
            assert_eq!(
                judged.is_err(),
                is_program,
                "{} as {declared}: {judged:?}",
                file.name
            );
        }
    }
}
