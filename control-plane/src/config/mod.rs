//! Settings: where they come from and which one wins.
//!
//! A flag wins over an environment variable, that over the configuration file, that over the default. The key
//! `http.listen` is `listen` in the table `[http]` of the file, `DUNLIN_HTTP_LISTEN` in the environment and
//! `--http-listen` on the command line.

mod error;
mod settings;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::path::Path;

pub use error::ConfigError;
pub use settings::{Config, SETTINGS};
pub use value::{ByteSize, ClientCertificates, LogFormat, Value};

/// A line of the table of settings.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The key in the configuration file, with dots.
    pub key: &'static str,
    /// What people write there.
    pub kind: &'static str,
    /// The value without any configuration, as text.
    pub default: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// What of the value must not be shown.
    pub mask: Mask,
}

/// What of a value is secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// Nothing.
    No,
    /// The password in a URL.
    Url,
    /// All of it.
    Whole,
}

impl Setting {
    /// The environment variable: `DUNLIN_HTTP_LISTEN`.
    pub fn variable(&self) -> String {
        format!("DUNLIN_{}", self.key.replace('.', "_").to_ascii_uppercase())
    }

    /// The flag without its dashes: `http-listen`.
    pub fn flag(&self) -> String {
        self.key.replace(['.', '_'], "-")
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The configuration file with this name.
    File(String),
    /// The environment variable with this name.
    Variable(String),
    /// The flag with this name.
    Flag(String),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(name) => f.write_str(name),
            Source::Variable(name) => f.write_str(name),
            Source::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// The effective settings as text, with their sources, in the table's order.
#[derive(Clone, Debug)]
pub struct Effective(Vec<(&'static Setting, String, Source)>);

impl Config {
    /// Reads the settings from a configuration file's text (with the file's name), the environment and the flags.
    ///
    /// # Errors
    /// An unknown key (naming the nearest one that exists), or a value that is not of the setting's type.
    pub fn load(
        file: Option<(&Path, &str)>,
        variables: &BTreeMap<String, String>,
        flags: &BTreeMap<String, String>,
    ) -> Result<(Self, Effective), ConfigError> {
        let in_file = match file {
            Some((path, text)) => flatten(path, text)?,
            None => BTreeMap::new(),
        };
        let file_name = file.map(|(path, _)| path.display().to_string()).unwrap_or_default();
        if let Some(key) = in_file.keys().find(|key| !SETTINGS.iter().any(|setting| setting.key == **key)) {
            return Err(ConfigError::unknown(
                &file_name,
                key,
                SETTINGS.iter().map(|setting| setting.key.to_owned()),
            ));
        }
        let unknown = variables.keys().find(|name| {
            is_of_a_section(name) && !SETTINGS.iter().any(|setting| setting.variable() == **name)
        });
        if let Some(name) = unknown {
            return Err(ConfigError::unknown("environment", name, SETTINGS.iter().map(Setting::variable)));
        }
        let mut values = Vec::with_capacity(SETTINGS.len());
        for setting in SETTINGS {
            let (variable, flag) = (setting.variable(), setting.flag());
            let (text, source) = if let Some(text) = flags.get(&flag) {
                (text.clone(), Source::Flag(flag))
            } else if let Some(text) = variables.get(&variable) {
                (text.clone(), Source::Variable(variable))
            } else if let Some(text) = in_file.get(setting.key) {
                (text.clone(), Source::File(file_name.clone()))
            } else {
                (setting.default.to_owned(), Source::Default)
            };
            values.push((setting, text, source));
        }
        let effective = Effective(values);
        let config = Config::read(
            |key| effective.entry(key).map_or("", |(_, text, _)| text.as_str()),
            |key, expected| match effective.entry(key) {
                Some((setting, text, source)) => {
                    ConfigError::Value { from: source.to_string(), key, value: mask(setting, text), expected }
                }
                None => ConfigError::Value { from: String::new(), key, value: String::new(), expected },
            },
        )?;
        Ok((config, effective))
    }
}

/// Whether a variable looks like a setting of a section, such as DUNLIN_HTTP_LISTN. Other names with the prefix belong
/// to other commands: DUNLIN_SERVER, DUNLIN_MODELS.
fn is_of_a_section(variable: &str) -> bool {
    SETTINGS.iter().filter_map(|setting| setting.key.split_once('.')).any(|(section, _)| {
        let rest =
            variable.strip_prefix("DUNLIN_").and_then(|name| name.strip_prefix(&section.to_uppercase()));
        rest.is_some_and(|rest| rest.starts_with('_'))
    })
}

impl Effective {
    fn entry(&self, key: &str) -> Option<&(&'static Setting, String, Source)> {
        self.0.iter().find(|(setting, _, _)| setting.key == key)
    }

    /// The settings with secrets masked: key, value, source.
    pub fn masked(&self) -> Vec<(&'static str, String, String)> {
        self.0
            .iter()
            .map(|(setting, text, source)| (setting.key, mask(setting, text), source.to_string()))
            .collect()
    }
}

/// The value as it may be shown.
fn mask(setting: &Setting, text: &str) -> String {
    const MASK: &str = "********";
    match setting.mask {
        Mask::No => text.to_owned(),
        Mask::Whole if text.is_empty() => String::new(),
        Mask::Whole => MASK.to_owned(),
        Mask::Url => match url::Url::parse(text) {
            Ok(mut url) => {
                if url.password().is_some() && url.set_password(Some(MASK)).is_err() {
                    return MASK.to_owned();
                }
                if url.query().is_some() {
                    // Query parameters of database URLs may hold passwords too.
                    url.set_query(Some(MASK));
                }
                url.to_string()
            }
            Err(_) if text.contains('@') => MASK.to_owned(),
            Err(_) => text.to_owned(),
        },
    }
}

/// The keys of a configuration file, with dots, and their values as text.
fn flatten(path: &Path, text: &str) -> Result<BTreeMap<String, String>, ConfigError> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
        file: path.display().to_string(),
        message: error.message().to_owned(),
        line: error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1)),
    })?;
    let mut flat = BTreeMap::new();
    let mut open = vec![(String::new(), table)];
    while let Some((prefix, table)) = open.pop() {
        for (name, value) in table {
            let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            let text = match value {
                toml::Value::Table(inner) => {
                    open.push((key, inner));
                    continue;
                }
                toml::Value::String(text) => text,
                toml::Value::Array(_) => {
                    return Err(ConfigError::Array { file: path.display().to_string(), key });
                }
                other => other.to_string(),
            };
            flat.insert(key, text);
        }
    }
    Ok(flat)
}
