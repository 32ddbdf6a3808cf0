//! What nobody can take, in words: which queues, why, and what would help. Said before something is moved, and while it is waited for.

use std::time::{Duration, Instant};

use bellwether_broker::words::in_shell;
use bellwether_client::{
    BrokerId, Client, ClusterStatus, Drain, ErrorCode, Moved, QueryError, Stuck, StuckQueues,
};
use bellwether_protocol::names::VirtualHost;
use indicatif::ProgressBar;

use super::explain::words::brokers;
use super::table::counted;
use crate::outcome::Failure;

/// Queues of each kind that are named; the rest is a number.
const NAMED_MAX: u32 = 5;

/// How often it is said again while something is waited for.
const AGAIN: Duration = Duration::from_secs(30);

/// What is stuck, as things stand, or as it would be if this were to be moved away from a broker. Nothing where a broker of an
/// earlier version answers, which cannot tell.
pub async fn ask(client: &Client, suppose: Option<(BrokerId, Drain)>) -> Result<Stuck, Failure> {
    match client.stuck(suppose, NAMED_MAX).await {
        Err(QueryError::Refused { code: ErrorCode::MalformedFrame, .. }) => Ok(Stuck::default()),
        answer => Ok(answer?),
    }
}

/// A line for each kind of trouble. `supposed`: what is said is of a drain that was not asked for yet.
pub fn lines(stuck: &Stuck, status: &ClusterStatus, supposed: Option<BrokerId>) -> Vec<String> {
    let remedy = remedy(stuck, status, supposed);
    stuck.queues.iter().map(|one| format!("{}: {remedy}.", trouble(one, &stuck.takers))).collect()
}

fn trouble(one: &StuckQueues, takers: &[BrokerId]) -> String {
    let queues = format!(
        "{}{}",
        counted(one.queues.count, "queue", "queues"),
        named(&one.queues.first, one.queues.count)
    );
    let several = one.queues.count != 1;
    let (need, each) = if several { ("need", " each") } else { ("needs", "") };
    let (have, are) = if several { ("have", "are") } else { ("has", "is") };
    let copies = counted(u64::from(one.copies), "copy", "copies");
    let may = match takers {
        [] => "no broker may take one".to_owned(),
        [one] => format!("only broker {one} may take one"),
        many => format!("only {} may take one", brokers(many)),
    };
    match (one.what, one.missing) {
        (Moved::Copy, false) => {
            format!("{queues} {need} {copies}{each}, and {may}: a copy has nowhere to go")
        }
        (Moved::Copy, true) => {
            format!("{queues} {need} {copies}{each}, and {may}: what is missing cannot be made")
        }
        (Moved::Leadership, _) => format!(
            "{queues} {are} led by a broker that is to lead nothing, and {have} no other copy with a broker that may lead"
        ),
    }
}

/// How there come to be more that may take something.
fn remedy(stuck: &Stuck, status: &ClusterStatus, supposed: Option<BrokerId>) -> String {
    let absent = status.absent.iter().filter(|one| one.drain.is_none()).map(|one| one.broker);
    let absent: Vec<BrokerId> = absent.collect();
    let mut ways = vec![match absent.as_slice() {
        [] => "start another broker".to_owned(),
        away => format!("start {} again, or another one", brokers(away)),
    }];
    let live = status.brokers.iter().map(|one| (one.address.broker, one.drain));
    let away = status.absent.iter().map(|one| (one.broker, one.drain));
    let mut drained: Vec<BrokerId> = live
        .chain(away)
        .filter(|(broker, drain)| drain.is_some() && Some(*broker) != supposed)
        .map(|(broker, _)| broker)
        .collect();
    drained.sort_unstable();
    ways.extend(drained.iter().map(|broker| {
        format!(
            "take the drain of broker {broker} back (`bellwether cluster drain {broker} --undo`)"
        )
    }));
    if let Some(broker) = supposed.filter(|broker| !stuck.takers.contains(broker)) {
        ways.push(format!("leave broker {broker} as it is"));
    }
    ways.join(", or ")
}

fn named(first: &[(VirtualHost, bellwether_client::QueueName)], count: u64) -> String {
    let names = first.iter().map(|(host, name)| match host.as_str() {
        "/" => in_shell(name.as_str()),
        host => format!("{}:{}", in_shell(host), in_shell(name.as_str())),
    });
    let names: Vec<String> = names.collect();
    let rest = if (names.len() as u64) < count { ", …" } else { "" };
    if names.is_empty() { String::new() } else { format!(" ({}{rest})", names.join(", ")) }
}

/// The arguments that name a queue in a command: with its virtual host, where that is not the usual one.
pub fn in_command(host: &VirtualHost, queue: &str) -> String {
    match host.as_str() {
        "/" => in_shell(queue),
        host => format!("--vhost {} {}", in_shell(host), in_shell(queue)),
    }
}

/// Says what is stuck while a command waits: at once, and then again and again.
pub struct Told {
    suppose: Option<(BrokerId, Drain)>,
    next: Instant,
}

impl Told {
    /// `suppose`: what the command has just asked for, which the broker that answers may not have heard of yet.
    pub fn new(suppose: Option<(BrokerId, Drain)>) -> Told {
        Told { suppose, next: Instant::now() }
    }

    /// Says it, if it is time; `left` says what is waited for.
    pub async fn tell(
        &mut self,
        client: &Client,
        status: &ClusterStatus,
        left: &str,
        bar: &ProgressBar,
    ) -> Result<(), Failure> {
        if Instant::now() < self.next {
            return Ok(());
        }
        self.next = Instant::now() + AGAIN;
        let lines = lines(&ask(client, self.suppose).await?, status, None);
        if !lines.is_empty() {
            bar.suspend(|| {
                eprintln!("Waiting: {left} left, and some cannot go as things stand:");
                lines.iter().for_each(|line| eprintln!("  - {line}"));
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bellwether_client::{AbsentBroker, BrokerAddress, BrokerStatus, QueueName, Troubled};
    use bellwether_protocol::ids::ClusterId;

    use super::*;

    fn status(drained: &[u32], away: &[u32]) -> ClusterStatus {
        let drain = |id: &u32| drained.contains(id).then_some(Drain::Copies);
        let broker = |id: u32| BrokerStatus {
            address: BrokerAddress { broker: BrokerId(id), address: format!("h:{id}") },
            incarnation: String::new(),
            version: String::new(),
            leads: 0,
            copies: 0,
            drain: drain(&id),
        };
        let live = (1..=3).filter(|id| !away.contains(id)).map(broker).collect();
        let gone = |id: &u32| AbsentBroker { broker: BrokerId(*id), copies: 4, drain: drain(id) };
        ClusterStatus {
            cluster: ClusterId(uuid::Uuid::from_u128(1)),
            brokers: live,
            coordinator_connected: true,
            session_timeout_ms: 6000,
            queues: 9,
            queues_without_leader: 0,
            queues_under_replicated: 0,
            absent: away.iter().map(gone).collect(),
            controller: None,
            tombstones: Vec::new(),
        }
    }

    fn stuck(what: Moved, missing: bool, count: u64, takers: &[u32]) -> Stuck {
        let first = vec![(VirtualHost::default(), QueueName::new("orders").unwrap())];
        let queues = StuckQueues { what, missing, copies: 3, queues: Troubled { count, first } };
        Stuck { takers: takers.iter().copied().map(BrokerId).collect(), queues: vec![queues] }
    }

    #[test]
    fn a_drain_that_cannot_be_done_says_which_queues_why_and_what_helps() {
        let twelve = stuck(Moved::Copy, false, 12, &[1, 2]);
        assert_eq!(
            lines(&twelve, &status(&[], &[]), Some(BrokerId(3))),
            [
                "12 queues (orders, …) need 3 copies each, and only brokers 1 and 2 may take one: a copy has nowhere to go: start another broker, or leave broker 3 as it is."
            ]
        );
        assert_eq!(
            lines(&twelve, &status(&[3], &[]), None),
            [
                "12 queues (orders, …) need 3 copies each, and only brokers 1 and 2 may take one: a copy has nowhere to go: start another broker, or take the drain of broker 3 back (`bellwether cluster drain 3 --undo`)."
            ]
        );
    }

    #[test]
    fn one_that_is_only_away_is_to_be_started_again() {
        let one = stuck(Moved::Copy, true, 1, &[1]);
        let said = lines(&one, &status(&[], &[2]), None);
        assert_eq!(
            said,
            [
                "1 queue (orders) needs 3 copies, and only broker 1 may take one: what is missing cannot be made: start broker 2 again, or another one."
            ]
        );
    }

    #[test]
    fn leaderships_that_stay_are_named_too_and_no_queues_are_no_line() {
        let said = lines(&stuck(Moved::Leadership, false, 2, &[]), &status(&[1], &[]), None);
        assert!(
            said[0].contains("2 queues (orders, …) are led by a broker that is to lead nothing")
        );
        assert!(said[0].contains("drain 1 --undo"), "{said:?}");
        assert!(lines(&Stuck::default(), &status(&[1], &[]), None).is_empty());
    }

    #[test]
    fn a_queue_of_another_virtual_host_is_named_with_it_in_commands() {
        assert_eq!(in_command(&VirtualHost::default(), "two words"), "'two words'");
        let host = VirtualHost::new("eu west").unwrap();
        assert_eq!(in_command(&host, "orders"), "--vhost 'eu west' orders");
    }
}
