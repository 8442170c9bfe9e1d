//! Reads settings by key from three layers and collects all errors, so that a single start reports every one.

use super::{DEFAULTS, s3::ENVIRONMENT_NAMES, values::SettingValue};
use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};
use toml::{Table, Value};

/// The sources settings are read from.
#[derive(Clone, Debug, Default)]
pub struct ConfigSources {
    /// The file given with `--config`.
    pub file: Option<PathBuf>,
    /// The environment. Only `LANDFALL__…` and the eight S3 names are used, each also with the suffix `_FILE` for a
    /// file that contains the value.
    pub environment: Vec<(String, String)>,
}

impl ConfigSources {
    /// The given file, if any, and this process's environment.
    #[must_use]
    pub fn process(file: Option<PathBuf>) -> Self {
        Self {
            file,
            // A variable that is not UTF-8 cannot be a setting.
            environment: std::env::vars_os()
                .filter_map(|(name, text)| {
                    Some((name.into_string().ok()?, text.into_string().ok()?))
                })
                .collect(),
        }
    }
}

/// An invalid setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSetting {
    /// The key, `section.key`.
    pub key: String,
    /// What is wrong and what is allowed.
    pub problem: String,
}

/// Why the configuration cannot be loaded.
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
    #[error("{}", SettingList(.0))]
    Faults(Vec<InvalidSetting>),
}

/// Suffix of variables that name a file containing the value.
const FILE_SUFFIX: &str = "_FILE";

/// Prefix of settings in the environment.
const ENVIRONMENT_PREFIX: &str = "LANDFALL__";

/// Maximum length of a path of folders in a bucket, in bytes: it leaves room for the keys below it.
const MAX_FOLDER_LEN: usize = 512;
/// Maximum length of a folder's name on common file systems, in bytes.
const MAX_FOLDER_NAME_LEN: usize = 255;

struct SettingList<'a>(&'a [InvalidSetting]);

impl fmt::Display for SettingList<'_> {
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

/// A value and where it was set, for error messages.
struct LayeredValue {
    value: Value,
    origin: String,
}

pub(super) struct ConfigReader {
    defaults: BTreeMap<String, Value>,
    given: BTreeMap<String, LayeredValue>,
    faults: Vec<InvalidSetting>,
    environment: Vec<(String, String)>,
}

impl ConfigReader {
    pub(super) fn new(sources: ConfigSources) -> Result<Self, ConfigError> {
        let defaults: Table = DEFAULTS.parse().expect("the built-in config.toml is TOML");
        let mut reader = Self {
            defaults: leaves(&defaults),
            given: BTreeMap::new(),
            faults: Vec::new(),
            environment: Vec::new(),
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
                reader.insert(key.clone(), key, value, format!("in {}", path.display()));
            }
        }
        reader.read_environment(&sources.environment);
        reader.environment = sources.environment;
        Ok(reader)
    }

    /// Returns an environment variable that is not a setting.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        let mut all = self.environment.iter();
        let (_, text) = all.find(|(known, _)| known == name)?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    fn read_environment(&mut self, environment: &[(String, String)]) {
        for (name, text) in environment {
            let base = name.strip_suffix(FILE_SUFFIX);
            let is_twice = !text.is_empty()
                && base.is_some_and(|base| {
                    let also = |(other, text): &(String, String)| other == base && !text.is_empty();
                    environment.iter().any(also)
                });
            if is_twice
                && self
                    .setting_for_variable(name)
                    .is_some_and(|(_, of_a_file)| of_a_file)
            {
                self.faults.push(InvalidSetting {
                    key: name.clone(),
                    problem:
                        "given together with the variable without _FILE; allowed is one of them"
                            .to_owned(),
                });
            }
        }
        // The generic names first, so that the eight specific S3 names take precedence.
        let generic = |(name, _): &&(String, String)| name.starts_with(ENVIRONMENT_PREFIX);
        let (generic, known): (Vec<_>, Vec<_>) = environment.iter().partition(generic);
        for (name, text) in generic.into_iter().chain(known) {
            self.read_variable(name, text);
        }
    }

    /// Returns the key that a variable sets, and whether the variable names a file that contains the value.
    fn setting_for_variable(&self, name: &str) -> Option<(String, bool)> {
        let key_of = |name: &str| match name.strip_prefix(ENVIRONMENT_PREFIX) {
            Some(rest) => Some(rest.to_ascii_lowercase().replace("__", ".")),
            None => {
                let mut known = ENVIRONMENT_NAMES.iter();
                let found = known.find(|(known, _)| *known == name);
                found.map(|(_, key)| (*key).to_owned())
            }
        };
        let of_a_file = name.strip_suffix(FILE_SUFFIX).and_then(key_of);
        match of_a_file.filter(|key| self.defaults.contains_key(key)) {
            Some(key) => Some((key, true)),
            None => key_of(name).map(|key| (key, false)),
        }
    }

    /// Reads an environment variable. Leading and trailing white space is removed, since files end with a newline.
    fn read_variable(&mut self, name: &str, text: &str) {
        let Some((key, of_a_file)) = self.setting_for_variable(name) else {
            return;
        };
        let origin = format!("in the environment as {name}");
        let value = match of_a_file {
            // Compose files pass unset variables on as empty ones.
            true if text.is_empty() => return,
            true => std::fs::read_to_string(text.trim()),
            false => Ok(text.to_owned()),
        };
        match value {
            Ok(text) => {
                let value = Value::String(text.trim().to_owned());
                self.insert(key, name.to_owned(), value, origin);
            }
            Err(error) => self.faults.push(InvalidSetting {
                key,
                problem: format!("the file that {name} names cannot be read: {error}"),
            }),
        }
    }

    fn insert(&mut self, key: String, name: String, value: Value, origin: String) {
        if self.defaults.contains_key(&key) {
            self.given.insert(key, LayeredValue { value, origin });
        } else {
            let nearest = self
                .defaults
                .keys()
                .map(|known| (strsim::damerau_levenshtein(known, &key), known))
                .min()
                .filter(|(distance, _)| *distance <= 4)
                .map(|(_, known)| format!("; did you mean {known}?"))
                .unwrap_or_default();
            self.faults.push(InvalidSetting {
                key: name,
                problem: format!("no such setting ({origin}){nearest}"),
            });
        }
    }

    /// Returns the setting, or its default after recording an error if the given value is not allowed.
    pub(super) fn get<T: SettingValue>(&mut self, key: &str) -> T {
        self.read(key, T::read, T::ALLOWED)
    }

    /// Returns the setting; the empty string means `None`.
    pub(super) fn optional<T: SettingValue>(&mut self, key: &str) -> Option<T> {
        let none_or = |value: &Value| match value.as_str().map(str::trim) {
            Some("") => Some(None),
            _ => T::read(value).map(Some),
        };
        self.read(key, none_or, T::ALLOWED)
    }

    /// Reads a list: an array or, in the environment, a comma-separated string.
    pub(super) fn list<T: SettingValue>(&mut self, key: &str) -> Vec<T> {
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

    /// Reads a setting with inclusive bounds.
    pub(super) fn within<T>(&mut self, key: &str, least: T, most: T) -> T
    where
        T: SettingValue + PartialOrd + fmt::Debug,
    {
        let allowed = format!(
            "{} from {} to {}",
            T::ALLOWED,
            DisplayBound(&least),
            DisplayBound(&most)
        );
        self.read(
            key,
            |value| T::read(value).filter(|read| *read >= least && *read <= most),
            &allowed,
        )
    }

    /// Reads a duration with a lower bound.
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

    /// Reads a name that is safe in Redis keys: letters, digits, `-`, `_`, `.`, `:`.
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

    /// Reads a relative path of folders, and returns it without slashes at its ends; it may be empty.
    pub(super) fn folder(&mut self, key: &str) -> String {
        let is_name = |name: &str| {
            !name.is_empty() && !name.starts_with('.') && name.len() <= MAX_FOLDER_NAME_LEN
        };
        let fit = |value: &Value| {
            let text = String::read(value)?;
            let path = text.trim().trim_matches('/');
            let is_allowed = path.is_empty()
                || path.len() <= MAX_FOLDER_LEN
                    && path.split('/').all(is_name)
                    && !path.contains(|c: char| c.is_control() || c == '\\');
            is_allowed.then(|| path.to_owned())
        };
        let allowed = "names separated by `/`, at most 512 bytes, none of which begins with a dot or contains a \
                       backslash";
        self.read(key, fit, allowed)
    }

    fn read<T>(&mut self, key: &str, read: impl Fn(&Value) -> Option<T>, allowed: &str) -> T {
        if let Some(given) = self.given.get(key) {
            if let Some(value) = read(&given.value) {
                return value;
            }
            let shown =
                if key.contains("secret") || key.ends_with(".url") || key.ends_with(".proxy") {
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
            self.faults.push(InvalidSetting {
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

    /// Records an error that depends on another setting.
    pub(super) fn fault(&mut self, key: &str, allowed: &str) {
        let origin = self
            .given
            .get(key)
            .map_or("the default".to_owned(), |given| given.origin.clone());
        self.faults.push(InvalidSetting {
            key: key.to_owned(),
            problem: format!("its value ({origin}) is not allowed; allowed is {allowed}"),
        });
    }

    /// Records a required setting that was not given, by its key and environment name.
    pub(super) fn missing(&mut self, key: &str, why: &str) {
        let name = ENVIRONMENT_NAMES
            .iter()
            .find(|(_, known)| *known == key)
            .map_or_else(String::new, |(name, _)| {
                format!(" (in the environment {name})")
            });
        self.faults.push(InvalidSetting {
            key: key.to_owned(),
            problem: format!("missing{name}: {why}"),
        });
    }

    /// Returns the key and value of every setting in effect, and where it was set.
    pub(super) fn effective(&self) -> impl Iterator<Item = (&str, &Value, Option<&str>)> {
        self.defaults
            .iter()
            .map(|(key, default)| match self.given.get(key) {
                Some(given) => (key.as_str(), &given.value, Some(given.origin.as_str())),
                None => (key.as_str(), default, None),
            })
    }

    pub(super) fn finish(&mut self) -> Result<(), ConfigError> {
        if self.faults.is_empty() {
            Ok(())
        } else {
            Err(ConfigError::Faults(std::mem::take(&mut self.faults)))
        }
    }
}

/// Formats a bound the way it is written in the configuration.
struct DisplayBound<'a, T>(&'a T);

impl<T: fmt::Debug> fmt::Display for DisplayBound<'_, T> {
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

/// Returns every `a.b.c = value` of a table; arrays count as values.
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

#[cfg(test)]
mod tests {
    use super::super::{Config, ConfigError, ConfigSources};
    use secrecy::ExposeSecret;

    fn load(environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        Config::load(ConfigSources {
            file: None,
            environment: environment.iter().map(owned).collect(),
        })
    }

    #[test]
    fn values_may_be_in_files_and_white_space_around_them_is_no_part_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "  s3cret\r\n").unwrap();
        let file = file.to_str().unwrap();
        let config = load(&[
            ("AWS_SECRET_ACCESS_KEY_FILE", file),
            ("AWS_ACCESS_KEY_ID", "AKIA\n"),
            ("LANDFALL__REDIS__URL_FILE", file),
            ("LANDFALL__DATABASE__URL", "postgres://h/d \n"),
            ("LANDFALL__STORAGE__BACKEND", "fs\n"),
            ("LANDFALL__STORAGE__PATH_FILE", ""),
        ])
        .unwrap();
        let s3 = &config.storage.s3;
        assert_eq!(s3.secret_access_key.expose_secret(), "s3cret");
        assert_eq!(s3.access_key_id, "AKIA");
        assert_eq!(config.redis.url.unwrap().expose_secret(), "s3cret");
        assert_eq!(config.database.url.expose_secret(), "postgres://h/d");
    }

    #[test]
    fn files_that_cannot_be_read_and_values_given_twice_are_faults() {
        let faults = load(&[
            ("LANDFALL__REDIS__URL_FILE", "/nowhere/at/all"),
            ("AWS_ACCESS_KEY_ID_FILE", "/nowhere/either"),
            ("AWS_ACCESS_KEY_ID", "AKIA"),
            ("LANDFALL__NOTHING__HERE_FILE", "/etc/hostname"),
        ]);
        let text = faults.unwrap_err().to_string();
        for part in [
            "redis.url: the file that LANDFALL__REDIS__URL_FILE names cannot be read",
            "AWS_ACCESS_KEY_ID_FILE: given together",
            "LANDFALL__NOTHING__HERE_FILE: no such setting",
        ] {
            assert!(text.contains(part), "{part} is missing: {text}");
        }
    }
}
