//! `bellwether cluster`: who is there, how the queues are, and brokers that come and go.

use std::time::{Duration, Instant};

use bellwether_client::{BrokerId, Client, ClusterStatus, Drain};
use clap::{Args, Subcommand};
use serde_json::json;

use super::explain::words::brokers;
use super::table::{counted, grouped, print_json, print_line, print_table, table};
use super::{ClientArgs, attention, stuck};
use crate::outcome::Failure;
use crate::progress;
use crate::signals::Signals;

/// How often it is looked how far a broker is drained.
const LOOK: Duration = Duration::from_millis(500);

/// When nothing has moved for so long, and nothing is known to stand in the way, it says so.
const PATIENCE: Duration = Duration::from_secs(30);

/// Flags of `cluster`.
#[derive(Args, Debug)]
pub struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Subcommand, Debug)]
enum ClusterCommand {
    /// Show what needs a person, worst first; then the brokers, what they lead and hold, and how the queues are
    Status,
    /// Move the leaderships away from a broker, before work on it; with --replicas the copies, too
    Drain {
        /// The broker's number, as `cluster status` shows it
        #[arg(value_name = "ID", value_parser = broker_number)]
        broker: u32,
        /// Move its copies to other brokers, too
        #[arg(long)]
        replicas: bool,
        /// Take the drain back: the broker leads and holds its share again
        #[arg(long, conflicts_with = "replicas")]
        undo: bool,
        #[command(flatten)]
        how: DrainHow,
    },
    /// Move everything away from a broker that goes for good, live or not
    Retire {
        /// The broker's number, as `cluster status` shows it
        #[arg(value_name = "ID", value_parser = broker_number)]
        broker: u32,
        #[command(flatten)]
        how: DrainHow,
    },
    /// Wait until copies and leaderships are spread evenly; with --dry-run show what is to be moved
    Rebalance {
        #[command(flatten)]
        how: DrainHow,
    },
    /// Show how many queues, exchanges and bindings there are, and how many there may be
    Limits,
    /// Show and change settings of all brokers while they run
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Subcommand, Debug)]
enum ConfigCommand {
    /// Set something for all brokers that are not told otherwise by their own file, environment or flags
    Set {
        /// The setting's name, as in a configuration file
        key: String,
        /// Its value, as in a configuration file
        value: String,
    },
    /// Take that back
    Unset {
        /// The setting's name, as in a configuration file
        key: String,
    },
    /// Show what is set for the whole cluster
    List,
}

fn broker_number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| {
        "brokers have numbers, such as 2; `bellwether cluster status` lists them".to_owned()
    })
}

#[derive(Args, Clone, Copy, Debug)]
struct DrainHow {
    /// Only say what would be moved, and what of it nobody could take
    #[arg(long)]
    dry_run: bool,
    /// Do not wait until it is moved
    #[arg(long)]
    no_wait: bool,
}

/// Carries a command out.
pub async fn run(args: ClusterArgs) -> Result<(), Failure> {
    let client = args.client.client().await?;
    let json = args.client.json;
    match args.command {
        ClusterCommand::Status => {
            let status = client.cluster_status().await?;
            let answers = attention::ask(&client, &status, attention::NAMED_MAX).await;
            let stuck = stuck::lines(&stuck::ask(&client, None).await?, &status, None);
            let view = attention::View::new(&status, &answers, stuck);
            if json { print_json(&as_json(&status, &view)) } else { print(&status, &view) }
        }
        ClusterCommand::Limits => super::numbers::show(&client, json).await,
        ClusterCommand::Config { command } => configure(&client, json, command).await,
        ClusterCommand::Drain { broker, undo: true, how, .. } => {
            undo(&client, json, broker, how.dry_run).await
        }
        ClusterCommand::Drain { broker, replicas, how, .. } => {
            let wanted = if replicas { Wanted::Copies } else { Wanted::Leaderships };
            empty(&client, json, broker, wanted, how).await
        }
        ClusterCommand::Rebalance { how: DrainHow { dry_run: false, no_wait: false } } => {
            super::rebalance::wait_until_even(&client, json).await
        }
        ClusterCommand::Rebalance { .. } => super::rebalance::show(&client, json).await,
        ClusterCommand::Retire { broker, how } => {
            empty(&client, json, broker, Wanted::Retired, how).await
        }
    }
}

async fn configure(client: &Client, json: bool, command: ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Set { key, value } => {
            client.change_setting(&key, Some(&value)).await?;
            settled(
                json,
                &key,
                Some(&value),
                "every broker takes it in that is not told otherwise by its own file, environment or flags",
            )
        }
        ConfigCommand::Unset { key } => {
            let was = client.settings().await?.into_iter().any(|(one, _)| one == key);
            client.change_setting(&key, None).await?;
            if !was && !json {
                return print_line(&format!(
                    "{key} was not set for the whole cluster: nothing is changed"
                ));
            }
            settled(json, &key, None, "every broker goes by its own configuration")
        }
        ConfigCommand::List => {
            let settings = client.settings().await?;
            if json {
                let object: serde_json::Map<_, _> =
                    settings.into_iter().map(|(key, value)| (key, value.into())).collect();
                return print_json(&object.into());
            }
            if settings.is_empty() {
                return print_line("Nothing is set for the whole cluster.");
            }
            let mut rows = table(&["setting", "value"]);
            for (key, value) in settings {
                rows.add_row([key, value]);
            }
            print_table(&rows)
        }
    }
}

fn settled(json: bool, key: &str, value: Option<&str>, words: &str) -> Result<(), Failure> {
    if json {
        return print_json(&json!({ "setting": key, "value": value }));
    }
    match value {
        Some(value) => print_line(&format!("{key} = {value} for the whole cluster: {words}")),
        None => print_line(&format!("{key} is not set for the cluster any more: {words}")),
    }
}

/// What there is to be moved away from a broker, in numbers of queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Left {
    leads: u64,
    copies: u64,
}

impl Left {
    fn of(status: &ClusterStatus, broker: u32, drain: Drain) -> Option<Left> {
        let live = status.brokers.iter().find(|one| one.address.broker.0 == broker);
        let absent = status.absent.iter().find(|one| one.broker.0 == broker);
        let waited = status.tombstones.iter().any(|(one, _)| one.0 == broker);
        let (leads, copies) = match (live, absent) {
            (Some(broker), _) => (broker.leads, broker.copies),
            (None, Some(broker)) => (0, broker.copies),
            // Nothing is on it but what was deleted.
            (None, None) if waited => (0, 0),
            (None, None) => return None,
        };
        Some(Left { leads, copies: if drain == Drain::Copies { copies } else { 0 } })
    }

    fn all(self) -> u64 {
        self.leads + self.copies
    }

    fn words(self, drain: Drain) -> String {
        let leads = counted(self.leads, "leadership", "leaderships");
        match drain {
            Drain::Leaderships => leads,
            Drain::Copies => format!("{leads} and {}", counted(self.copies, "copy", "copies")),
        }
    }
}

/// What an operator wants of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Leaderships,
    Copies,
    Retired,
}

async fn empty(
    client: &Client,
    json: bool,
    broker: u32,
    wanted: Wanted,
    how: DrainHow,
) -> Result<(), Failure> {
    let drain = match wanted {
        Wanted::Leaderships => Drain::Leaderships,
        Wanted::Copies | Wanted::Retired => Drain::Copies,
    };
    let status = client.cluster_status().await?;
    let Some(before) = Left::of(&status, broker, drain) else {
        return Err(Failure::NotDone(no_broker(&status, broker)));
    };
    let suppose = (BrokerId(broker), drain);
    let stuck = stuck::lines(
        &stuck::ask(client, Some(suppose)).await?,
        &status,
        how.dry_run.then_some(BrokerId(broker)),
    );
    let others = |one: &&bellwether_client::BrokerStatus| {
        one.address.broker.0 != broker && one.drain.is_none()
    };
    if before.copies > 0 && status.brokers.iter().filter(others).count() == 0 {
        return Err(Failure::NotDone(format!(
            "there is no other broker that could take the copies of broker {broker}: one that is live and drained of nothing. Start one first"
        )));
    }
    if how.dry_run {
        return say_stuck(
            json,
            broker,
            &format!("would move {} away from broker {broker}", before.words(drain)),
            &stuck,
        );
    }
    match wanted {
        Wanted::Retired => client.retire(BrokerId(broker)).await?,
        Wanted::Leaderships | Wanted::Copies => client.drain(BrokerId(broker), Some(drain)).await?,
    }
    if how.no_wait {
        return say_stuck(
            json,
            broker,
            &format!(
                "moving {} away from broker {broker}; `bellwether cluster status` shows how far it is",
                before.words(drain)
            ),
            &stuck,
        );
    }
    wait_until_moved(client, broker, drain, before).await?;
    let next = match wanted {
        Wanted::Leaderships => {
            format!("work on it, and then say `bellwether cluster drain {broker} --undo`")
        }
        Wanted::Copies => "it can be stopped for good; say `bellwether cluster retire` of it when it does not come back with this disk".to_owned(),
        Wanted::Retired => "it can be stopped for good".to_owned(),
    };
    say(json, broker, &format!("{} moved away from broker {broker}: {next}", before.words(drain)))
}

async fn wait_until_moved(
    client: &Client,
    broker: u32,
    drain: Drain,
    before: Left,
) -> Result<(), Failure> {
    let bar = progress::bar(&progress::board(), "moved", Some(before.all()));
    let mut signals = Signals::catch()?;
    let mut moved = (before.all(), Instant::now());
    let mut told = stuck::Told::new(Some((BrokerId(broker), drain)));
    loop {
        let status = client.cluster_status().await?;
        let left = Left::of(&status, broker, drain).map_or(0, Left::all);
        bar.set_position(before.all().saturating_sub(left));
        if left == 0 {
            bar.finish_and_clear();
            return Ok(());
        }
        let words = counted(left, "copy or leadership is", "copies and leaderships are");
        told.tell(client, &status, &words, &bar).await?;
        if left < moved.0 {
            moved = (left, Instant::now());
        } else if moved.1.elapsed() > PATIENCE {
            bar.suspend(|| eprintln!("Nothing has moved for {} s: {words} left. `bellwether cluster status` says what is wrong, `bellwether cluster drain {broker} --undo` takes the drain back.", PATIENCE.as_secs()));
            moved.1 = Instant::now();
        }
        tokio::select! {
            () = signals.next() => {
                bar.finish_and_clear();
                eprintln!("The drain of broker {broker} goes on without this command; `bellwether cluster drain {broker} --undo` takes it back.");
                return Err(Failure::Interrupted);
            }
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Takes a drain back, if there is one.
async fn undo(client: &Client, json: bool, broker: u32, dry_run: bool) -> Result<(), Failure> {
    let status = client.cluster_status().await?;
    let live = status.brokers.iter().find(|one| one.address.broker.0 == broker);
    let absent = status.absent.iter().find(|one| one.broker.0 == broker);
    let drain = match (live, absent) {
        (Some(live), _) => live.drain,
        (None, Some(absent)) => absent.drain,
        (None, None) => return Err(Failure::NotDone(no_broker(&status, broker))),
    };
    if !dry_run {
        // Also where none is known: the broker that answers may not have heard of it yet.
        client.drain(BrokerId(broker), None).await?;
    }
    let words = match (drain, dry_run) {
        (None, _) => format!("broker {broker} was not drained: there is nothing to take back"),
        (Some(_), true) => format!("would take the drain of broker {broker} back"),
        (Some(_), false) => format!("broker {broker} leads and holds its share again"),
    };
    say(json, broker, &words)
}

fn no_broker(status: &ClusterStatus, broker: u32) -> String {
    let mut live: Vec<BrokerId> = status.brokers.iter().map(|one| one.address.broker).collect();
    live.sort_unstable();
    format!(
        "there is no broker {broker}: none of that number is live, and no queue counts on one; live: {}",
        brokers(&live)
    )
}

/// With what of it nobody can take.
fn say_stuck(json: bool, broker: u32, words: &str, stuck: &[String]) -> Result<(), Failure> {
    if json {
        return print_json(&json!({ "broker": broker, "message": words, "stuck": stuck }));
    }
    print_line(words)?;
    if !stuck.is_empty() {
        print_line("But as things stand, some of it cannot go:")?;
    }
    stuck.iter().try_for_each(|line| print_line(&format!("  - {line}")))
}

fn say(json: bool, broker: u32, words: &str) -> Result<(), Failure> {
    if json {
        print_json(&json!({ "broker": broker, "message": words }))
    } else {
        print_line(words)
    }
}

fn drain_name(drain: Option<Drain>) -> Option<&'static str> {
    drain.map(|drain| match drain {
        Drain::Leaderships => "leaderships",
        Drain::Copies => "copies",
    })
}

fn as_json(status: &ClusterStatus, view: &attention::View<'_>) -> serde_json::Value {
    let brokers = status.brokers.iter().map(|broker| {
        json!({
            "id": broker.address.broker.0,
            "address": broker.address.address,
            "incarnation": broker.incarnation,
            "version": broker.version,
            "leads": broker.leads,
            "copies": broker.copies,
            "drain": drain_name(broker.drain),
        })
    });
    let absent = status.absent.iter().map(|broker| {
        json!({
            "id": broker.broker.0,
            "copies": broker.copies,
            "drain": drain_name(broker.drain),
        })
    });
    json!({
        "cluster": status.cluster.to_string(),
        "attention": view.worst_first(),
        "brokers": brokers.collect::<Vec<_>>(),
        "absent": absent.collect::<Vec<_>>(),
        "controller": status.controller.map(|broker| broker.0),
        "coordinator_connected": status.coordinator_connected,
        "session_timeout_ms": status.session_timeout_ms,
        "queues": status.queues,
        "queues_without_leader": view.without_leader.count,
        "queues_under_replicated": view.under_replicated.count,
        "tombstones": status.tombstones.iter().map(|(broker, count)| json!({ "broker": broker.0, "count": count })).collect::<Vec<_>>(),
    })
}

/// Whom deleted queues wait for. Brokers that are there see to it within moments.
fn tombstones(status: &ClusterStatus) -> Option<String> {
    let is_live = |broker: BrokerId| status.brokers.iter().any(|one| one.address.broker == broker);
    let away = status.tombstones.iter().filter(|(broker, _)| !is_live(*broker));
    let each: Vec<String> =
        away.map(|(broker, count)| format!("broker {broker} ({})", grouped(*count))).collect();
    (!each.is_empty()).then(|| {
        format!(
            "Deleted queues that may lie on disks of brokers that are not live: {}. They drop them when they come back; `cluster retire` if one never does.",
            each.join(", ")
        )
    })
}

fn print(status: &ClusterStatus, view: &attention::View<'_>) -> Result<(), Failure> {
    let troubles = view.worst_first();
    match troubles[..] {
        [] => print_line("All is well.\n")?,
        _ => print_line("Needs a person, worst first:")?,
    }
    for line in &troubles {
        print_line(&format!("  - {line}"))?;
    }
    if !troubles.is_empty() {
        print_line("")?;
    }
    let connected = if status.coordinator_connected { "connected" } else { "NOT CONNECTED" };
    let controller = status
        .controller
        .map_or_else(|| "none".to_owned(), |controller| format!("broker {controller}"));
    print_line(&format!("Cluster {}", status.cluster))?;
    print_line(&format!(
        "Coordinator: {connected}, session time-out {} ms; controller: {controller}",
        status.session_timeout_ms
    ))?;
    print_line(&format!(
        "Queues: {}, without a leader {}, under-replicated {}",
        grouped(status.queues),
        grouped(view.without_leader.count),
        grouped(view.under_replicated.count),
    ))?;
    if let Some(line) = tombstones(status) {
        print_line(&line)?;
    }
    print_line("")?;
    let mut rows =
        table(&["broker", "address", "leads", "copies", "drain", "version", "incarnation"]);
    let drain = |drain| drain_name(drain).unwrap_or("-").to_owned();
    // What is missing first: it is what one looks for at night.
    for broker in &status.absent {
        rows.add_row([
            broker.broker.to_string(),
            "NOT LIVE".to_owned(),
            "-".to_owned(),
            grouped(broker.copies),
            drain(broker.drain),
            "-".to_owned(),
            "-".to_owned(),
        ]);
    }
    for broker in &status.brokers {
        rows.add_row([
            broker.address.broker.to_string(),
            broker.address.address.clone(),
            grouped(broker.leads),
            grouped(broker.copies),
            drain(broker.drain),
            broker.version.clone(),
            broker.incarnation.clone(),
        ]);
    }
    print_table(&rows)
}
