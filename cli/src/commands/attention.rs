//! What needs a person, worst first: what `cluster status` begins with.

use std::collections::BTreeSet;
use std::time::Duration;

use bellwether_broker::words::in_shell;
use bellwether_client::{
    Attention, BrokerAddress, BrokerId, Client, ClusterStatus, ErrorCode, QueryError, Troubled,
};
use bellwether_protocol::names::VirtualHost;
use futures::stream::{FuturesUnordered, StreamExt as _};

use super::explain::words::brokers;
use super::stuck::in_command;
use super::table::grouped;

/// How long one broker may take. A frozen one must not hold up what the others say.
const PATIENCE: Duration = Duration::from_secs(3);
/// Queues of each kind that are named; the rest is a number.
pub const NAMED_MAX: u32 = 5;

/// What a broker says needs a person, or why it was not heard.
pub type Answered = (BrokerId, Result<Attention, Unheard>);

/// Why a live broker was not heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unheard {
    /// It speaks TLS, and this command does not.
    SpeaksTls,
    /// It answered, and not with what was asked.
    Refused(String),
    /// It did not answer.
    Silent(String),
}

impl From<QueryError> for Unheard {
    fn from(error: QueryError) -> Unheard {
        match error {
            QueryError::Refused { code: ErrorCode::TlsExpected, .. } => Unheard::SpeaksTls,
            QueryError::Refused { message, .. } => Unheard::Refused(message),
            QueryError::Unavailable { last, .. } => Unheard::Silent(last),
            other => Unheard::Silent(other.to_string()),
        }
    }
}

/// Asks every live broker.
pub async fn ask(client: &Client, status: &ClusterStatus, limit: u32) -> Vec<Answered> {
    let mut answers: Vec<Answered> = asked(client, status, limit).collect().await;
    answers.sort_by_key(|(broker, _)| *broker);
    answers
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
            (address.broker, answer.map_err(Unheard::from))
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
    /// What nobody can take, a line each.
    stuck: Vec<String>,
}

impl<'a> View<'a> {
    /// The worst of what all say.
    pub fn new(status: &'a ClusterStatus, answers: &'a [Answered], stuck: Vec<String>) -> View<'a> {
        let worst = |counted: u64, kind: fn(&Attention) -> &Troubled| {
            let said = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).map(kind);
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
            stuck,
        }
    }

    /// Lines, worst first; none when all is well.
    pub fn worst_first(&self) -> Vec<String> {
        let heard: Vec<&Attention> =
            self.answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).collect();
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
        lines.extend(self.stuck.iter().cloned());
        let absent: Vec<BrokerId> = self.status.absent.iter().map(|absent| absent.broker).collect();
        if !absent.is_empty() {
            lines.push(format!("Not live: {}.", brokers(&absent)));
        }
        lines.extend(unheard(self.answers));
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

fn unheard(answers: &[Answered]) -> Vec<String> {
    let (mut secure, mut lines) = (Vec::new(), Vec::new());
    for (broker, answer) in answers {
        match answer {
            Ok(_) => {}
            Err(Unheard::SpeaksTls) => secure.push(*broker),
            Err(Unheard::Refused(why)) => {
                lines.push(format!("Live, but broker {broker} does not tell how it is: {why}."));
            }
            Err(Unheard::Silent(why)) => {
                lines.push(format!("Live, but not heard: broker {broker} ({why})."));
            }
        }
    }
    if !secure.is_empty() {
        let speak = if secure.len() == 1 { "speaks" } else { "speak" };
        lines.push(format!(
            "Live, but not heard: {} {speak} TLS, and this command does not. Say --tls, or --tls-ca FILE with the authority of their certificates.",
            brokers(&secure)
        ));
    }
    lines
}

fn queues(what: &str, troubled: &Troubled, ask: &str) -> Option<String> {
    if troubled.count == 0 {
        return None;
    }
    let named = troubled.first.iter().map(|(host, name)| full(host, name.as_str()));
    let first = troubled.first.first().map(|(host, name)| in_command(host, name.as_str()));
    let first = first.unwrap_or_else(|| "NAME".to_owned());
    Some(format!(
        "Queues {what}: {}{} — `bellwether queue {ask} {first}`",
        grouped(troubled.count),
        list(named.collect(), troubled.count)
    ))
}

fn full(host: &VirtualHost, name: &str) -> String {
    match host.as_str() {
        "/" => in_shell(name),
        host => format!("{}:{}", in_shell(host), in_shell(name)),
    }
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
        let answers = [1, 2].map(|id| (BrokerId(id), Ok(calm(id))));
        assert_eq!(
            View::new(&status(Vec::new()), &answers, Vec::new()).worst_first(),
            Vec::<String>::new()
        );
    }

    /// "All is well." stood above "under-replicated 1": the lines were of one broker, the numbers of another.
    #[test]
    fn all_is_well_only_where_every_number_that_is_shown_is_zero() {
        let calm_answers = [1, 2].map(|id| (BrokerId(id), Ok(calm(id))));
        let counts = |view: &View<'_>| (view.without_leader.count, view.under_replicated.count);

        let behind = ClusterStatus { queues_under_replicated: 1, ..status(Vec::new()) };
        let view = View::new(&behind, &calm_answers, Vec::new());
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
        let view = View::new(&well, &answers, Vec::new());
        assert_eq!(counts(&view), (1, 0));
        assert!(view.worst_first()[0].contains("without a leader: 1 (a)"));

        // Names of the broker that knows most, the number of whoever counts most.
        answers[0].1.as_mut().unwrap().without_leader = Troubled { count: 2, ..troubled("b") };
        let worse = ClusterStatus { queues_without_leader: 3, ..status(Vec::new()) };
        let view = View::new(&worse, &answers, Vec::new());
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
        let silent = Unheard::Silent("h:2 did not answer within 3.0s".to_owned());
        let answers = [(BrokerId(1), Ok(one)), (BrokerId(2), Err(silent))];
        let status = status(away);
        let stuck = vec!["12 queues need 3 copies each".to_owned()];
        let lines = View::new(&status, &answers, stuck).worst_first();
        let expected = [
            "without a leader: 1 (a)",
            "stopped themselves: 1 (e on broker 1)",
            "tainted (a leader was forced on them): 1 (b)",
            "below min-isr: they confirm nothing: 1 (c)",
            "under-replicated: 7 (d, …)",
            "12 queues need 3 copies each",
            "Not live: broker 3.",
            "Live, but not heard: broker 2 (h:2 did not answer within 3.0s).",
            "Broker 1 has a disk that is nearly full",
        ];
        assert_eq!(lines.len(), expected.len(), "{lines:#?}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.contains(expected), "{line:?} lacks {expected:?}");
        }
    }

    #[test]
    fn brokers_that_speak_tls_are_not_called_silent() {
        let refused = |code| QueryError::Refused { code, message: "no".to_owned() };
        let tls = || Err(Unheard::from(refused(ErrorCode::TlsExpected)));
        let status = status(Vec::new());
        let both = [(BrokerId(1), tls()), (BrokerId(2), tls())];
        let lines = View::new(&status, &both, Vec::new()).worst_first();
        assert_eq!(
            lines,
            [
                "Live, but not heard: brokers 1 and 2 speak TLS, and this command does not. Say --tls, or --tls-ca FILE with the authority of their certificates."
            ]
        );
        let turned_away = Err(Unheard::from(refused(ErrorCode::LoginRefused)));
        let one = [(BrokerId(1), turned_away), (BrokerId(2), Ok(calm(2)))];
        let lines = View::new(&status, &one, Vec::new()).worst_first();
        assert_eq!(lines, ["Live, but broker 1 does not tell how it is: no."]);
    }

    #[test]
    fn a_name_is_quoted_in_the_command_that_is_suggested() {
        let mut one = calm(1);
        one.without_leader = troubled("two words");
        let lines = queues("without a leader", &one.without_leader, "explain").unwrap();
        assert!(lines.ends_with("`bellwether queue explain 'two words'`"), "{lines}");
    }
}
