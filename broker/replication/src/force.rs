//! A leader by an operator's order, when the in-sync set is gone for good: what confirmed messages it lacks is lost (the only way in
//! which promise G1 is ever given up), and the state says so from then on.
//!
//! It is fenced like an election: the copy first stops answering the old epoch, and its one CAS names the very version that
//! the operator was shown. What nobody can fence is an old leader that still runs, cut off together with all of its in-sync set: what
//! that one goes on confirming is lost, too. So the operator has to name each member that is given up.

use std::time::Instant;

use bellwether_coordinator::coordinator::Version;
use bellwether_coordinator::election::noted;
use bellwether_coordinator::records::{Committed, Past, QueueState, Taint, Trigger};
use bellwether_protocol::ids::{BrokerId, BrokerLife, Epoch, Member, Offset};
use bellwether_protocol::peer::NoPosition;

use crate::lead::Pending;
use crate::stand::Standing;
use crate::{Effect, Replica, Role};

/// How many steps of a candidate an order waits for the members that it gives up, where their brokers are live: two seconds. One that
/// runs answers within one of them, also that it has nothing to say; beyond it the order is refused.
const LISTEN_STEPS: u32 = 64;

/// An operator's order to lead, and what it was decided by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Force {
    /// The state that was shown.
    pub version: Version,
    /// The end of the log here that was shown.
    pub last_epoch: Epoch,
    pub log_end: Offset,
    /// The members of the in-sync set that are given up.
    pub given_up: Vec<Member>,
    /// The lives of their brokers that are live: each has to say that it does not have that copy, or that it is of no use any more.
    pub ask: Vec<BrokerLife>,
    /// Confirmed messages that are known to be lost by it.
    pub lost: u64,
    /// Whether there may be more of them.
    pub more: bool,
}

/// Why an order was not carried out. Nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotForced {
    /// Something is not any more as it was shown.
    #[error("{what}: it is not any more as it was shown; look again")]
    Changed { what: String },
    /// A member of the in-sync set may hold everything.
    #[error(
        "broker {0} has an in-sync copy that was not given up or can be used: with it nothing is lost. Bring it back"
    )]
    InSync(BrokerId),
    /// A broker that is live may have such a copy, and does not say.
    #[error(
        "broker {} is live and does not say whether its in-sync copy can be used: it is starting, hangs, or is cut off from this broker. Wait and look again; or stop that broker for good",
        .0.broker
    )]
    Silent(BrokerLife),
    /// The leader lives.
    #[error("its leader, broker {}, is alive", .0.broker)]
    Led(BrokerLife),
    /// There is nothing to be recovered.
    #[error("{why}: there is nothing to recover")]
    NotNeeded { why: String },
    /// The copy here cannot lead.
    #[error("the copy on this broker cannot lead: {why}")]
    Unusable { why: String },
}

/// An order that waits for an answer of those it gives up.
#[derive(Debug)]
pub(crate) struct Forcing {
    order: Force,
    since: Instant,
    /// Silence is no consent: a live member that is frozen, or reads its states yet, may have everything (promise G1).
    unheard: Vec<BrokerLife>,
}

impl Replica {
    /// Whether it is worth writing down how far the log is committed: a copy of the replica set is not in sync, so that it
    /// could be the last one and lack something.
    #[must_use]
    pub fn wants_note(&self) -> bool {
        let (Role::Leading(leading), Some(seen)) = (&self.role, &self.seen) else { return false };
        let in_sync = |broker: &BrokerId| seen.state.isr.iter().any(|m| m.broker == *broker);
        let noted = seen.state.past.committed.map_or(Offset(0), |committed| committed.end);
        leading.serves()
            && leading.pending.is_none()
            && self.connected
            && self.log.high_watermark > noted
            && !seen.state.replicas.iter().all(in_sync)
    }

    /// The largest high watermark that a leader told: confirmed messages lie up to there, whether this log has them or not.
    #[must_use]
    pub fn heard_committed(&self) -> Offset {
        self.heard_committed.max(self.log.high_watermark)
    }

    /// The epoch of the last leader that was forced on the queue; zero when none was. What older epochs wrote or delivered need not be in
    /// its log any more.
    #[must_use]
    pub fn forced_in(&self) -> Epoch {
        let taint = self.seen.as_ref().and_then(|seen| seen.state.past.taint.as_ref());
        taint.map_or(Epoch(0), |taint| taint.epoch)
    }

    pub(crate) fn note(&mut self, committed: Committed, effects: &mut Vec<Effect>) {
        if !self.wants_note() {
            return;
        }
        let (Role::Leading(leading), Some(seen)) = (&mut self.role, &self.seen) else { return };
        let committed = Committed { term: Some((leading.epoch, leading.start)), ..committed };
        let past = Box::new(Past { committed: Some(committed), ..Past::clone(&seen.state.past) });
        let proposal = QueueState { past, ..seen.state.clone() };
        leading.pending = Some(Pending::new(seen.version, proposal));
        effects.extend(leading.pending_cas());
    }

    pub(crate) fn force(&mut self, now: Instant, order: Force, effects: &mut Vec<Effect>) {
        if self.forcing.is_some() || matches!(self.role, Role::Standing(_)) {
            let what = "an election is under way".to_owned();
            return effects.push(Effect::Forced(Err(NotForced::Changed { what })));
        }
        if let Err(why) = self.may_force(now, &order) {
            return effects.push(Effect::Forced(Err(why)));
        }
        if !order.ask.is_empty() {
            let brokers = order.ask.iter().map(|life| life.broker).collect();
            effects.push(Effect::AskPositions { brokers });
        }
        let unheard = order.ask.clone();
        self.forcing = Some(Forcing { order, since: now, unheard });
        self.force_when_due(now, effects);
    }

    /// One that is in sync and says where its log ends can be used: with it nothing is lost.
    pub(crate) fn force_heard(
        &mut self,
        now: Instant,
        from: BrokerLife,
        member: Member,
        effects: &mut Vec<Effect>,
    ) {
        if self.forcing.is_some() && self.is_in_sync(member) && member != self.identity.member {
            self.forcing = None;
            return effects.push(Effect::Forced(Err(NotForced::InSync(member.broker))));
        }
        self.force_agreed(now, from, effects);
    }

    /// One that has stopped, or is of another store, will never have what the in-sync member had. One that is starting may.
    pub(crate) fn heard_no_position(
        &mut self,
        now: Instant,
        from: BrokerLife,
        without: NoPosition,
        effects: &mut Vec<Effect>,
    ) {
        if without.stopped || !self.is_in_sync(without.member) {
            self.force_agreed(now, from, effects);
        }
    }

    /// Only that very life counts: what an earlier one said, and was long under way, says nothing of this one.
    fn force_agreed(&mut self, now: Instant, from: BrokerLife, effects: &mut Vec<Effect>) {
        if let Some(forcing) = &mut self.forcing {
            forcing.unheard.retain(|life| *life != from);
        }
        self.force_when_due(now, effects);
    }

    fn is_in_sync(&self, member: Member) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.state.isr.contains(&member))
    }

    pub(crate) fn force_when_due(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Some(forcing) = &self.forcing else { return };
        let listened = now >= forcing.since + self.timing.stand_step * LISTEN_STEPS;
        if !forcing.unheard.is_empty() && !listened {
            return;
        }
        let Some(Forcing { order, since, unheard }) = self.forcing.take() else { return };
        let heard = unheard.first().map_or(Ok(()), |silent| Err(NotForced::Silent(*silent)));
        // Much may have happened since.
        match self.may_force(now, &order).and(heard) {
            Ok(()) => self.lead_by_force(now, &order, since, effects),
            Err(why) => effects.push(Effect::Forced(Err(why))),
        }
    }

    fn may_force(&self, now: Instant, order: &Force) -> Result<(), NotForced> {
        let unusable = |why: &str| Err(NotForced::Unusable { why: why.to_owned() });
        let (Some(seen), Some(life)) = (&self.seen, self.life) else {
            return unusable("it has not read the queue's state yet");
        };
        if let Role::Stopped { why } = &self.role {
            return unusable(why);
        }
        if !self.connected || !self.verified {
            return unusable("its broker is not connected to the coordinator");
        }
        if self.awaits_snapshot() {
            return unusable("it is being fetched from a leader, and holds nothing yet");
        }
        if seen.version != order.version {
            return changed("the queue's state has changed");
        }
        let me = self.identity.member;
        let counts = seen.state.isr.contains(&me);
        let position = (self.log.epochs.last().unwrap_or_default(), self.log.end);
        // Of one in the in-sync set nothing is lost, wherever it ends by now.
        if !counts && position != (order.last_epoch, order.log_end) {
            return changed("the log of that copy has changed");
        }
        // What it is shown to have must survive the next loss of power, too.
        if !counts && self.log.durable < self.log.end {
            return changed("the log of that copy is not on its disk yet");
        }
        match seen.state.leader {
            Some(leader) if leader == life => {
                if !self.starved(now) {
                    let why = "the queue has a leader and enough in-sync copies".to_owned();
                    return Err(NotForced::NotNeeded { why });
                }
            }
            Some(leader) if leader.broker != life.broker && !self.departed.contains(&leader) => {
                return Err(NotForced::Led(leader));
            }
            Some(_) | None if counts => {
                let why = "that copy is in sync, and stands for election by itself".to_owned();
                return Err(NotForced::NotNeeded { why });
            }
            Some(_) | None => {}
        }
        let others = seen.state.isr.iter().filter(|member| **member != me);
        for member in others {
            let well = |health: &crate::MemberHealth| health.member == *member && !health.gone;
            if !order.given_up.contains(member) || self.members(now).iter().any(well) {
                return Err(NotForced::InSync(member.broker));
            }
        }
        match &self.role {
            Role::Leading(leading) if leading.pending.is_some() || leading.is_leaving() => {
                changed("a change of the queue's state is under way")
            }
            Role::Parting(_) => unusable("its log is being given up"),
            _ => Ok(()),
        }
    }

    fn lead_by_force(
        &mut self,
        now: Instant,
        order: &Force,
        since: Instant,
        effects: &mut Vec<Effect>,
    ) {
        let (Some(seen), Some(life)) = (self.seen.clone(), self.life) else { return };
        let me = self.identity.member;
        let alone = QueueState { isr: vec![me], min_isr: 1, ..seen.state.clone() };
        if let Role::Leading(leading) = &mut self.role {
            // It holds everything and leads already: only those that are gone are not waited for any more.
            leading.pending = Some(Pending::new(seen.version, alone.clone()));
            effects.push(Effect::LeaseChanged);
            effects.extend(leading.pending_cas());
            return effects.push(Effect::Forced(Ok(Box::new(alone))));
        }
        // What an operator has dealt with is not counted again.
        let before = seen.state.past.open_taint();
        let taint = Taint {
            epoch: seen.state.epoch.next(),
            by: life,
            at_ms: self.wall_ms,
            end: self.log.end,
            // Of all that were forced on it: the queue misses what each of them lacked.
            lost: order.lost.saturating_add(before.map_or(0, |before| before.lost)),
            more: order.more || before.is_some_and(|before| before.more),
            cleared: None,
        };
        // What was noted is not all in the queue any more: the next one to lead would be held against it.
        let past = Past { taint: Some(taint), committed: None, ..Past::clone(&seen.state.past) };
        let past = Box::new(past);
        self.heard_committed = Offset(0);
        let (epoch, leader) = (seen.state.epoch.next(), Some(life));
        let proposal = QueueState { epoch, leader, given_up: Vec::new(), past, ..alone };
        let proposal = noted(&seen.state, proposal, self.occasion(now, Trigger::Forced, since));
        let answered_before = self.stopped_answering;
        // First it stops answering, then it asks to lead: as in every election.
        self.leave_role(now, effects);
        self.stop_answering(now, seen.state.epoch);
        self.candidacy = None;
        let standing = Standing {
            old_epoch: seen.state.epoch,
            version: seen.version,
            proposal: proposal.clone(),
            answered_before,
            resend_at: None,
            after_resignation: seen.state.leader.is_none(),
        };
        effects.push(standing.cas());
        self.role = Role::Standing(standing);
        effects.push(Effect::Forced(Ok(Box::new(proposal))));
    }

    /// A leader was forced on the queue after the last epoch of this log: what is committed here need not be there.
    pub(crate) fn is_superseded(&self) -> bool {
        self.log.epochs.last().is_some_and(|last| last < self.forced_in())
    }
}

fn changed(what: &str) -> Result<(), NotForced> {
    Err(NotForced::Changed { what: what.to_owned() })
}
