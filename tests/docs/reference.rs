//! Pages generated from the code. `LANDFALL_WRITE_DOCS=1 cargo test --test it docs::reference` rewrites them.

use super::{read, root};
use clap::CommandFactory;
use landfall::cli::Cli;
use landfall_core::config::{Config, ConfigError, ConfigSources, DEFAULTS};
use std::fmt::Write as _;
use toml::{Table, Value};

/// What follows this line of a page is generated.
const MARKER: &str = "<!-- Generated: see tests/docs/reference.rs. -->\n";

const COMMAND: &str = "LANDFALL_WRITE_DOCS=1 cargo test --test it docs::reference";

/// Compares the generated part of a page with the code, or rewrites it.
fn check_page(path: &str, generated: &str) {
    let page = read(path);
    let (head, _) = page.split_once(MARKER).expect("the page has the marker");
    let expected = format!("{head}{MARKER}\n{generated}");
    if std::env::var_os("LANDFALL_WRITE_DOCS").is_some() {
        std::fs::write(root().join(path), expected).expect("the page can be written");
    } else {
        assert!(page == expected, "{path} is out of date; run {COMMAND}");
    }
}

/// A setting of config.toml.
struct Setting {
    key: String,
    default: Value,
    comment: String,
    /// The S3 settings have a second name in the environment.
    variable: Option<String>,
}

/// A section of config.toml.
struct Section {
    name: String,
    comment: String,
    settings: Vec<Setting>,
}

fn default_value(section: &str, key: &str) -> Value {
    let table: Table = DEFAULTS.parse().expect("config.toml is TOML");
    let path = section
        .split('.')
        .chain([key])
        .filter(|name| !name.is_empty());
    path.fold(Value::Table(table), |value, name| value[name].clone())
}

/// Reads config.toml with its comments. A setting without one shares that of the line before.
fn sections() -> Vec<Section> {
    let mut sections = vec![Section {
        name: String::new(),
        comment: String::new(),
        settings: Vec::new(),
    }];
    let mut comment: Vec<String> = Vec::new();
    for line in DEFAULTS.lines() {
        if let Some(text) = line.strip_prefix('#') {
            comment.push(text.trim().to_owned());
        } else if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            sections.push(Section {
                name: name.to_owned(),
                comment: comment.join(" "),
                settings: Vec::new(),
            });
            comment.clear();
        } else if let Some((key, rest)) = line.split_once(" = ") {
            let section = sections.last_mut().expect("a section");
            let last = section.settings.last();
            if comment.is_empty() {
                comment.extend(last.map(|last| last.comment.clone()));
            }
            let setting = Setting {
                key: key.to_owned(),
                default: default_value(&section.name, key),
                comment: comment.join(" "),
                variable: rest
                    .split_once(" # ")
                    .map(|(_, name)| name.trim().to_owned()),
            };
            section.settings.push(setting);
            comment.clear();
        } else {
            assert!(line.is_empty(), "{line}");
            comment.clear();
        }
    }
    sections
}

/// What a setting accepts, from the error that a value nothing accepts is rejected with.
fn accepted(key: &str, variable: &str) -> String {
    let sources = ConfigSources {
        file: None,
        environment: vec![(variable.to_owned(), "\u{1}".to_owned())],
    };
    let Err(ConfigError::Faults(faults)) = Config::load(sources) else {
        return "text".to_owned();
    };
    let fault = faults
        .iter()
        .find(|fault| fault.key == key)
        .expect("a fault");
    let (_, allowed) = fault
        .problem
        .split_once("allowed is ")
        .expect("what is allowed");
    allowed.to_owned()
}

fn without_examples(allowed: &str) -> String {
    let examples = [
        " such as `500ms`, `30s`, `5m` or `24h`",
        " such as `64KiB`, `8MiB` or `5GiB`",
    ];
    examples.iter().fold(allowed.to_owned(), |text, examples| {
        text.replace(examples, "")
    })
}

/// Text of a comment as Markdown. Code spans are left as they are.
fn escaped(comment: &str) -> String {
    let pieces = comment
        .split('`')
        .enumerate()
        .map(|(at, piece)| match at % 2 {
            0 => piece.replace('*', "\\*").replace('<', "\\<"),
            _ => format!("`{piece}`"),
        });
    pieces.collect()
}

fn settings_page() -> String {
    let sections = sections();
    let mut page = String::new();
    for section in &sections {
        if !section.name.is_empty() {
            write!(page, "## `[{}]`\n\n", section.name).expect("text");
            if !section.comment.is_empty() {
                write!(page, "{}\n\n", escaped(&section.comment)).expect("text");
            }
        }
        for setting in &section.settings {
            let separator = if section.name.is_empty() { "" } else { "." };
            let key = format!("{}{separator}{}", section.name, setting.key);
            let variable = format!("LANDFALL__{}", key.to_uppercase().replace('.', "__"));
            let allowed = match accepted(&key, &variable) {
                text if text == "text" && setting.default.is_array() => "a list of text".to_owned(),
                allowed => without_examples(&allowed),
            };
            // A section without comments repeats the keys of an earlier one.
            let same = |other: &&Setting| other.key == setting.key && !other.comment.is_empty();
            let comment = match setting.comment.as_str() {
                "" => {
                    &sections
                        .iter()
                        .flat_map(|other| &other.settings)
                        .find(same)
                        .expect("a comment")
                        .comment
                }
                comment => comment,
            };
            let default = match &setting.default {
                Value::String(text) if text.is_empty() => "empty".to_owned(),
                Value::Array(items) if items.is_empty() => "empty".to_owned(),
                default => format!("`{default}`"),
            };
            let variables = match &setting.variable {
                Some(name) => format!("`{name}` or `{variable}`"),
                None => format!("`{variable}`"),
            };
            write!(
                page,
                "### `{key}`\n\n{}\n\n- Value: {allowed}\n- Default: {default}\n- Environment: {variables}\n\n",
                escaped(comment)
            )
            .expect("text");
        }
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

#[test]
fn settings_page_agrees_with_the_code() {
    check_page("docs/settings.md", &settings_page());
}

/// Environment variables of the process that runs this are not shown.
fn without_environment_values(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|argument| argument.hide_env_values(true));
    command.mut_subcommands(without_environment_values)
}

/// Appends what `--help` prints for a command and those below it.
fn write_help(command: &clap::Command, path: &[&str], page: &mut String) {
    let path = [path, &[command.get_name()]].concat();
    let arguments = path.iter().chain([&"--help"]);
    let help = without_environment_values(Cli::command()).try_get_matches_from(arguments);
    let help = help.expect_err("help is printed").to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    write!(
        page,
        "## `{}`\n\n```text\n{}\n```\n\n",
        path.join(" "),
        help.join("\n").trim()
    )
    .expect("text");
    for inner in command.get_subcommands() {
        write_help(inner, &path, page);
    }
}

fn command_line_page() -> String {
    let mut page = String::new();
    write_help(&Cli::command(), &[], &mut page);
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

#[test]
fn command_line_page_agrees_with_the_code() {
    check_page("docs/command-line.md", &command_line_page());
}
