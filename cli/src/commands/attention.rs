//! What needs a person, worst first: what `cluster status` begins with.

use std::collections::BTreeSet;
use std::time::Duration;

use bellwether_client::{Attention, BrokerAddress, BrokerId, Client, ClusterStatus, Troubled};
use bellwether_protocol::names::VirtualHost;
use futures::stream::{FuturesUnordered, StreamExt as _};

use super::explain::words::brokers;
use super::table::grouped;

/// How long one broker may take. A frozen one must not hold up what the others say.
const PATIENCE: Duration = Duration::from_secs(3);
/// Queues of each kind that are named; the rest is a number.
pub const NAMED_MAX: u32 = 5;

/// What a broker says needs a person, or that it does not answer.
pub type Answered = (BrokerId, Option<Attention>);

/// Asks every live broker.
pub async fn ask(client: &Client, status: &ClusterStatus, limit: u32) -> Vec<Answered> {
    let mut answers: Vec<Answered> = asked(client, status, limit).collect().await;
    answers.sort_by_key(|(broker, _)| *broker);
    answers
}

/// What the first broker says that answers.
pub async fn first(client: &Client, status: &ClusterStatus, limit: u32) -> Option<Attention> {
    let mut asked = asked(client, status, limit);
    while let Some((_, answer)) = asked.next().await {
        if answer.is_some() {
            return answer;
        }
    }
    None
}

fn asked<'a>(
    client: &'a Client,
    status: &ClusterStatus,
    limit: u32,
) -> FuturesUnordered<impl Future<Output = Answered> + use<'a>> {
    let addresses = status.brokers.iter().map(|broker| broker.address.clone());
    addresses
        .map(|address: BrokerAddress| async move {
            let answer = client.attention(&address, limit, PATIENCE).await;
            (address.broker, answer.ok())
        })
        .collect()
}

/// The cluster as all brokers together see it. What is shown, the verdict and the numbers, is of this one view: each broker is a moment
/// ahead of or behind the others, and "all is well" beside a number that is not zero would be believed.
pub struct View<'a> {
    status: &'a ClusterStatus,
    answers: &'a [Answered],
    /// Of each kind, what the broker says that knows of most.
    pub without_leader: Troubled,
    pub tainted: Troubled,
    pub below_min_isr: Troubled,
    pub under_replicated: Troubled,
}

impl<'a> View<'a> {
    /// The worst of what all say.
    pub fn new(status: &'a ClusterStatus, answers: &'a [Answered]) -> View<'a> {
        let worst = |counted: u64, kind: fn(&Attention) -> &Troubled| {
            let said = answers.iter().filter_map(|(_, answer)| answer.as_ref()).map(kind);
            let mut worst = said.rev().max_by_key(|said| said.count).cloned().unwrap_or_default();
            worst.count = worst.count.max(counted);
            worst
        };
        View {
            status,
            answers,
            without_leader: worst(status.queues_without_leader, |said| &said.without_leader),
            tainted: worst(0, |said| &said.tainted),
            below_min_isr: worst(0, |said| &said.below_min_isr),
            under_replicated: worst(status.queues_under_replicated, |said| &said.under_replicated),
        }
    }

    /// Lines, worst first; none when all is well.
    pub fn worst_first(&self) -> Vec<String> {
        let heard: Vec<&Attention> =
            self.answers.iter().filter_map(|(_, answer)| answer.as_ref()).collect();
        let mut lines = Vec::new();
        if !self.status.coordinator_connected {
            lines.push("The coordinator cannot be reached: no elections, no declarations, and what follows is what was last heard.".to_owned());
        }
        lines.extend(queues("without a leader", &self.without_leader, "explain"));
        lines.extend(stopped(&heard));
        lines.extend(which(
            &heard,
            |one| one.store_failed,
            "has a disk that failed: replace it and restart the broker",
        ));
        lines.extend(queues("tainted (a leader was forced on them)", &self.tainted, "explain"));
        lines.extend(queues("below min-isr: they confirm nothing", &self.below_min_isr, "explain"));
        lines.extend(queues("under-replicated", &self.under_replicated, "explain"));
        let absent: Vec<BrokerId> = self.status.absent.iter().map(|absent| absent.broker).collect();
        if !absent.is_empty() {
            lines.push(format!("Not live: {}.", brokers(&absent)));
        }
        let silent: Vec<BrokerId> = self
            .answers
            .iter()
            .filter(|(_, answer)| answer.is_none())
            .map(|(broker, _)| *broker)
            .collect();
        if !silent.is_empty() {
            lines.push(format!("Live, but silent: {}.", brokers(&silent)));
        }
        lines.extend(which(
            &heard,
            |one| one.disk_full,
            "has a disk that is nearly full: publishes are refused there, those to queues of class vital last",
        ));
        lines.extend(which(
            &heard,
            |one| one.disk_low && !one.disk_full,
            "has a disk that fills: producers are slowed there, and publishes to queues of class bulk refused",
        ));
        lines
    }
}

fn queues(what: &str, troubled: &Troubled, ask: &str) -> Option<String> {
    if troubled.count == 0 {
        return None;
    }
    let named = troubled.first.iter().map(|(host, name)| full(host, name.as_str()));
    let first = troubled.first.first().map(|(_, name)| name.as_str()).unwrap_or("NAME");
    Some(format!(
        "Queues {what}: {}{} — `bellwether queue {ask} {first}`",
        grouped(troubled.count),
        list(named.collect(), troubled.count)
    ))
}

fn full(host: &VirtualHost, name: &str) -> String {
    if host.as_str() == "/" { name.to_owned() } else { format!("{host}:{name}") }
}

fn list(named: Vec<String>, count: u64) -> String {
    if named.is_empty() {
        return String::new();
    }
    let rest = if (named.len() as u64) < count { ", …" } else { "" };
    format!(" ({}{rest})", named.join(", "))
}

fn stopped(heard: &[&Attention]) -> Option<String> {
    let count: u64 = heard.iter().map(|one| one.stopped_count).sum();
    if count == 0 {
        return None;
    }
    let named: BTreeSet<String> = heard
        .iter()
        .flat_map(|one| one.stopped.iter().map(|s| (one.broker, s)))
        .map(|(broker, copy)| {
            format!("{} on broker {broker}", full(&copy.virtual_host, copy.queue.as_str()))
        })
        .collect();
    let named: Vec<String> = named.into_iter().take(NAMED_MAX as usize).collect();
    Some(format!("Copies that stopped themselves: {}{}", grouped(count), list(named, count)))
}

fn which(heard: &[&Attention], is_so: impl Fn(&Attention) -> bool, what: &str) -> Vec<String> {
    let those = heard.iter().filter(|one| is_so(one));
    those.map(|one| format!("Broker {} {what}.", one.broker)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellwether_client::{AbsentBroker, BrokerStatus, QueueName, StoppedCopy};
    use bellwether_protocol::ids::ClusterId;

    fn troubled(name: &str) -> Troubled {
        Troubled { count: 1, first: vec![(VirtualHost::default(), QueueName::new(name).unwrap())] }
    }

    fn calm(broker: u32) -> Attention {
        Attention::calm(BrokerId(broker))
    }

    fn status(absent: Vec<AbsentBroker>) -> ClusterStatus {
        let broker = |id: u32| BrokerStatus {
            address: BrokerAddress { broker: BrokerId(id), address: format!("h:{id}") },
            incarnation: String::new(),
            version: String::new(),
            leads: 0,
            copies: 0,
            drain: None,
        };
        ClusterStatus {
            cluster: ClusterId(uuid::Uuid::from_u128(1)),
            brokers: vec![broker(1), broker(2)],
            coordinator_connected: true,
            session_timeout_ms: 6000,
            queues: 9,
            queues_without_leader: 0,
            queues_under_replicated: 0,
            absent,
            controller: None,
            tombstones: Vec::new(),
        }
    }

    #[test]
    fn nothing_is_said_of_a_cluster_that_is_well() {
        let answers = [1, 2].map(|id| (BrokerId(id), Some(calm(id))));
        assert_eq!(View::new(&status(Vec::new()), &answers).worst_first(), Vec::<String>::new());
    }

    /// "All is well." stood above "under-replicated 1": the lines were of one broker, the numbers of another.
    #[test]
    fn all_is_well_only_where_every_number_that_is_shown_is_zero() {
        let calm_answers = [1, 2].map(|id| (BrokerId(id), Some(calm(id))));
        let counts = |view: &View<'_>| (view.without_leader.count, view.under_replicated.count);

        let behind = ClusterStatus { queues_under_replicated: 1, ..status(Vec::new()) };
        let view = View::new(&behind, &calm_answers);
        assert_eq!(counts(&view), (0, 1));
        let lines = view.worst_first();
        assert!(
            lines[0].contains("under-replicated: 1 — `bellwether queue explain NAME`"),
            "{lines:?}"
        );

        // Whichever broker says so, and however calm the first one is.
        let mut answers = calm_answers.clone();
        answers[1].1.as_mut().unwrap().without_leader = troubled("a");
        let well = status(Vec::new());
        let view = View::new(&well, &answers);
        assert_eq!(counts(&view), (1, 0));
        assert!(view.worst_first()[0].contains("without a leader: 1 (a)"));

        // Names of the broker that knows most, the number of whoever counts most.
        answers[0].1.as_mut().unwrap().without_leader = Troubled { count: 2, ..troubled("b") };
        let worse = ClusterStatus { queues_without_leader: 3, ..status(Vec::new()) };
        let view = View::new(&worse, &answers);
        assert_eq!(counts(&view), (3, 0));
        assert!(view.worst_first()[0].contains("without a leader: 3 (b, …)"));
    }

    #[test]
    fn the_worst_comes_first() {
        let mut one = calm(1);
        one.without_leader = troubled("a");
        one.tainted = troubled("b");
        one.below_min_isr = troubled("c");
        one.under_replicated = Troubled { count: 7, ..troubled("d") };
        one.disk_full = true;
        one.stopped_count = 1;
        one.stopped = vec![StoppedCopy {
            virtual_host: VirtualHost::default(),
            queue: QueueName::new("e").unwrap(),
            why: "its log is damaged".to_owned(),
        }];
        let away = vec![AbsentBroker { broker: BrokerId(3), copies: 4, drain: None }];
        let answers = [(BrokerId(1), Some(one)), (BrokerId(2), None)];
        let status = status(away);
        let lines = View::new(&status, &answers).worst_first();
        let expected = [
            "without a leader: 1 (a)",
            "stopped themselves: 1 (e on broker 1)",
            "tainted (a leader was forced on them): 1 (b)",
            "below min-isr: they confirm nothing: 1 (c)",
            "under-replicated: 7 (d, …)",
            "Not live: broker 3.",
            "Live, but silent: broker 2.",
            "Broker 1 has a disk that is nearly full",
        ];
        assert_eq!(lines.len(), expected.len(), "{lines:#?}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.contains(expected), "{line:?} lacks {expected:?}");
        }
    }
}
