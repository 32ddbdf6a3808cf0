//! From facts to what a person wants to know at three in the morning: how it is, what is missing, what to do. Pure.

use std::time::{Duration, UNIX_EPOCH};

use bellwether_broker::words::in_shell;
use bellwether_client::{BrokerId, CopyRole, CopyStatus, Drain, Member};

use super::facts::{Facts, Said};
use crate::commands::table::grouped;

/// How a queue is, in one word, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Healthy,
    /// All is well but for copies that move.
    Moving,
    /// It confirms, with fewer copies than wanted.
    CopyMissing,
    /// Who leads does not answer.
    LeaderSilent,
    /// It leads, and can confirm nothing.
    BelowMinIsr,
    /// Somebody is about to lead.
    Electing,
    /// Nobody that may lead is there.
    NoLeader,
    /// Somebody that may lead is there, and cannot.
    Stopped,
    /// The coordinator does not answer: this is what was last heard.
    CoordinatorUnreachable,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Healthy => "healthy",
            Verdict::Moving => "moving",
            Verdict::CopyMissing => "copy missing",
            Verdict::LeaderSilent => "leader silent",
            Verdict::BelowMinIsr => "below min-isr",
            Verdict::Electing => "electing",
            Verdict::NoLeader => "no leader",
            Verdict::Stopped => "stopped",
            Verdict::CoordinatorUnreachable => "coordinator unreachable",
        }
    }
}

/// What is said of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub verdict: Verdict,
    /// One sentence.
    pub sentence: String,
    pub missing: Vec<String>,
    pub advice: Vec<String>,
}

/// How a queue is, and why.
pub fn explain(facts: &Facts) -> Explanation {
    let mut explanation = match (facts.condition.fresh, facts.leader()) {
        (false, _) => unreachable_coordinator(facts),
        (true, None) => without_leader(facts),
        (true, Some(leader)) => with_leader(facts, leader),
    };
    if let Some(taint) = facts.condition.taint.as_ref().filter(|taint| taint.cleared.is_none()) {
        let more = if taint.more { ", perhaps more" } else { "" };
        explanation.missing.push(format!(
            "A leader was forced on it at {} (broker {}, epoch {}): {} confirmed messages are known to be lost{more}.",
            time(taint.at_ms),
            taint.by.broker,
            taint.epoch,
            grouped(taint.lost),
        ));
        explanation.advice.push(format!(
            "When what was lost is dealt with: `bellwether recover --clear-taint {}`.",
            in_shell(facts.condition.queue.name.as_str())
        ));
    }
    explanation
}

fn with_leader(facts: &Facts, leader: BrokerId) -> Explanation {
    let condition = &facts.condition;
    let (name, needed) = (&condition.queue.name, usize::from(condition.queue.min_isr));
    let starved = facts.holder(leader).and_then(|holder| holder.copy()).is_some_and(|c| c.starved);
    let live = condition.isr.iter().filter(|member| is_there(facts, **member)).count();
    let missing = absences(facts);
    if matches!(facts.holder(leader).map(|holder| &holder.said), Some(Said::Silent(_))) {
        return Explanation {
            verdict: Verdict::LeaderSilent,
            sentence: format!(
                "Queue {name} is led by broker {leader}, which does not answer: it hangs, or is cut off from here."
            ),
            missing,
            advice: vec![format!(
                "When it hangs, its session ends within the session time-out, and another leads: look again. If that does not come about, restart broker {leader}."
            )],
        };
    }
    if starved || live < needed {
        return Explanation {
            verdict: Verdict::BelowMinIsr,
            sentence: format!(
                "Queue {name} is led by broker {leader}, but can confirm nothing: {} in sync and at work, and a confirm needs {needed}.",
                copies_are(live)
            ),
            missing,
            advice: bring_back(facts, leader),
        };
    }
    let moving = moving(facts);
    let wanted = condition.queue.replicas.iter();
    let lacking = wanted.filter(|broker| !condition.isr.iter().any(|m| m.broker == **broker));
    let lacking: Vec<BrokerId> = lacking.copied().collect();
    let all = condition.queue.replicas.len();
    if !lacking.is_empty() || live < condition.isr.len() || missing_copies(facts) > 0 {
        let which = match lacking.as_slice() {
            [] => String::new(),
            [one] => format!(": the one of broker {one} is not"),
            many => format!(": those of {} are not", brokers(many)),
        };
        let mut advice = vec![
            "Nothing is at risk yet: messages are confirmed. A copy that is behind catches up by itself; a broker that is down has to be started.".to_owned(),
        ];
        if missing_copies(facts) > 0 {
            advice.push(format!(
                "It was declared with {} copies and only {all} could be made: start more brokers, and the rest is made by itself.",
                condition.replicas_wanted
            ));
        }
        advice.extend(moving);
        return Explanation {
            verdict: Verdict::CopyMissing,
            sentence: format!(
                "Queue {name} is led by broker {leader} and confirms messages, but only {} of {} copies {} in sync{which}.",
                condition.isr.len(),
                condition.replicas_wanted,
                if condition.isr.len() == 1 { "is" } else { "are" },
            ),
            missing,
            advice,
        };
    }
    if !moving.is_empty() {
        return Explanation {
            verdict: Verdict::Moving,
            sentence: format!("Queue {name} is well, led by broker {leader}, and is being moved."),
            missing,
            advice: moving,
        };
    }
    Explanation {
        verdict: Verdict::Healthy,
        sentence: format!(
            "Queue {name} is well: broker {leader} leads it in epoch {}, and {} in sync.",
            condition.queue.epoch,
            if all == 1 { "its one copy is".to_owned() } else { format!("all {all} copies are") }
        ),
        missing,
        advice: Vec::new(),
    }
}

fn without_leader(facts: &Facts) -> Explanation {
    let condition = &facts.condition;
    let name = &condition.queue.name;
    let in_sync: Vec<BrokerId> = condition.isr.iter().map(|member| member.broker).collect();
    let mut missing = absences(facts);
    if let Some(resigned) = &condition.resigned {
        missing.insert(
            0,
            format!("Broker {} led it and gave that up: {}.", resigned.by.broker, resigned.why),
        );
    }
    if let Some(fit) = condition.isr.iter().find(|member| facts.usable(**member).is_some()) {
        return Explanation {
            verdict: Verdict::Electing,
            sentence: format!(
                "Queue {name} has no leader at the moment; broker {} holds everything and can lead.",
                fit.broker
            ),
            missing,
            advice: vec![
                "That takes a moment, or the session time-out when the last leader is frozen or cut off. Look again; should it last, see whether that broker reaches the coordinator.".to_owned(),
            ],
        };
    }
    let live = condition.isr.iter().find(|member| facts.is_live(member.broker));
    let recover = format!(
        "Only if they are gone for good: `bellwether recover {}` shows what would be lost if a copy led that is not in sync.",
        in_shell(name.as_str())
    );
    if let Some(member) = live {
        return Explanation {
            verdict: Verdict::Stopped,
            sentence: format!(
                "Queue {name} has no leader, although broker {} with an in-sync copy is live: {}.",
                member.broker,
                why_unusable(facts, *member)
            ),
            missing,
            advice: vec![
                format!(
                    "Bring one of the in-sync copies back to use: {}. After a failure of a disk that works again, restart that broker.",
                    brokers(&in_sync)
                ),
                recover,
            ],
        };
    }
    let only = if in_sync.len() == 1 {
        "the only in-sync copy is down"
    } else {
        "all in-sync copies are down"
    };
    Explanation {
        verdict: Verdict::NoLeader,
        sentence: format!("Queue {name} has no leader: {only} ({}).", brokers(&in_sync)),
        missing,
        advice: vec![
            format!(
                "Start {} with the disk that it had: one of them is enough to lead, and nothing is lost.",
                brokers(&in_sync)
            ),
            recover,
        ],
    }
}

fn unreachable_coordinator(facts: &Facts) -> Explanation {
    let queue = &facts.condition.queue;
    let serves = facts.holders.iter().find(|holder| {
        holder.copy().is_some_and(|copy| copy.role == CopyRole::Serves && !copy.starved)
    });
    let sentence = match serves {
        Some(leader) => format!(
            "The coordinator cannot be reached; broker {} leads queue {} and goes on serving it, as long as all in-sync copies are there.",
            leader.broker, queue.name
        ),
        None => format!(
            "The coordinator cannot be reached, and nobody serves queue {}: until it is back nobody can come to lead.",
            queue.name
        ),
    };
    Explanation {
        verdict: Verdict::CoordinatorUnreachable,
        sentence,
        missing: vec!["What is shown of the queue's state is what was last heard of it.".to_owned()],
        advice: vec!["Bring the ensemble back: a majority of its servers has to be up and within reach of the brokers. Elections, declarations and changes of the in-sync set wait for it.".to_owned()],
    }
}

/// A line for each copy that is not as it should be.
fn absences(facts: &Facts) -> Vec<String> {
    let condition = &facts.condition;
    let mut lines = Vec::new();
    for holder in &facts.holders {
        let broker = holder.broker;
        let counted = condition.isr.iter().find(|member| member.broker == broker);
        let wanted = condition.queue.replicas.contains(&broker);
        let place = if counted.is_some() { "in sync" } else { "not in sync" };
        let line = match &holder.said {
            Said::Down if counted.is_some() || wanted => {
                format!("Broker {broker} ({place}) is not live.")
            }
            Said::Silent(why) => {
                format!("Broker {broker} ({place}) is live and does not answer: {why}.")
            }
            Said::NoCopy if counted.is_some() || wanted => {
                format!(
                    "Broker {broker} ({place}) is live and has no copy: its disk is another, or it has yet to begin one."
                )
            }
            Said::Copy(copy) if copy.role == CopyRole::Stopped => format!(
                "The copy on broker {broker} ({place}) has stopped: {}.",
                copy.why.as_deref().unwrap_or("it does not say why")
            ),
            Said::Copy(copy) if counted.is_some_and(|member| *member != copy.member) => format!(
                "Broker {broker} has another copy than the in-sync one: its disk was replaced or its log given up{}.",
                copy.why.as_deref().map(|why| format!(" ({why})")).unwrap_or_default()
            ),
            Said::Copy(copy) if copy.role == CopyRole::Fetches => format!(
                "The copy on broker {broker} ({place}) is being fetched anew{}.",
                copy.why.as_deref().map(|why| format!(": {why}")).unwrap_or_default()
            ),
            Said::Copy(copy) if counted.is_none() && wanted => {
                let why = copy.why.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
                let behind = behind(facts, copy.log_end.0);
                format!("The copy on broker {broker} is not in sync{behind}{why}.")
            }
            Said::Copy(CopyStatus { why: Some(why), .. }) => {
                format!("The copy on broker {broker} ({place}) is not well: {why}.")
            }
            _ => continue,
        };
        lines.push(line);
    }
    lines
}

fn behind(facts: &Facts, end: u64) -> String {
    let ends = facts.holders.iter().filter_map(|holder| holder.copy()).map(|copy| copy.log_end.0);
    match ends.max().map(|longest| longest.saturating_sub(end)) {
        Some(records) if records > 0 => format!(": {} records behind", grouped(records)),
        _ => ": it has caught up and is about to join".to_owned(),
    }
}

/// Whether an in-sync copy is where it should be, as far as can be seen.
fn is_there(facts: &Facts, member: Member) -> bool {
    let gone = |leader: BrokerId| {
        facts.holder(leader).and_then(|holder| holder.copy()).is_some_and(|copy| {
            copy.others.iter().any(|other| other.member == member && other.gone)
        })
    };
    facts.usable(member).is_some() && !facts.leader().is_some_and(gone)
}

fn why_unusable(facts: &Facts, member: Member) -> String {
    match facts.holder(member.broker).map(|holder| &holder.said) {
        Some(Said::Copy(copy)) if copy.member != member => {
            let why = copy.why.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
            format!("the copy that it has now is another{why}")
        }
        Some(Said::Copy(copy)) => format!(
            "its copy cannot be used ({})",
            copy.why.as_deref().unwrap_or("it does not say why")
        ),
        Some(Said::Silent(why)) => format!("it does not answer ({why})"),
        Some(Said::NoCopy) => "it has no copy any more".to_owned(),
        Some(Said::Down) | None => "it is down".to_owned(),
    }
}

fn bring_back(facts: &Facts, leader: BrokerId) -> Vec<String> {
    let condition = &facts.condition;
    let away: Vec<BrokerId> = condition
        .isr
        .iter()
        .filter(|member| !is_there(facts, **member))
        .map(|member| member.broker)
        .collect();
    let name = &condition.queue.name;
    vec![
        format!(
            "Start {} again. Any broker of the replica set that comes with a sound disk will do: it is filled from broker {leader} and takes the place of one that is gone.",
            brokers(&away)
        ),
        format!(
            "If too few brokers are left for that: `bellwether recover {}` lets it go on with the copies that are there.",
            in_shell(name.as_str())
        ),
    ]
}

fn moving(facts: &Facts) -> Vec<String> {
    let condition = &facts.condition;
    let holds = |broker: BrokerId| condition.isr.iter().any(|member| member.broker == broker);
    let mut lines = Vec::new();
    for (broker, drain) in &condition.drained {
        let what = match drain {
            Drain::Copies if holds(*broker) || condition.queue.replicas.contains(broker) => {
                "copies are"
            }
            Drain::Leaderships if condition.queue.leader == Some(*broker) => "leaderships are",
            Drain::Copies | Drain::Leaderships => continue,
        };
        lines.push(format!("Broker {broker} is being drained: its {what} moved to others. `bellwether cluster status` shows how far that is."));
    }
    for member in &condition.isr {
        let drained = condition.drained.iter().any(|(broker, _)| *broker == member.broker);
        if !condition.queue.replicas.contains(&member.broker) && !drained {
            lines.push(format!(
                "The copy on broker {} is given up as soon as those that replace it are in sync.",
                member.broker
            ));
        }
    }
    lines
}

/// Copies that were asked for and have no broker.
fn missing_copies(facts: &Facts) -> usize {
    usize::from(facts.condition.replicas_wanted)
        .saturating_sub(facts.condition.queue.replicas.len())
}

fn copies_are(number: usize) -> String {
    if number == 1 { "1 copy is".to_owned() } else { format!("{number} copies are") }
}

/// "broker 1", "brokers 1 and 2", "brokers 1, 2 and 3".
pub fn brokers(ids: &[BrokerId]) -> String {
    let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
    match names.as_slice() {
        [] => "no broker".to_owned(),
        [one] => format!("broker {one}"),
        [first @ .., last] => format!("brokers {} and {last}", first.join(", ")),
    }
}

/// A time as people write it, in UTC.
pub fn time(unix_ms: u64) -> String {
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms));
    at.map_or_else(|| "-".to_owned(), |at| humantime::format_rfc3339_seconds(at).to_string())
}
