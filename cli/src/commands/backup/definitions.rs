//! Backups of definitions: those of a virtual host, what is set for the whole cluster, and its users if asked for, as one JSON document.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use bellwether_client::{
    Binding, Client, ExchangeKind, ExchangeName, NumberOf, QueueClass, QueueName, QueueOptions,
    RoutingKey,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::users::{self, Restored, Users};
use super::{BackupArgs, RestoreArgs, data};
use crate::commands::exchange::{kind_named, name_of};
use crate::commands::numbers::fits;
use crate::commands::queue::Class;
use crate::commands::table::{counted, print_json, print_line};
use crate::outcome::Failure;

/// The format of definitions without users.
const FORMAT: u32 = 1;
/// With users, which an earlier version would leave out without a word; the newest that this one reads.
const FORMAT_WITH_USERS: u32 = 2;

/// Who may read the file: its owner alone. With what passwords are checked against they can be guessed offline.
const MODE: u32 = 0o600;

/// Differences named in a refusal; a person fixes them one by one anyway.
const DIFFERENCES_SHOWN: usize = 20;

/// What is backed up. A later version adds fields: `format` goes up only when this version could not restore without them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Definitions {
    format: u32,
    virtual_host: String,
    exchanges: BTreeMap<String, String>,
    queues: BTreeMap<String, Options>,
    bindings: BTreeSet<Bound>,
    /// What is set for the whole cluster.
    settings: BTreeMap<String, String>,
    /// The users of the cluster, when they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    users: Option<Users>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Options {
    replicas: u8,
    min_isr: u8,
    /// Not there in backups of before queues had classes.
    #[serde(default)]
    class: Class,
}

impl std::fmt::Display for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Options { replicas, min_isr, class } = self;
        let class = QueueClass::from(*class);
        write!(f, "replicas {replicas}, min_isr {min_isr}, class {class}")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Bound {
    exchange: String,
    queue: String,
    routing_key: String,
}

/// What restoring takes: only what is missing. Whatever is there and differs is not touched.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    exchanges: Vec<(String, String)>,
    queues: Vec<(String, Options)>,
    bindings: Vec<Bound>,
    settings: Vec<(String, String)>,
    users: Vec<Restored>,
    differences: Vec<String>,
}

/// Carries `backup` of definitions out.
pub async fn backup(args: BackupArgs) -> Result<(), Failure> {
    let client = args.client.client().await?;
    let mut found = read_cluster(&client, args.client.vhost.as_str()).await?;
    if args.users {
        found.users = Some(users::to_json(&users::read(&client).await?)?);
        found.format = FORMAT_WITH_USERS;
    }
    let mut text = serde_json::to_vec_pretty(&found).map_err(Failure::not_done)?;
    text.push(b'\n');
    write_new(&args.file, &text)?;
    let Definitions { exchanges, queues, bindings, settings, virtual_host, users, .. } = found;
    let users = users.map(|users| users.len());
    if args.client.json {
        return print_json(&json!({
            "file": args.file, "virtual_host": virtual_host, "exchanges": exchanges.len(), "queues": queues.len(),
            "bindings": bindings.len(), "settings": settings.len(), "users": users,
        }));
    }
    let of_cluster = match users {
        Some(users) => {
            format!("{} and {} of the cluster", of(settings.len(), "setting"), of(users, "user"))
        }
        None => format!("{} of the cluster", of(settings.len(), "setting")),
    };
    print_line(&format!(
        "{}, {} and {} of virtual host {virtual_host}, and {of_cluster}, are written to {}. Messages are not in it: those are backed up with --data.",
        of(exchanges.len(), "exchange"),
        of(queues.len(), "queue"),
        of(bindings.len(), "binding"),
        args.file.display()
    ))
}

/// Carries `restore` of definitions out.
pub async fn restore(args: RestoreArgs) -> Result<(), Failure> {
    let in_file = |why: String| Failure::Usage(format!("{}: {why}", args.file.display()));
    let text = std::fs::read(&args.file).map_err(|error| in_file(error.to_string()))?;
    let wanted = parse(&text).map_err(in_file)?;
    if wanted.virtual_host != args.client.vhost.as_str() {
        return Err(in_file(format!(
            "it holds virtual host {}, and this is {}: give --vhost {}",
            wanted.virtual_host, args.client.vhost, wanted.virtual_host
        )));
    }
    let wanted_users = match (&wanted.users, args.users) {
        (Some(users), true) => Some(users),
        (None, true) => return Err(in_file("there are no users in it".to_owned())),
        (Some(users), false) => {
            eprintln!("{} in it too, restored only with --users", of(users.len(), "user"));
            None
        }
        (None, false) => None,
    };
    let client = args.client.client().await?;
    let found = read_cluster(&client, args.client.vhost.as_str()).await?;
    let mut plan = plan(&wanted, &found);
    if let Some(wanted) = wanted_users {
        plan.users = users::plan(wanted, &users::read(&client).await?).map_err(in_file)?;
        // Who restores comes last: with its old password back it is cut off.
        let me = args.client.login.user.as_ref();
        plan.users.sort_by_key(|restored| Some(restored.user()) == me);
        if !args.replace {
            let differences = plan.users.iter().filter_map(Restored::difference);
            plan.differences.extend(
                differences.map(|words| format!("{words} (--replace makes it the backup's)")),
            );
        }
    }
    if !plan.differences.is_empty() {
        return Err(Failure::NotDone(refusal(&plan.differences)));
    }
    check_room(&client, &plan).await?;
    if !args.dry_run {
        carry_out(&client, &plan).await?;
    }
    tell(&plan, args.dry_run, args.client.json)
}

fn parse(text: &[u8]) -> Result<Definitions, String> {
    if data::is_data(text) {
        return Err("this is a backup of data: restore it with --data".to_owned());
    }
    // The format first: of a later one nothing else need be as it is here.
    #[derive(Deserialize)]
    struct Versioned {
        format: u32,
    }
    let unreadable =
        |error: serde_json::Error| format!("this is no backup of definitions: {error}");
    let Versioned { format } = serde_json::from_slice(text).map_err(unreadable)?;
    if format > FORMAT_WITH_USERS {
        return Err(format!(
            "it was written in format {format}; this version of Bellwether knows formats up to {FORMAT_WITH_USERS}: restore it with a later version"
        ));
    }
    serde_json::from_slice(text).map_err(unreadable)
}

/// Never over an older backup: that may be the one that is needed.
fn write_new(path: &Path, text: &[u8]) -> Result<(), Failure> {
    use std::io::Write as _;
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::Usage(format!("{} is there already; choose another name", path.display()))
        }
        _ => Failure::NotDone(format!("{}: {error}", path.display())),
    };
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(MODE).open(path).map_err(failed)?;
    file.write_all(text).and_then(|()| file.sync_all()).map_err(failed)
}

async fn read_cluster(client: &Client, host: &str) -> Result<Definitions, Failure> {
    let exchanges = client.exchanges().await?.into_iter().filter(|(name, _)| !name.is_default());
    let exchanges = exchanges.map(|(name, kind)| (name.to_string(), name_of(kind).to_owned()));
    let queues = client.definitions().await?.into_iter().map(|(name, options)| {
        let QueueOptions { replicas, min_isr, strict: _, class } = options;
        // The definition names the number that the queue was made with.
        let min_isr = min_isr.unwrap_or(replicas / 2 + 1);
        (name.to_string(), Options { replicas, min_isr, class: class.into() })
    });
    let bindings = client.bindings(None).await?.into_iter().map(|binding| {
        let Binding { exchange, queue, routing_key } = binding;
        Bound {
            exchange: exchange.to_string(),
            queue: queue.to_string(),
            routing_key: routing_key.to_string(),
        }
    });
    Ok(Definitions {
        format: FORMAT,
        virtual_host: host.to_owned(),
        exchanges: exchanges.collect(),
        queues: queues.collect(),
        bindings: bindings.collect(),
        settings: client.settings().await?.into_iter().collect(),
        users: None,
    })
}

/// What is missing, and what is there in another form.
fn plan(wanted: &Definitions, found: &Definitions) -> Plan {
    let mut plan = Plan::default();
    for (name, kind) in &wanted.exchanges {
        match found.exchanges.get(name) {
            None => plan.exchanges.push((name.clone(), kind.clone())),
            Some(there) if there == kind => {}
            Some(there) => plan
                .differences
                .push(format!("exchange {name} is {there} here and {kind} in the backup")),
        }
    }
    for (name, options) in &wanted.queues {
        match found.queues.get(name) {
            None => plan.queues.push((name.clone(), options.clone())),
            Some(there) if there == options => {}
            Some(there) => plan
                .differences
                .push(format!("queue {name} has {there} here and {options} in the backup")),
        }
    }
    plan.bindings = wanted.bindings.difference(&found.bindings).cloned().collect();
    for (key, value) in &wanted.settings {
        match found.settings.get(key) {
            None => plan.settings.push((key.clone(), value.clone())),
            Some(there) if there == value => {}
            Some(there) => plan.differences.push(format!(
                "{key} is set to {there} for the cluster here and to {value} in the backup"
            )),
        }
    }
    plan
}

fn refusal(differences: &[String]) -> String {
    let mut words = "nothing is restored, because some of it is there in another form:".to_owned();
    for difference in differences.iter().take(DIFFERENCES_SHOWN) {
        words.push_str("\n  ");
        words.push_str(difference);
    }
    if let Some(more) = differences.len().checked_sub(DIFFERENCES_SHOWN).filter(|more| *more > 0) {
        words.push_str(&format!("\n  and {more} more"));
    }
    words.push_str("\nDelete what is not wanted here, or take it out of the backup.");
    words
}

/// Half a restore helps nobody: what does not fit is refused before anything is made. A backup that brings limits of its own is judged
/// by the brokers, once they have taken those in.
async fn check_room(client: &Client, plan: &Plan) -> Result<(), Failure> {
    let more = [
        (NumberOf::Exchanges, plan.exchanges.len()),
        (NumberOf::Queues, plan.queues.len()),
        (NumberOf::Bindings, plan.bindings.len()),
    ];
    let brings = |of: NumberOf| plan.settings.iter().any(|(key, _)| key == of.setting());
    let more: Vec<_> = more.into_iter().filter(|(of, more)| *more > 0 && !brings(*of)).collect();
    if more.is_empty() {
        return Ok(());
    }
    fits(&client.count_objects().await?, &more)
}

/// In this order: a binding needs both its ends, and limits may have to be raised before anything. Interrupted, it can be done again:
/// what is there is left alone.
async fn carry_out(client: &Client, plan: &Plan) -> Result<(), Failure> {
    for (key, value) in &plan.settings {
        client.change_setting(key, Some(value)).await?;
    }
    for (name, kind) in &plan.exchanges {
        let kind: ExchangeKind = kind_named(kind).map_err(Failure::Usage)?;
        client.declare_exchange(ExchangeName::new(name).map_err(Failure::usage)?, kind).await?;
    }
    for (name, Options { replicas, min_isr, class }) in &plan.queues {
        let options = QueueOptions {
            replicas: *replicas,
            min_isr: Some(*min_isr),
            class: (*class).into(),
            ..QueueOptions::default()
        };
        let name = QueueName::new(name).map_err(Failure::usage)?;
        if let Some(warning) = client.declare_with(name, options).await?.warning {
            eprintln!("{warning}");
        }
    }
    for Bound { exchange, queue, routing_key } in &plan.bindings {
        let key = RoutingKey::new(routing_key).map_err(Failure::usage)?;
        client.bind(exchange, queue, key).await?;
    }
    for user in &plan.users {
        user.carry_out(client).await?;
    }
    Ok(())
}

fn tell(plan: &Plan, dry_run: bool, json: bool) -> Result<(), Failure> {
    let Plan { exchanges, queues, bindings, settings, users, differences: _ } = plan;
    if json {
        return print_json(&json!({
            "dry_run": dry_run, "exchanges": exchanges.len(), "queues": queues.len(),
            "bindings": bindings.len(), "settings": settings.len(), "users": users.len(),
        }));
    }
    let verb = if dry_run { "would make" } else { "made" };
    print_line(&format!(
        "{verb} {}, {}, {}, {} and {} of the cluster; all else is there already",
        of(exchanges.len(), "exchange"),
        of(queues.len(), "queue"),
        of(bindings.len(), "binding"),
        of(settings.len(), "setting"),
        of(users.len(), "user")
    ))
}

/// So many of something whose many end in s.
fn of(number: usize, one: &str) -> String {
    counted(number as u64, one, &format!("{one}s"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn definitions() -> Definitions {
        let bound = Bound { exchange: "e".into(), queue: "q".into(), routing_key: "k".into() };
        Definitions {
            format: FORMAT,
            virtual_host: "/".into(),
            exchanges: [("e".into(), "direct".into())].into(),
            queues: [("q".into(), Options { replicas: 3, min_isr: 2, class: Class::Standard })]
                .into(),
            bindings: [bound].into(),
            settings: [("heartbeat".into(), "20s".into())].into(),
            users: None,
        }
    }

    #[test]
    fn what_is_there_already_is_left_alone_and_what_is_missing_is_made() {
        let wanted = definitions();
        assert_eq!(plan(&wanted, &wanted), Plan::default(), "a second time there is nothing to do");
        let everything = plan(&wanted, &Definitions::default());
        assert_eq!(
            (
                everything.exchanges.len(),
                everything.queues.len(),
                everything.bindings.len(),
                everything.settings.len()
            ),
            (1, 1, 1, 1)
        );
        assert!(everything.differences.is_empty());
        let mut more = wanted.clone();
        more.queues
            .insert("another".into(), Options { replicas: 1, min_isr: 1, class: Class::Standard });
        assert_eq!(
            plan(&wanted, &more),
            Plan::default(),
            "what only the cluster has is its own business"
        );
    }

    #[test]
    fn whatever_differs_is_named_with_both_forms() {
        let wanted = definitions();
        let mut there = wanted.clone();
        there.exchanges.insert("e".into(), "fanout".into());
        there.queues.insert("q".into(), Options { replicas: 3, min_isr: 1, class: Class::Vital });
        there.settings.insert("heartbeat".into(), "30s".into());
        let words = refusal(&plan(&wanted, &there).differences);
        for part in [
            "exchange e is fanout here and direct in the backup",
            "queue q has replicas 3, min_isr 1, class vital here and replicas 3, min_isr 2, class standard in the backup",
            "heartbeat is set to 30s for the cluster here and to 20s in the backup",
        ] {
            assert!(words.contains(part), "{words}");
        }
    }

    #[test]
    fn a_backup_reads_back_as_it_was_and_one_of_a_later_format_is_refused_naming_both() {
        let text = serde_json::to_vec(&definitions()).unwrap();
        assert_eq!(parse(&text), Ok(definitions()));
        let error = parse(br#"{"format": 3, "something": "else"}"#).unwrap_err();
        assert!(error.contains("format 3") && error.contains("up to 2"), "{error}");
        assert!(parse(b"[]").unwrap_err().contains("no backup of definitions"));
    }

    #[test]
    fn the_backup_of_the_first_release_is_still_understood() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/definitions-format-1.json");
        assert_eq!(parse(&std::fs::read(path).unwrap()), Ok(definitions()));
    }

    #[test]
    fn an_older_backup_is_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.json");
        write_new(&path, b"first").unwrap();
        let Err(Failure::Usage(words)) = write_new(&path, b"second") else { panic!("it was") };
        assert!(words.contains("is there already"), "{words}");
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "nobody else reads what is in it");
    }

    #[test]
    fn a_backup_of_data_is_recognised() {
        let error = parse(b"BELLDATA\0\0\0\x01").unwrap_err();
        assert!(error.contains("--data"), "{error}");
    }
}
