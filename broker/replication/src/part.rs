//! Parting: a copy outside the replica set, that nobody counts on any more, gives its log up (promise G1: not before it is
//! certain that nobody can come to count on it again).
//!
//! The replica set lies in the state, so whoever adds a member to the ISR names a version at which the member's broker belongs to the
//! replica set. But the broker may be taken into it again while what this copy reported is still under way to the leader, which would
//! then take it for fit. So the copy first puts itself on the list of those that have given up; the leader takes none of them
//! back, and the next copy here is one of another store. With the next epoch the list is empty again: nothing this copy says is of that.

use std::time::Instant;

use bellwether_coordinator::coordinator::Version;
use bellwether_coordinator::records::QueueState;
use bellwether_protocol::ids::BrokerId;

use crate::{CasOutcome, Effect, Replica, Role};

/// Copies on the list of one epoch. With more of them the next one waits for another epoch: brokers come and go by the day.
const GIVEN_UP_MAX: usize = 16;

/// It has stopped following, and its CAS is under way.
#[derive(Debug)]
pub(crate) struct Parting {
    /// The version the CAS names.
    pub version: Version,
    proposal: QueueState,
    /// When to send the CAS again while nobody knows what became of it.
    resend_at: Option<Instant>,
}

impl Parting {
    pub fn cas(&self) -> Effect {
        Effect::Cas { version: self.version, state: self.proposal.clone() }
    }

    /// Whether this very CAS is the one that is not decided.
    pub fn awaits(&self, version: Version, state: &QueueState) -> bool {
        self.version == version && self.proposal == *state
    }
}

impl Replica {
    /// A state was read: is this copy one that nobody counts on? Should the read be behind, the CAS fails.
    pub(crate) fn consider_parting(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let (Some(seen), Some(_)) = (&self.seen, self.life) else { return };
        let (state, me) = (&seen.state, self.identity.member);
        if state.given_up.contains(&me) {
            // Its own CAS, whose answer was lost.
            return self.parted(now, effects);
        }
        let leads = state.leader.is_some_and(|leader| leader.broker == me.broker);
        let counts = state.replicas.contains(&me.broker) || state.isr.contains(&me) || leads;
        // Until then it is one of those that could be asked for what is lost elsewhere.
        let in_sync = |broker: &BrokerId| state.isr.iter().any(|member| member.broker == *broker);
        let whole = state.replicas.iter().all(in_sync);
        let follows = matches!(self.role, Role::Following(_));
        if counts || !whole || !follows || !self.connected || state.given_up.len() >= GIVEN_UP_MAX {
            return;
        }
        let mut proposal = state.clone();
        proposal.given_up.push(me);
        let parting = Parting { version: seen.version, proposal, resend_at: None };
        self.leave_role(now, effects);
        effects.push(parting.cas());
        self.role = Role::Parting(Box::new(parting));
    }

    pub(crate) fn part_answered(
        &mut self,
        now: Instant,
        outcome: CasOutcome,
        effects: &mut Vec<Effect>,
    ) {
        let Role::Parting(parting) = &mut self.role else { return };
        match outcome {
            CasOutcome::Done { version } => {
                let state = parting.proposal.clone();
                self.read(now, state, version, true, effects);
            }
            // The version had moved: the state tells what is to be done.
            CasOutcome::Refused => {
                parting.resend_at = None;
                self.doubt(now, effects);
            }
            CasOutcome::Undecided | CasOutcome::NotSent => {
                parting.resend_at = Some(now + self.timing.retry * 8);
            }
        }
    }

    pub(crate) fn part_tick(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let connected = self.connected;
        let Role::Parting(parting) = &mut self.role else { return };
        if connected && parting.resend_at.is_some_and(|at| now >= at) {
            parting.resend_at = None;
            let again = parting.cas();
            effects.push(again);
        }
    }

    fn parted(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.leave_role(now, effects);
        self.role = Role::Stopped { why: "its log was given up".to_owned() };
        effects.push(Effect::Parted);
    }
}
