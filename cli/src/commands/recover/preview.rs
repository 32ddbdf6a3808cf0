//! What would be lost if a copy led without the in-sync set: the most that can be said with certainty, and where certainty ends. Pure.

use bellwether_client::{BrokerId, CopyRole, CopyStatus, Epoch, Member};

use super::tails::{self, Tail};
use crate::commands::explain::facts::{Facts, Said};
use crate::commands::explain::words::{brokers, time};
use crate::commands::table::{counted, grouped};

/// A copy that could lead, and what that would cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Prospect {
    pub broker: BrokerId,
    pub copy: CopyStatus,
    pub in_sync: bool,
    /// Confirmed messages that are known to be lost.
    pub lost: u64,
    /// Whether there may be more, of which none of the surviving copies knows.
    pub more: bool,
    /// Whether `lost` is all that is known to be lost. If not, the copy may end with messages that were never confirmed, and nobody can say
    /// how many these are.
    pub exact: bool,
}

/// What can be done for a queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    /// The best first.
    pub prospects: Vec<Prospect>,
    /// Why nothing is to be done, or may be.
    pub obstacle: Option<String>,
}

/// What would be lost, copy by copy, and whether anything has to be.
pub fn preview(facts: &Facts) -> Preview {
    let mut prospects: Vec<Prospect> =
        facts.holders.iter().filter_map(|holder| prospect(facts, holder.copy()?)).collect();
    let rank = |one: &Prospect| {
        (one.in_sync, one.copy.last_epoch.unwrap_or(Epoch(0)), one.copy.log_end, one.copy.enqueued)
    };
    prospects.sort_by(|a, b| rank(b).cmp(&rank(a)).then(a.broker.cmp(&b.broker)));
    let obstacle = obstacle(facts, &prospects);
    Preview { prospects, obstacle }
}

/// The members of the in-sync set that are given up when `chosen` leads alone.
pub fn given_up(facts: &Facts, chosen: Member) -> Vec<Member> {
    facts.condition.isr.iter().copied().filter(|member| *member != chosen).collect()
}

fn prospect(facts: &Facts, copy: &CopyStatus) -> Option<Prospect> {
    if matches!(copy.role, CopyRole::Stopped | CopyRole::Fetches) {
        return None;
    }
    let in_sync = facts.in_sync(copy.member);
    if in_sync {
        // It has every confirmed message: that is what being in sync means.
        return Some(Prospect {
            broker: copy.member.broker,
            copy: copy.clone(),
            in_sync,
            lost: 0,
            more: false,
            exact: true,
        });
    }
    let noted = facts.condition.committed.map_or(0, |note| note.enqueued);
    let others = facts.holders.iter().filter_map(|holder| holder.copy());
    let known = others
        .filter(|other| tails::is_known(other))
        .map(|other| other.enqueued)
        .max()
        .unwrap_or(0);
    let (held, exact) = tails::held(facts, copy);
    let lost = noted.max(known).saturating_sub(held);
    let broker = copy.member.broker;
    Some(Prospect { broker, copy: copy.clone(), in_sync, lost, more: true, exact })
}

fn obstacle(facts: &Facts, prospects: &[Prospect]) -> Option<String> {
    let condition = &facts.condition;
    if !condition.fresh {
        return Some(
            "the coordinator cannot be reached: without it nobody can come to lead".to_owned(),
        );
    }
    if let Some(leader) = facts.leader() {
        let copy = facts.holder(leader).and_then(|holder| holder.copy());
        return match copy {
            Some(copy) if copy.starved => None,
            Some(_) => Some(format!(
                "broker {leader} leads it, with enough in-sync copies: there is nothing to recover"
            )),
            None => Some(format!(
                "its leader, broker {leader}, is alive and does not answer: stop that broker first"
            )),
        };
    }
    if let Some(fit) = condition.isr.iter().find(|member| facts.usable(**member).is_some()) {
        return Some(format!(
            "broker {} is live with a copy that has everything and can be used: it is about to lead, and nothing is lost",
            fit.broker
        ));
    }
    let silent = condition.isr.iter().find(|member| {
        matches!(facts.holder(member.broker).map(|holder| &holder.said), Some(Said::Silent(_)))
    });
    if let Some(member) = silent {
        return Some(format!(
            "broker {} is live, may have everything, and does not answer: stop it, or bring it back",
            member.broker
        ));
    }
    prospects.is_empty().then(|| "no broker that is live has a copy that could lead".to_owned())
}

impl Prospect {
    /// The numbers, in words, exact where they can be.
    pub fn words(&self, facts: &Facts) -> String {
        let broker = self.broker;
        if !self.more {
            return format!(
                "with broker {broker} exactly 0 confirmed messages are lost: its copy is in sync, so it has them all."
            );
        }
        let newest =
            self.copy.last_message_ms.map(|at| format!(" of {}", time(at))).unwrap_or_default();
        let never = match tails::tail(facts, &self.copy) {
            Tail::None => String::new(),
            Tail::From { at, .. } if at < self.copy.log_end => {
                format!(" (those from offset {at} on are not the queue's: a later leader wrote others there)")
            }
            Tail::From { .. } | Tail::Unknown if !self.exact => {
                " (those at its end may not be the queue's: later leaders wrote on, and where is not known)".to_owned()
            }
            Tail::From { .. } | Tail::Unknown => String::new(),
        };
        let has = format!(
            "its copy ends at offset {} with {}, the last{newest}{never}",
            self.copy.log_end,
            counted(self.copy.enqueued, "message", "messages")
        );
        let note = facts.condition.committed;
        let known = match (self.lost, note) {
            (0, _) if !self.exact => {
                "whether confirmed messages are lost cannot be told exactly".to_owned()
            }
            (0, _) => "no confirmed message is known to be lost".to_owned(),
            (lost, Some(note)) if note.enqueued == tails::held(facts, &self.copy).0 + lost => {
                format!(
                    "at least {} confirmed messages are lost (the leader noted {} at {})",
                    grouped(lost),
                    grouped(note.enqueued),
                    time(note.at_ms)
                )
            }
            (lost, _) => format!(
                "at least {} confirmed messages are lost: another copy has them",
                grouped(lost)
            ),
        };
        let known = match (self.exact, self.lost) {
            (false, 1..) => format!("{known}, and how many more cannot be told exactly"),
            (true, _) | (false, 0) => known,
        };
        let beyond = self.copy.heard_committed.max(note.map_or(self.copy.log_end, |note| note.end));
        let unknown = format!(
            "confirmed messages after offset {} may exist; none of the surviving copies knows of them",
            beyond.max(self.copy.log_end)
        );
        format!("with broker {broker} {known}; {has}; {unknown}.")
    }
}

/// What has to be certain before the in-sync set is given up.
pub fn warning(facts: &Facts, chosen: Member) -> Option<String> {
    let away: Vec<BrokerId> = given_up(facts, chosen).iter().map(|member| member.broker).collect();
    if away.is_empty() {
        return None;
    }
    Some(format!(
        "This gives the in-sync copies on {} up. Be sure that these brokers are stopped for good: an old leader that still runs, cut off together with its whole in-sync set, goes on confirming messages, and those are lost, too.",
        brokers(&away)
    ))
}
