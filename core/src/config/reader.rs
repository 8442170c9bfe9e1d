//! Reads settings by their key from three layers and collects every fault, so that one start shows them all.

use super::{DEFAULTS, s3::ENVIRONMENT_NAMES, values::Setting};
use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};
use toml::{Table, Value};

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file given with `--config`.
    pub file: Option<PathBuf>,
    /// The environment; only `LANDFALL__…` and the eight S3 names are looked at.
    pub environment: Vec<(String, String)>,
}

impl Sources {
    /// The file, if any, and this process's environment.
    #[must_use]
    pub fn process(file: Option<PathBuf>) -> Self {
        Self {
            file,
            environment: std::env::vars().collect(),
        }
    }
}

/// One setting that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key, `section.key`.
    pub key: String,
    /// What is wrong and what is allowed.
    pub problem: String,
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {path}")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the configuration file {path} is not TOML")]
    NotToml {
        path: PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
    #[error("{}", Listed(.0))]
    Faults(Vec<Fault>),
}

struct Listed<'a>(&'a [Fault]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the configuration has {} fault{}:",
            self.0.len(),
            if self.0.len() == 1 { "" } else { "s" }
        )?;
        for fault in self.0 {
            write!(f, "\n  {}: {}", fault.key, fault.problem)?;
        }
        Ok(())
    }
}

/// A value and the layer it stands in, to be named when it is wrong.
struct Layered {
    value: Value,
    origin: String,
}

pub(super) struct Reader {
    defaults: BTreeMap<String, Value>,
    given: BTreeMap<String, Layered>,
    faults: Vec<Fault>,
}

impl Reader {
    pub(super) fn new(sources: Sources) -> Result<Self, ConfigError> {
        let defaults: Table = DEFAULTS.parse().expect("the built-in config.toml is TOML");
        let mut reader = Self {
            defaults: leaves(&defaults),
            given: BTreeMap::new(),
            faults: Vec::new(),
        };
        if let Some(path) = sources.file {
            let text =
                std::fs::read_to_string(&path).map_err(|source| ConfigError::Unreadable {
                    path: path.clone(),
                    source,
                })?;
            let table: Table = text.parse().map_err(|source| ConfigError::NotToml {
                path: path.clone(),
                source: Box::new(source),
            })?;
            for (key, value) in leaves(&table) {
                reader.give(key.clone(), key, value, format!("in {}", path.display()));
            }
        }
        // The generic names first: the eight known ones are the more particular, and win.
        for (name, text) in &sources.environment {
            if let Some(rest) = name.strip_prefix("LANDFALL__") {
                let key = rest.to_ascii_lowercase().replace("__", ".");
                reader.give(
                    key,
                    name.clone(),
                    Value::String(text.clone()),
                    format!("in the environment as {name}"),
                );
            }
        }
        for (name, text) in &sources.environment {
            if let Some((_, key)) = ENVIRONMENT_NAMES.iter().find(|(known, _)| known == name) {
                let origin = format!("in the environment as {name}");
                reader.give(
                    (*key).to_owned(),
                    name.clone(),
                    Value::String(text.clone()),
                    origin,
                );
            }
        }
        Ok(reader)
    }

    fn give(&mut self, key: String, name: String, value: Value, origin: String) {
        if self.defaults.contains_key(&key) {
            self.given.insert(key, Layered { value, origin });
        } else {
            let nearest = self
                .defaults
                .keys()
                .map(|known| (strsim::damerau_levenshtein(known, &key), known))
                .min()
                .filter(|(distance, _)| *distance <= 4)
                .map(|(_, known)| format!("; did you mean {known}?"))
                .unwrap_or_default();
            self.faults.push(Fault {
                key: name,
                problem: format!("no such setting ({origin}){nearest}"),
            });
        }
    }

    /// The setting, or its default with a fault noted when what was given is not allowed.
    pub(super) fn get<T: Setting>(&mut self, key: &str) -> T {
        self.read(key, T::read, T::ALLOWED)
    }

    /// The setting, with the empty text meaning none.
    pub(super) fn optional<T: Setting>(&mut self, key: &str) -> Option<T> {
        let none_or = |value: &Value| match value.as_str() {
            Some("") => Some(None),
            _ => T::read(value).map(Some),
        };
        self.read(key, none_or, T::ALLOWED)
    }

    /// A list: an array, or in the environment a text separated by commas.
    pub(super) fn list<T: Setting>(&mut self, key: &str) -> Vec<T> {
        let items = |value: &Value| match value {
            Value::Array(items) => items.iter().map(T::read).collect(),
            Value::String(text) => text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| T::read(&Value::String(item.to_owned())))
                .collect(),
            _ => None,
        };
        self.read(key, items, &format!("a list, each {}", T::ALLOWED))
    }

    /// A setting with bounds, both allowed.
    pub(super) fn within<T>(&mut self, key: &str, least: T, most: T) -> T
    where
        T: Setting + PartialOrd + fmt::Debug,
    {
        let allowed = format!("{} from {} to {}", T::ALLOWED, Bound(&least), Bound(&most));
        self.read(
            key,
            |value| T::read(value).filter(|read| *read >= least && *read <= most),
            &allowed,
        )
    }

    /// A duration that must not be shorter.
    pub(super) fn at_least(&mut self, key: &str, least: Duration) -> Duration {
        let allowed = format!(
            "{}, at least {}",
            Duration::ALLOWED,
            humantime::format_duration(least)
        );
        self.read(
            key,
            |value| Duration::read(value).filter(|read| *read >= least),
            &allowed,
        )
    }

    /// A name fit for keys of Redis: letters, digits, `-`, `_`, `.`, `:`.
    pub(super) fn name(&mut self, key: &str) -> String {
        let fit = |value: &Value| {
            String::read(value).filter(|text| {
                !text.is_empty()
                    && text
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c))
            })
        };
        self.read(key, fit, "letters, digits, `-`, `_`, `.` and `:`")
    }

    fn read<T>(&mut self, key: &str, read: impl Fn(&Value) -> Option<T>, allowed: &str) -> T {
        if let Some(given) = self.given.get(key) {
            if let Some(value) = read(&given.value) {
                return value;
            }
            let shown = if key.contains("secret") || key.ends_with(".url") {
                "the value".to_owned()
            } else {
                format!(
                    "`{}`",
                    given
                        .value
                        .as_str()
                        .map_or_else(|| given.value.to_string(), str::to_owned)
                )
            };
            let problem = format!(
                "{shown} ({}) is not allowed; allowed is {allowed}",
                given.origin
            );
            self.faults.push(Fault {
                key: key.to_owned(),
                problem,
            });
        }
        let default = self
            .defaults
            .get(key)
            .unwrap_or_else(|| panic!("config.toml has no default for {key}"));
        read(default)
            .unwrap_or_else(|| panic!("the default of {key} in config.toml is not allowed"))
    }

    /// Notes a fault that only shows beside another setting.
    pub(super) fn fault(&mut self, key: &str, allowed: &str) {
        let origin = self
            .given
            .get(key)
            .map_or("the default".to_owned(), |given| given.origin.clone());
        self.faults.push(Fault {
            key: key.to_owned(),
            problem: format!("its value ({origin}) is not allowed; allowed is {allowed}"),
        });
    }

    /// Notes a setting that has no default and was not given, by both its names.
    pub(super) fn missing(&mut self, key: &str, why: &str) {
        let name = ENVIRONMENT_NAMES
            .iter()
            .find(|(_, known)| *known == key)
            .map_or_else(String::new, |(name, _)| {
                format!(" (in the environment {name})")
            });
        self.faults.push(Fault {
            key: key.to_owned(),
            problem: format!("missing{name}: {why}"),
        });
    }

    pub(super) fn finish(&mut self) -> Result<(), ConfigError> {
        if self.faults.is_empty() {
            Ok(())
        } else {
            Err(ConfigError::Faults(std::mem::take(&mut self.faults)))
        }
    }
}

/// A bound as the reader of the message would write it.
struct Bound<'a, T>(&'a T);

impl<T: fmt::Debug> fmt::Display for Bound<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:?}", self.0);
        match text
            .strip_prefix("ByteSize(")
            .and_then(|rest| rest.strip_suffix(')'))
            .and_then(|n| n.parse().ok())
        {
            Some(bytes) => super::ByteSize(bytes).fmt(f),
            None => f.write_str(&text),
        }
    }
}

/// Every `a.b.c = value` of a table, arrays being values.
fn leaves(table: &Table) -> BTreeMap<String, Value> {
    fn walk(prefix: &str, table: &Table, out: &mut BTreeMap<String, Value>) {
        for (key, value) in table {
            let path = if prefix.is_empty() {
                key.clone()
            } else {
                format!("{prefix}.{key}")
            };
            match value {
                Value::Table(inner) => walk(&path, inner, out),
                leaf => {
                    out.insert(path, leaf.clone());
                }
            }
        }
    }
    let mut out = BTreeMap::new();
    walk("", table, &mut out);
    out
}
