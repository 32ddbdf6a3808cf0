//! The configuration of a running broker: the same layers as at its start, read again on SIGHUP, with the settings of the whole
//! cluster at the bottom. What may change changes; what needs a restart is named; what is wrong changes nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use bellwether_broker::config::{Addresses, BrokerConfig};
use bellwether_broker::live::{CHANGEABLE, ClusterSettings};
use bellwether_protocol::ids::BrokerId;
use clap::{Args as _, FromArgMatches as _};
use tokio::sync::watch;
use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

use super::layers;
use super::logs::{self, LogDial};
use super::settings::Settings;
use crate::args::{self, Command};

/// The one changeable setting that is not the broker's but the process's.
const LOG: &str = "log";

/// Whether a setting may change while the broker runs.
pub fn is_changeable(key: &str) -> bool {
    key == LOG || CHANGEABLE.iter().any(|one| one.key == key)
}

/// Changes the configuration of a running broker.
pub struct Retuner {
    arguments: Vec<OsString>,
    log: LogDial,
    config: watch::Sender<Arc<BrokerConfig>>,
    state: Mutex<State>,
}

struct State {
    /// Set for the whole cluster, as it stands in the coordinator.
    cluster: BTreeMap<String, String>,
    /// In force: what needs a restart as it was at the start, all else as it was last taken in.
    values: BTreeMap<String, String>,
}

impl Retuner {
    /// For a broker started with these arguments, which came to these values.
    pub fn new(
        arguments: Vec<OsString>,
        values: BTreeMap<String, String>,
        log: LogDial,
        config: BrokerConfig,
    ) -> (Retuner, watch::Receiver<Arc<BrokerConfig>>) {
        let (config, receiver) = watch::channel(Arc::new(config));
        let state = Mutex::new(State { cluster: BTreeMap::new(), values });
        (Retuner { arguments, log, config, state }, receiver)
    }

    /// What is in force.
    pub fn config(&self) -> Arc<BrokerConfig> {
        self.config.borrow().clone()
    }

    /// Reads the configuration file again and takes in what has changed.
    pub fn reload(&self) -> Result<String, String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = state.cluster.clone();
        self.take(&mut state, cluster)
    }

    /// Takes in all layers over `cluster`, or nothing at all. Answers what has changed.
    fn take(&self, state: &mut State, cluster: BTreeMap<String, String>) -> Result<String, String> {
        let known = known(&cluster);
        let understood = args::understand_over(&known, &self.arguments)
            .map_err(|error| args::words_of(&error))?;
        let Command::Serve(serve) = &understood.command else {
            return Err("the command line is not one of `serve` any more".to_owned());
        };
        let matches = understood.matches.subcommand_matches("serve").ok_or("no matches")?;
        let values = layers::values(matches);

        let running = self.config();
        let wanted = serve.settings.broker(running.id, running.addresses.clone());
        let mut next = (*running).clone();
        for one in CHANGEABLE {
            (one.take)(&mut next, &wanted);
        }
        next.check().map_err(|error| error.to_string())?;
        let filter = log_filter(serve.settings.log.as_deref())?;

        let outcome = told(&state.values, &values);
        if state.values.get(LOG) != values.get(LOG) {
            self.log.set(filter)?;
        }
        if next != *running {
            self.config.send_replace(Arc::new(next));
        }
        for key in layers::keys().into_iter().filter(|key| is_changeable(key)) {
            match values.get(&key) {
                Some(value) => drop(state.values.insert(key, value.clone())),
                None => drop(state.values.remove(&key)),
            }
        }
        state.cluster = cluster;
        Ok(outcome)
    }
}

impl ClusterSettings for Retuner {
    fn judge(&self, key: &str, value: Option<&str>) -> Result<(), String> {
        may_be_set(key)?;
        let Some(value) = value else { return Ok(()) };
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cluster = known(&state.cluster);
        drop(state);
        cluster.insert(key.to_owned(), value.to_owned());
        workable(&cluster)
    }

    fn take_in(&self, settings: BTreeMap<String, String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.cluster == settings {
            return;
        }
        for key in settings.keys().filter(|key| !is_changeable(key)) {
            warn!(
                key,
                "set for the whole cluster, but not a setting that this version can change while it runs: left alone"
            );
        }
        match self.take(&mut state, settings) {
            Ok(outcome) => info!(outcome, "took in what is set for the whole cluster"),
            Err(why) => {
                error!(
                    why,
                    "what is set for the whole cluster cannot be worked with here: all of it stays as it was"
                )
            }
        }
    }
}

/// Those that this version can set for the whole cluster.
fn known(cluster: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let changeable = cluster.iter().filter(|(key, _)| is_changeable(key));
    changeable.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Whether `key` can be set for the whole cluster at all.
pub fn may_be_set(key: &str) -> Result<(), String> {
    let keys = layers::keys();
    if !keys.iter().any(|known| known == key) {
        let changeable: Vec<String> = keys.into_iter().filter(|key| is_changeable(key)).collect();
        return Err(format!("unknown key {key:?}{}", layers::suggestion(key, &changeable)));
    }
    if !is_changeable(key) {
        return Err(format!(
            "{key} cannot change while brokers run: set it in each broker's configuration file and restart them one by one"
        ));
    }
    Ok(())
}

/// Whether these settings can be worked with, on a broker that is told nothing else.
fn workable(cluster: &BTreeMap<String, String>) -> Result<(), String> {
    let flags = cluster.iter().map(|(key, value)| OsString::from(format!("--{key}={value}")));
    let line = std::iter::once(OsString::from("serve")).chain(flags);
    let matches = told_nothing().try_get_matches_from(line).map_err(|error| as_setting(&error))?;
    let settings = Settings::from_arg_matches(&matches).map_err(|error| as_setting(&error))?;
    let nowhere = Addresses { client: String::new(), peer: String::new() };
    settings.broker(BrokerId(0), nowhere).check().map_err(|error| error.to_string())?;
    log_filter(settings.log.as_deref()).map(drop)
}

fn log_filter(given: Option<&str>) -> Result<EnvFilter, String> {
    logs::filter(given).map_err(|why| format!("{LOG} = {why}"))
}

/// What is wrong with the value of a setting, in the words of whoever set it: there was no flag.
fn as_setting(error: &clap::Error) -> String {
    use clap::error::{ContextKind, ContextValue};
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (Some(flag), Some(value)) =
        (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue))
    else {
        return args::words_of(error);
    };
    let key = flag.trim_start_matches("--").split([' ', '=']).next().unwrap_or(flag);
    let why = match (error.get(ContextKind::ValidValue), std::error::Error::source(error)) {
        (Some(ContextValue::Strings(allowed)), _) if !allowed.is_empty() => {
            format!("allowed are {}", allowed.join(", "))
        }
        (_, Some(source)) => source.to_string(),
        (_, None) => "it is no value for this setting".to_owned(),
    };
    match value {
        "" => format!("{key} needs a value: {why}"),
        value => format!("{key} = {value}: {why}"),
    }
}

/// A broker without a configuration of its own: it does not read its environment either, or the same value would be taken by one broker
/// and refused by another.
fn told_nothing() -> clap::Command {
    Settings::augment_args(clap::Command::new("serve"))
        .mut_args(|argument| argument.env(clap::builder::Resettable::Reset))
}

/// What is different in `now`, in words.
fn told(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> String {
    let (mut changed, mut restart) = (String::new(), String::new());
    for key in layers::keys() {
        let (from, to) = (before.get(&key), now.get(&key));
        if from == to {
            continue;
        }
        let list = if is_changeable(&key) { &mut changed } else { &mut restart };
        let comma = if list.is_empty() { "" } else { ", " };
        let (from, to) = (layers::shown(&key, from), layers::shown(&key, to));
        write!(list, "{comma}{key} from {from} to {to}").expect("a String takes everything");
    }
    match (changed.is_empty(), restart.is_empty()) {
        (true, true) => "nothing has changed".to_owned(),
        (false, true) => format!("changed: {changed}"),
        (true, false) => format!("needs a restart: {restart}"),
        (false, false) => format!("changed: {changed}; needs a restart: {restart}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_set_for_the_cluster_is_judged_alike_whatever_a_brokers_environment_says() {
        let reads = Settings::augment_args(clap::Command::new("serve"));
        assert!(reads.get_arguments().all(|argument| argument.get_env().is_some()));
        assert!(told_nothing().get_arguments().all(|argument| argument.get_env().is_none()));
    }

    struct Running {
        folder: tempfile::TempDir,
        retuner: Retuner,
    }

    impl Running {
        /// A broker with this configuration file, and these flags.
        fn with(file: &str, flags: &[&str]) -> Running {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("b.toml");
            std::fs::write(&path, file).unwrap();
            let mut arguments: Vec<OsString> =
                ["bellwether", "serve", "--config"].map(OsString::from).to_vec();
            arguments.push(path.into_os_string());
            arguments.extend(flags.iter().map(OsString::from));
            let understood = args::understand(&arguments).unwrap();
            let Command::Serve(serve) = &understood.command else { panic!("it is serve") };
            let addresses = Addresses { client: "h:1".into(), peer: "h:2".into() };
            let config = serve.settings.broker(BrokerId(1), addresses);
            let values = layers::values(understood.matches.subcommand_matches("serve").unwrap());
            let (retuner, _) = Retuner::new(arguments, values, LogDial::none(), config);
            Running { folder, retuner }
        }

        fn write(&self, file: &str) -> &Running {
            std::fs::write(self.folder.path().join("b.toml"), file).unwrap();
            self
        }

        fn cluster(&self, settings: &[(&str, &str)]) -> &Running {
            let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            self.retuner.take_in(settings.iter().map(owned).collect());
            self
        }

        fn heartbeat_s(&self) -> u64 {
            self.retuner.config().timing.heartbeat.as_secs()
        }
    }

    #[test]
    fn a_changed_file_changes_what_may_change_and_names_what_needs_a_restart() {
        let broker = Running::with("heartbeat = \"11s\"\ndata = \"a\"", &[]);
        broker.write("heartbeat = \"12s\"\ndata = \"b\"\nreplace-after = \"off\"\nlog = \"warn\"");
        let said = broker.retuner.reload().unwrap();
        assert_eq!(
            said,
            "changed: log from (not set) to warn, replace-after from 10m to off, heartbeat from 11s to 12s; needs a restart: data from a to b"
        );
        let config = broker.retuner.config();
        assert_eq!(config.timing.heartbeat, Duration::from_secs(12));
        assert_eq!(config.timing.replace_after, None);
        assert_eq!(config.data, PathBuf::from("a"), "a running broker keeps its folder");
        // What still waits for a restart is said again, and nothing else is.
        assert_eq!(broker.retuner.reload().unwrap(), "needs a restart: data from a to b");
    }

    #[test]
    fn a_bad_file_changes_nothing_and_says_why() {
        let broker = Running::with("heartbeat = \"11s\"", &[]);
        for (file, why) in [
            ("heartbeat = \"12s\"\nprefetch-max = 0", "prefetch-max = 0: allowed is 1 to 1000000"),
            ("heartbeat = \"12s\"\nprefech-max = 5", "did you mean \"prefetch-max\"?"),
            ("heartbeat = \"12s\"\nprefetch-max = \"many\"", "b.toml: invalid value 'many'"),
            ("heartbeat = \"12s\"\nlog = \"a=b=c\"", "log = a=b=c"),
            ("heartbeat = ", "is not TOML"),
        ] {
            let said = broker.write(file).retuner.reload().unwrap_err();
            assert!(said.contains(why), "{said}");
            assert_eq!(broker.heartbeat_s(), 11, "{file}");
        }
        std::fs::remove_file(broker.folder.path().join("b.toml")).unwrap();
        assert!(broker.retuner.reload().unwrap_err().contains("cannot read"));
        assert_eq!(broker.heartbeat_s(), 11);
    }

    #[test]
    fn what_is_set_for_the_cluster_lies_beneath_the_file_and_the_flags() {
        let broker = Running::with("", &["--prefetch-max", "5"]);
        broker.cluster(&[("heartbeat", "20s"), ("prefetch-max", "9")]);
        assert_eq!(broker.heartbeat_s(), 20);
        assert_eq!(broker.retuner.config().limits.prefetch_max, 5, "the flag stands above");
        broker.write("heartbeat = \"12s\"").retuner.reload().unwrap();
        assert_eq!(broker.heartbeat_s(), 12, "the file stands above");
        broker.write("").retuner.reload().unwrap();
        assert_eq!(broker.heartbeat_s(), 20, "and what lies beneath comes back");
        broker.cluster(&[]);
        assert_eq!(broker.heartbeat_s(), 10, "unset, it is the default again");
    }

    #[test]
    fn what_is_set_for_the_cluster_and_cannot_be_worked_with_here_changes_nothing() {
        let broker = Running::with("", &[]);
        broker.cluster(&[("heartbeat", "20s")]);
        broker.cluster(&[("heartbeat", "21s"), ("prefetch-max", "0")]);
        assert_eq!(broker.heartbeat_s(), 20);
        // Keys of a later version, or that need a restart, are passed over.
        broker.cluster(&[("heartbeat", "22s"), ("wibble", "1"), ("data", "elsewhere")]);
        assert_eq!(broker.heartbeat_s(), 22);
        assert_ne!(broker.retuner.config().data, PathBuf::from("elsewhere"));
    }

    #[test]
    fn a_setting_of_the_cluster_is_judged_before_it_is_written() {
        let broker = Running::with("", &["--heartbeat", "3s"]);
        let judge = |key: &str, value: &str| broker.retuner.judge(key, Some(value));
        judge("heartbeat", "20s").unwrap();
        judge("log", "debug").unwrap();
        for (key, value, why) in [
            ("hartbeat", "20s", "did you mean \"heartbeat\"?"),
            ("data", "x", "cannot change while brokers run"),
            ("promise", "100ms", "cannot change while brokers run"),
            ("heartbeat", "soon", "heartbeat = soon: \"soon\" is no length of time"),
            ("heartbeat", "", "is no length of time"),
            ("leader-settle", "0s", "leader-settle = 0s: allowed is 100ms to 86400s"),
            // Judged although a flag of this very broker stands above it.
            ("heartbeat", "1ms", "allowed is 100ms to 600s"),
            ("log", "a=b=c", "give a level"),
        ] {
            let said = judge(key, value).unwrap_err();
            assert!(said.contains(why), "{said}");
            assert!(!said.contains("--"), "no flag was given: {said}");
        }
        // Nothing is taken back that there is not.
        broker.retuner.judge("heartbeat", None).unwrap();
        let said = broker.retuner.judge("hartbeat", None).unwrap_err();
        assert!(said.contains("did you mean \"heartbeat\"?"), "{said}");
        let said = broker.retuner.judge("wibble", None).unwrap_err();
        assert!(said.contains("known keys are") && said.contains("replace-after"), "{said}");
        assert!(!said.contains("zookeeper"), "only those that can be set: {said}");
    }

    #[test]
    fn what_may_change_are_settings_that_there_are() {
        let keys = layers::keys();
        for one in CHANGEABLE {
            assert!(keys.iter().any(|key| key == one.key), "{}", one.key);
        }
    }
}
