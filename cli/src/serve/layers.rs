//! Configuration file below environment below flags. The file's values become the defaults of the
//! flags, so that one parser judges all three.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command};

use super::settings::Settings;

/// Variables that begin like settings but belong to other commands or to those who start us.
const OTHER_VARIABLES: [&str; 11] = [
    "BELLWETHER_CONFIG",
    "BELLWETHER_CONNECT",
    "BELLWETHER_BIN",
    "BELLWETHER_CONNECT_TLS",
    "BELLWETHER_CONNECT_TLS_CA",
    "BELLWETHER_CONNECT_TLS_CERT",
    "BELLWETHER_CONNECT_TLS_KEY",
    "BELLWETHER_CONNECT_TLS_SERVER_NAME",
    "BELLWETHER_USER",
    "BELLWETHER_PASSWORD",
    "BELLWETHER_PASSWORD_FILE",
];
/// How alike an unknown key and a known one must be, from 0 to 1, to ask "did you mean".
const ALIKE_ENOUGH: f64 = 0.75;
/// Secrets: `--print-config` shows that they are set, not what they are.
const SECRETS: [&str; 1] = ["zookeeper-auth"];

/// Why a layer was refused.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{} is not TOML: {message}", path.display())]
    NotToml { path: PathBuf, message: String },
    #[error("{}: unknown key {key:?}{suggestion}", path.display())]
    UnknownKey { path: PathBuf, key: String, suggestion: String },
    #[error("{}: {key:?} is a {found}; it must be a text, a number or true/false{hint}", path.display())]
    NotAValue { path: PathBuf, key: String, found: &'static str, hint: &'static str },
    #[error("unknown environment variable {variable}{suggestion}")]
    UnknownVariable { variable: String, suggestion: String },
}

/// What a configuration file says: keys known to be settings, and their values as text.
#[derive(Debug, PartialEq, Eq)]
pub struct FileLayer {
    values: Vec<(String, String)>,
}

impl FileLayer {
    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<FileLayer, LayerError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| LayerError::Unreadable { path: path.to_owned(), source })?;
        FileLayer::parse(path, &text)
    }

    pub fn parse(path: &Path, text: &str) -> Result<FileLayer, LayerError> {
        let table: toml::Table =
            text.parse().map_err(|error: toml::de::Error| LayerError::NotToml {
                path: path.to_owned(),
                message: error.to_string().trim_end().to_owned(),
            })?;
        let known = keys();
        let mut values = Vec::new();
        for (key, value) in table {
            if !known.contains(&key) && !matches!(value, toml::Value::Table(_)) {
                let suggestion = suggestion(&key, &known);
                return Err(LayerError::UnknownKey { path: path.to_owned(), key, suggestion });
            }
            let text = as_text(&value).map_err(|(found, hint)| LayerError::NotAValue {
                path: path.to_owned(),
                key: key.clone(),
                found,
                hint,
            })?;
            values.push((key, text));
        }
        Ok(FileLayer { values })
    }

    /// Makes the values the defaults of `serve`'s flags.
    pub fn beneath(&self, serve: Command) -> Command {
        beneath(serve, self.values.iter().map(|(key, value)| (key, value)))
    }

    /// No file: nothing said.
    pub fn empty() -> FileLayer {
        FileLayer { values: Vec::new() }
    }

    fn says(&self, key: &str) -> bool {
        self.values.iter().any(|(known, _)| known == key)
    }
}

/// Makes values the defaults of `serve`'s flags. Keys are known to be settings.
pub fn beneath<'a>(
    mut serve: Command,
    values: impl Iterator<Item = (&'a String, &'a String)>,
) -> Command {
    for (key, value) in values {
        serve = serve.mut_arg(key.replace('-', "_"), |arg| arg.default_value(value.clone()));
    }
    serve
}

/// The settings in force as text, by key. What is not set is not there.
pub fn values(matches: &ArgMatches) -> BTreeMap<String, String> {
    let value = |key: String| {
        let value = matches.get_raw(&key.replace('-', "_"))?.next()?.to_string_lossy().into_owned();
        Some((key, value))
    };
    keys().into_iter().filter_map(value).collect()
}

/// A value as it may be shown.
pub fn shown(key: &str, value: Option<&String>) -> String {
    match value {
        Some(_) if SECRETS.contains(&key) => "(not shown)".to_owned(),
        Some(value) => value.clone(),
        None => "(not set)".to_owned(),
    }
}

fn as_text(value: &toml::Value) -> Result<String, (&'static str, &'static str)> {
    match value {
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Float(number) => Ok(number.to_string()),
        toml::Value::Boolean(truth) => Ok(truth.to_string()),
        toml::Value::Datetime(_) => Err(("date", "")),
        toml::Value::Array(_) => Err(("list", "")),
        toml::Value::Table(_) => Err(("section", "; all keys stand at the top, without sections")),
    }
}

/// Refuses variables that look like misspelt settings: one that is silently ignored is found out in
/// the worst hour. Others that begin with BELLWETHER_ are left alone, since Kubernetes, for one, sets
/// BELLWETHER_SERVICE_HOST and more for a service of that name.
pub fn check_environment(names: impl Iterator<Item = String>) -> Result<(), LayerError> {
    let known: Vec<String> = keys().iter().map(|key| variable_of(key)).collect();
    for variable in names {
        let ours = variable.starts_with("BELLWETHER_");
        if !ours || known.contains(&variable) || OTHER_VARIABLES.contains(&variable.as_str()) {
            continue;
        }
        if let Some(meant) = known.iter().find(|known| strsim::osa_distance(known, &variable) <= 2)
        {
            let suggestion = format!("; did you mean {meant}?");
            return Err(LayerError::UnknownVariable { variable, suggestion });
        }
    }
    Ok(())
}

pub fn variable_of(key: &str) -> String {
    match key {
        "log" => "BELLWETHER_LOG".to_owned(),
        key => format!("BELLWETHER_{}", key.to_uppercase().replace('-', "_")),
    }
}

/// The names of all settings, in the order of the help.
pub fn keys() -> Vec<String> {
    let command = Settings::augment_args(Command::new("settings"));
    command.get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned).collect()
}

pub fn suggestion(given: &str, known: &[String]) -> String {
    let alike = |key: &&String| strsim::jaro_winkler(&given.replace('_', "-").to_lowercase(), key);
    let best = known.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    match best {
        Some(key) if alike(&key) >= ALIKE_ENOUGH => format!("; did you mean {key:?}?"),
        _ => format!("; known keys are {}", known.join(", ")),
    }
}

/// The settings in force as a configuration file, each with where it came from.
pub fn print(matches: &ArgMatches, file: &FileLayer) -> String {
    let mut text =
        String::from("# The configuration in force. This is a configuration file, too.\n");
    for key in keys() {
        let id = key.replace('-', "_");
        let Some(value) = matches.get_raw(&id).and_then(|mut values| values.next()) else {
            writeln!(text, "# {key} is not set").expect("writing to a String cannot fail");
            continue;
        };
        let origin = match matches.value_source(&id) {
            Some(ValueSource::CommandLine) => "flag",
            Some(ValueSource::EnvVariable) => "environment",
            _ if file.says(&key) => "file",
            _ => "default",
        };
        let value = literal(&value.to_string_lossy());
        let line = match SECRETS.contains(&key.as_str()) {
            true => format!("# {key} is set and not shown (from the {origin})"),
            false => format!("{key} = {value} # {origin}"),
        };
        writeln!(text, "{line}").expect("writing to a String cannot fail");
    }
    text
}

fn literal(value: &str) -> String {
    match value.parse::<toml::Value>() {
        Ok(plain @ (toml::Value::Integer(_) | toml::Value::Boolean(_))) => plain.to_string(),
        _ => toml::Value::String(value.to_owned()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        FileLayer::parse(Path::new("b.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_is_named_with_the_one_that_was_meant() {
        assert_eq!(
            refused("sesion-timeout = 5"),
            "b.toml: unknown key \"sesion-timeout\"; did you mean \"session-timeout-ms\"?"
        );
        assert_eq!(
            refused("peer_listen = \"a:1\""),
            "b.toml: unknown key \"peer_listen\"; did you mean \"peer-listen\"?"
        );
        assert!(refused("wibble = 1").contains("known keys are id, rack, data, zookeeper"));
    }

    #[test]
    fn a_section_or_a_list_is_refused_in_words() {
        assert_eq!(
            refused("[limits]\nconnections-max = 5"),
            "b.toml: \"limits\" is a section; it must be a text, a number or true/false; all keys stand at the top, without sections"
        );
        assert!(refused("listen = [\"a\"]").contains("\"listen\" is a list"));
        assert!(refused("id = ").contains("is not TOML"));
    }

    #[test]
    fn a_misspelt_variable_is_refused_and_a_foreign_one_is_left_alone() {
        let check = |name: &str| check_environment([name.to_owned()].into_iter());
        assert_eq!(
            check("BELLWETHER_ADVERTISED").unwrap_err().to_string(),
            "unknown environment variable BELLWETHER_ADVERTISED; did you mean BELLWETHER_ADVERTISE?"
        );
        for fine in [
            "BELLWETHER_SERVICE_HOST",
            "BELLWETHER_PORT_7400_TCP",
            "BELLWETHER_CONNECT",
            "HOME",
            "BELLWETHER_ID",
        ] {
            check(fine).unwrap();
        }
    }

    #[test]
    fn every_setting_can_be_given_in_the_environment_under_its_own_name() {
        let command = Settings::augment_args(Command::new("settings"));
        for arg in command.get_arguments() {
            let (key, variable) = (arg.get_long().unwrap(), arg.get_env().unwrap());
            assert_eq!(variable.to_str(), Some(variable_of(key).as_str()));
        }
    }
}
