//! Leading: answering followers, counting what is durable where, the high watermark, the ISR, and leaving in order.

use std::time::Instant;

use bellwether_coordinator::coordinator::Version;
use bellwether_coordinator::records::QueueState;
use bellwether_protocol::ids::{BrokerId, BrokerLife, Epoch, Member, Offset};
use bellwether_protocol::peer::Subscription;

use crate::isr::{MemberHealth, next_isr};
use crate::progress::{Lag, Progress};
use crate::{CasOutcome, EARLY_MAX, Effect, LogFacts, Replica, Role, Seen};

/// A term of leadership.
#[derive(Debug)]
pub(crate) struct Leading {
    pub epoch: Epoch,
    /// Where this epoch's first record lies.
    pub start: Offset,
    pub serves: bool,
    pub deliver_from: Instant,
    /// The ISR the coordinator is known to hold.
    pub committed: Vec<Member>,
    pub min_isr: usize,
    /// A change of the state that was asked for and is not decided.
    pub pending: Option<Pending>,
    pub others: Vec<Progress>,
    pub leaving: Leaving,
    /// Since when it is about to leave, if it is.
    pub leaves_since: Instant,
    /// Since when it leads.
    pub since: Instant,
    /// A move of the leadership came to nothing: not before this is another tried.
    pub moves_again: Instant,
}

/// Whether a leader takes nothing new, to hand over when everything is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    No,
    /// The broker drains: to whoever can lead.
    Drains,
    /// To this broker; not done until then, it goes on here.
    Moves {
        to: BrokerId,
        until: Instant,
    },
}

/// A CAS of this leader that is not decided. One at a time.
#[derive(Debug)]
pub(crate) struct Pending {
    pub version: Version,
    pub proposal: QueueState,
    pub resend_at: Option<Instant>,
    /// It names a successor: from the moment it is sent nothing is confirmed or delivered.
    pub hands_over: bool,
}

impl Pending {
    /// A change by which nobody else comes to lead.
    pub fn new(version: Version, proposal: QueueState) -> Pending {
        Pending { version, proposal, resend_at: None, hands_over: false }
    }
}

impl Leading {
    pub fn is_leaving(&self) -> bool {
        self.leaving != Leaving::No
    }

    pub fn serves(&self) -> bool {
        self.serves && !self.is_leaving()
    }

    /// Time matters while somebody in the ISR is behind or away, somebody waits to join, or something is undecided.
    pub fn wants_ticks(&self, log: &LogFacts) -> bool {
        self.pending.is_some()
            || self.is_leaving()
            || self.others.iter().any(|other| {
                !other.subscribed && self.committed.contains(&other.member)
                    || other.subscribed && other.durable.is_none_or(|durable| durable < log.end)
            })
    }

    /// The life is over, or its process is taken for dead; `proven` when nothing it says can contradict that.
    pub fn departed(&mut self, life: BrokerLife, proven: bool) {
        for other in &mut self.others {
            let is_it =
                other.member.broker == life.broker && other.life.is_none_or(|known| known == life);
            // Whose connection is up is not dead. It has nothing to say while nothing is appended, and nothing
            // would be appended while it is taken for dead: the queue would refuse publishes for ever.
            if is_it && (proven || !other.subscribed) {
                other.dead = true;
                other.subscribed = false;
            }
        }
    }

    /// Whether this very CAS is the one that is not decided.
    pub fn awaits(&self, version: Version, state: &QueueState) -> bool {
        self.pending
            .as_ref()
            .is_some_and(|pending| pending.version == version && pending.proposal == *state)
    }

    pub fn pending_cas(&self) -> Option<Effect> {
        self.pending.as_ref().map(|pending| Effect::Cas {
            version: pending.version,
            state: pending.proposal.clone(),
        })
    }

    /// The committed ISR united with the undecided one: everyone whose word a confirm needs.
    fn maximal_isr(&self) -> impl Iterator<Item = Member> + '_ {
        let pending = self.pending.iter().flat_map(|pending| pending.proposal.isr.iter().copied());
        self.committed
            .iter()
            .copied()
            .chain(pending.filter(|member| !self.committed.contains(member)))
    }

    fn progress(&self, member: Member) -> Option<&Progress> {
        self.others.iter().find(|other| other.member == member)
    }
}

impl Replica {
    pub(crate) fn lead(
        &mut self,
        now: Instant,
        state: QueueState,
        won: bool,
        effects: &mut Vec<Effect>,
    ) {
        let promised_until = match &self.role {
            // The old leader may deliver until what was promised to it has passed, unless it resigned.
            Role::Standing(standing) if won && !standing.after_resignation => {
                self.stopped_at.map(|at| at + self.timing.promise)
            }
            _ => None,
        };
        // A leader that handed over and ended at once: waiting for it out of the in-sync set would cost the lag limit.
        let known_dead: Vec<Member> = match &self.role {
            Role::Following(following) if self.has_departed(following.leader) => {
                let broker = following.leader.broker;
                state.isr.iter().copied().filter(|member| member.broker == broker).collect()
            }
            Role::Standing(standing) => {
                let stays = &standing.proposal.isr;
                state.isr.iter().copied().filter(|member| !stays.contains(member)).collect()
            }
            _ => Vec::new(),
        };
        self.leave_role(now, effects);
        self.candidacy = None;
        let me = self.identity.member;
        let mut leading = Leading {
            epoch: state.epoch,
            start: self.log.end,
            serves: false,
            // A restarted broker has forgotten what it promised in its last life.
            deliver_from: promised_until
                .unwrap_or(now)
                .max(self.identity.started + self.timing.promise),
            min_isr: usize::from(state.min_isr),
            committed: state.isr.clone(),
            pending: None,
            others: Vec::new(),
            leaving: Leaving::No,
            leaves_since: now,
            since: now,
            moves_again: now,
        };
        for member in state.isr.iter().filter(|member| **member != me) {
            let dead = known_dead.contains(member);
            let in_sync_since = Some(now);
            leading.others.push(Progress {
                dead,
                in_sync_since,
                ..Progress::new(*member, now, self.log.end)
            });
        }
        effects.push(Effect::Lead { epoch: leading.epoch });
        effects.push(Effect::AppendEpochStart { epoch: leading.epoch });
        self.log.epochs.append(leading.epoch, self.log.end);
        self.role = Role::Leading(Box::new(leading));
    }

    /// What a delivery needs: the lives that must have promised. `None`: no delivery may be written.
    #[must_use]
    pub fn lease_members(&self) -> Option<Vec<BrokerLife>> {
        let Role::Leading(leading) = &self.role else { return None };
        if !leading.serves || leading.pending.as_ref().is_some_and(|pending| pending.hands_over) {
            return None;
        }
        leading
            .maximal_isr()
            .filter(|member| *member != self.identity.member)
            .map(|member| {
                leading
                    .progress(member)
                    .filter(|other| other.subscribed)
                    .and_then(|other| other.life)
            })
            .collect()
    }

    /// Whether publishes must be refused: so many members of the ISR are gone that nothing could be confirmed.
    #[must_use]
    pub fn starved(&self, now: Instant) -> bool {
        let Role::Leading(leading) = &self.role else { return false };
        let gone = |member: &Member| {
            leading
                .progress(*member)
                .is_some_and(|other| other.is_gone(now, &self.timing, self.log.end))
        };
        let well = leading.committed.iter().filter(|member| !gone(member)).count();
        // With the coordinator away, a member that is lost cannot be taken out either.
        well < leading.min_isr || (!self.connected && well < leading.committed.len())
    }

    /// How the other copies do, for operators.
    #[must_use]
    pub fn members(&self, now: Instant) -> Vec<MemberHealth> {
        let Role::Leading(leading) = &self.role else { return Vec::new() };
        leading
            .others
            .iter()
            .map(|other| MemberHealth {
                member: other.member,
                in_sync: leading.committed.contains(&other.member),
                gone: other.is_gone(now, &self.timing, self.log.end),
                fit: self.is_fit(leading, other),
                durable: other.durable,
            })
            .collect()
    }

    /// How far the other copies are behind this one, while it leads.
    pub fn lags(&self, now: Instant) -> impl Iterator<Item = Lag> + '_ {
        let others = match &self.role {
            Role::Leading(leading) => leading.others.as_slice(),
            _ => &[],
        };
        others.iter().map(move |other| other.lag(now, self.log.end))
    }

    /// Of the replica set, durable under this epoch up to the high watermark, and past the epoch start: a copy that has only
    /// older records might lack what an earlier leader committed.
    fn is_fit(&self, leading: &Leading, other: &Progress) -> bool {
        let may_join = |seen: &Seen| {
            seen.state.replicas.contains(&other.member.broker)
                && !seen.state.given_up.contains(&other.member)
        };
        other.subscribed
            && !other.dead
            && self.seen.as_ref().is_some_and(may_join)
            && other
                .durable
                .is_some_and(|end| end >= self.log.high_watermark && end > leading.start)
    }

    pub(crate) fn subscribed(
        &mut self,
        now: Instant,
        from: BrokerLife,
        subscription: Subscription,
        effects: &mut Vec<Effect>,
    ) {
        let known = self.highest_epoch();
        if subscription.epoch > known {
            // It has read a newer state than this broker. A leader that sees a higher epoch stops.
            if matches!(self.role, Role::Leading(_)) {
                self.leave_role(now, effects);
            }
            self.keep_early(from, subscription);
            return self.doubt(now, effects);
        }
        match &self.role {
            Role::Leading(leading) if leading.epoch == subscription.epoch => {
                if self.log.durable > leading.start {
                    self.answer(now, from, subscription, effects);
                } else {
                    // The epoch start is synced before any follower is answered.
                    self.keep_early(from, subscription);
                }
            }
            _ => effects.push(Effect::TellNotLeading {
                to: from,
                epoch: subscription.epoch,
                seen: known,
            }),
        }
    }

    fn keep_early(&mut self, from: BrokerLife, subscription: Subscription) {
        self.early.retain(|(life, _)| life.broker != from.broker);
        if self.early.len() < EARLY_MAX {
            self.early.push((from, subscription));
        }
    }

    /// Says where this log parts from the follower's; streams when the follower's is a part of it.
    fn answer(
        &mut self,
        now: Instant,
        from: BrokerLife,
        subscription: Subscription,
        effects: &mut Vec<Effect>,
    ) {
        let Role::Leading(leading) = &mut self.role else { return };
        let epoch = leading.epoch;
        let answer = match subscription.last_epoch {
            Some(last) => self.log.epochs.end_of(last, self.log.end),
            None => None,
        };
        let (last_epoch, end) =
            answer.map_or((None, Offset(0)), |(last_epoch, end)| (Some(last_epoch), end));
        let agreed = last_epoch == subscription.last_epoch && subscription.log_end <= end;
        effects.push(Effect::StopStream { to: from });
        if agreed && subscription.log_end < self.log.start {
            return effects.push(Effect::TellSnapshotNeeded { to: from, epoch });
        }
        effects.push(Effect::TellEpochEnd {
            to: from,
            epoch,
            last_epoch,
            end,
            number: subscription.number,
        });
        if !agreed {
            return;
        }
        let member = subscription.member;
        for other in &mut leading.others {
            if other.member.broker == member.broker && other.member != member {
                // Its broker has another data directory now: that store is gone.
                other.dead = true;
                other.subscribed = false;
            }
        }
        let counted: Vec<Member> = leading.maximal_isr().collect();
        leading.others.retain(|other| {
            other.member.broker != member.broker
                || other.member == member
                || counted.contains(&other.member)
        });
        if leading.progress(member).is_none() {
            leading.others.push(Progress::new(member, now, self.log.end));
        }
        if let Some(other) = leading.others.iter_mut().find(|other| other.member == member) {
            other.life = Some(from);
            other.dead = false;
            other.subscribed = true;
            other.durable = None;
            other.mark = (self.log.end, now);
        }
        effects.push(Effect::Stream { to: from, from: subscription.log_end });
        effects.push(Effect::LeaseChanged);
    }

    pub(crate) fn unsubscribed(
        &mut self,
        now: Instant,
        from: BrokerLife,
        epoch: Epoch,
        effects: &mut Vec<Effect>,
    ) {
        self.early.retain(|(life, subscription)| *life != from || subscription.epoch != epoch);
        let Role::Leading(leading) = &mut self.role else { return };
        if leading.epoch != epoch {
            return;
        }
        if let Some(other) = leading.others.iter_mut().find(|other| other.life == Some(from)) {
            other.subscribed = false;
            effects.push(Effect::StopStream { to: from });
            effects.push(Effect::LeaseChanged);
            // It stands, perhaps: then there is a newer state soon.
            self.doubt(now, effects);
        }
    }

    pub(crate) fn accepted_down(
        &mut self,
        now: Instant,
        peer: BrokerLife,
        effects: &mut Vec<Effect>,
    ) {
        self.early.retain(|(life, _)| *life != peer);
        let taken_for_dead = self.taken_for_dead.contains(&peer);
        let Role::Leading(leading) = &mut self.role else { return };
        if let Some(other) = leading.others.iter_mut().find(|other| other.life == Some(peer)) {
            if other.subscribed && other.durable >= Some(self.log.end) {
                other.caught_up_at = now;
            }
            other.subscribed = false;
            other.dead |= taken_for_dead;
            effects.push(Effect::StopStream { to: peer });
            effects.push(Effect::LeaseChanged);
            if taken_for_dead {
                self.consider_isr(now, effects);
            }
        }
    }

    pub(crate) fn reported(
        &mut self,
        now: Instant,
        from: BrokerLife,
        epoch: Epoch,
        end: Offset,
        effects: &mut Vec<Effect>,
    ) {
        let log_end = self.log.end;
        let Role::Leading(leading) = &mut self.role else { return };
        if leading.epoch != epoch {
            return;
        }
        let Some(other) =
            leading.others.iter_mut().find(|other| other.life == Some(from) && other.subscribed)
        else {
            return;
        };
        if end > log_end {
            let broker = other.member.broker;
            return self.stop(
                format!("broker {broker} reports its copy durable up to {end}, but the leader's log ends at {log_end}"),
                effects,
            );
        }
        other.durable = other.durable.max(Some(end));
        if end >= log_end {
            other.caught_up_at = now;
            other.mark = (log_end, now);
        } else if end >= other.mark.0 {
            other.caught_up_at = other.caught_up_at.max(other.mark.1);
            other.mark = (log_end, now);
        }
        self.advance(effects);
        self.consider_isr(now, effects);
    }

    pub(crate) fn appended(&mut self, now: Instant, end: Offset) {
        let before = self.log.end;
        self.log.end = end;
        let Role::Leading(leading) = &mut self.role else { return };
        for other in &mut leading.others {
            if other.subscribed && other.durable >= Some(before) {
                // It had everything until now: its lag begins here.
                other.caught_up_at = now;
                other.mark = (end, now);
            }
        }
    }

    pub(crate) fn local_durable(&mut self, now: Instant, end: Offset, effects: &mut Vec<Effect>) {
        self.log.durable = self.log.durable.max(end.min(self.log.end));
        match &self.role {
            Role::Following(_) => self.follower_durable(effects),
            Role::Leading(leading) if self.log.durable > leading.start => {
                let epoch = leading.epoch;
                for (from, subscription) in std::mem::take(&mut self.early) {
                    if subscription.epoch == epoch {
                        self.answer(now, from, subscription, effects);
                    }
                }
                self.advance(effects);
                self.consider_isr(now, effects);
            }
            _ => {}
        }
    }

    /// Promise G1: an offset is committed when every member of the maximal ISR has it durable under this epoch, and the committed
    /// and the pending ISR each have `min_isr` members.
    pub(crate) fn advance(&mut self, effects: &mut Vec<Effect>) {
        let Role::Leading(leading) = &mut self.role else { return };
        let pending_len =
            leading.pending.as_ref().map_or(usize::MAX, |pending| pending.proposal.isr.len());
        if leading.committed.len().min(pending_len) < leading.min_isr {
            return;
        }
        let me = self.identity.member;
        let mut end = self.log.durable;
        for member in leading.maximal_isr() {
            let durable = if member == me {
                Some(self.log.durable)
            } else {
                leading.progress(member).and_then(|other| other.durable)
            };
            let Some(durable) = durable else { return };
            end = end.min(durable);
        }
        if end > self.log.high_watermark {
            self.log.high_watermark = end;
            effects.push(Effect::HighWatermark { end });
        }
        if !leading.serves && self.log.high_watermark > leading.start {
            leading.serves = true;
            effects
                .push(Effect::Serve { epoch: leading.epoch, deliver_from: leading.deliver_from });
            effects.push(Effect::LeaseChanged);
        }
    }

    pub(crate) fn consider_isr(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.consider_leaving(now, effects);
        let members = self.members(now);
        let Role::Leading(leading) = &mut self.role else { return };
        let Some(seen) = &self.seen else { return };
        if leading.pending.is_some()
            || leading.is_leaving()
            || self.log.durable <= leading.start
            || !self.connected
        {
            return;
        }
        let replicas = &seen.state.replicas;
        let Some(isr) = next_isr(self.identity.member, &members, leading.min_isr, replicas) else {
            return;
        };
        let proposal = QueueState { isr, ..seen.state.clone() };
        leading.pending = Some(Pending::new(seen.version, proposal.clone()));
        // The lease first: once the CAS is out, who is about to join may lead next.
        effects.push(Effect::LeaseChanged);
        effects.push(Effect::Cas { version: seen.version, state: proposal });
    }

    /// The state of the epoch that is led was read: the ISR may have been decided.
    pub(crate) fn isr_read(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let (Role::Leading(leading), Some(seen)) = (&mut self.role, &self.seen) else { return };
        if leading.pending.as_ref().is_some_and(|pending| seen.version > pending.version) {
            leading.pending = None;
        }
        if leading.committed != seen.state.isr {
            let brokers = |isr: &[Member]| isr.iter().map(|member| member.broker).collect();
            effects.push(Effect::IsrChanged {
                from: brokers(&leading.committed),
                to: brokers(&seen.state.isr),
            });
            leading.committed = seen.state.isr.clone();
            let committed = &leading.committed;
            leading.others.retain(|other| other.subscribed || committed.contains(&other.member));
            for other in &mut leading.others {
                let since = other.in_sync_since.unwrap_or(now);
                other.in_sync_since = committed.contains(&other.member).then_some(since);
            }
        }
        leading.min_isr = usize::from(seen.state.min_isr);
        effects.push(Effect::LeaseChanged);
        self.advance(effects);
        self.consider_isr(now, effects);
    }

    pub(crate) fn isr_answered(
        &mut self,
        now: Instant,
        outcome: CasOutcome,
        effects: &mut Vec<Effect>,
    ) {
        let Role::Leading(leading) = &mut self.role else { return };
        let Some(pending) = &mut leading.pending else { return };
        match outcome {
            CasOutcome::Done { version } => {
                let state = pending.proposal.clone();
                self.read(now, state, version, true, effects);
            }
            CasOutcome::Refused => {
                pending.resend_at = None;
                self.doubt(now, effects);
            }
            CasOutcome::Undecided | CasOutcome::NotSent => {
                pending.resend_at = Some(now + self.timing.retry);
            }
        }
    }

    pub(crate) fn lead_tick(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let connected = self.connected;
        if let Role::Leading(leading) = &mut self.role
            && let Some(pending) = &mut leading.pending
            && connected
            && pending.resend_at.is_some_and(|at| now >= at)
        {
            pending.resend_at = None;
            effects.extend(leading.pending_cas());
        }
        self.consider_isr(now, effects);
    }

    /// The process did not run for a while: the silence of others in that time means nothing.
    pub(crate) fn paused(&mut self, now: Instant) {
        let Role::Leading(leading) = &mut self.role else { return };
        for other in &mut leading.others {
            other.caught_up_at = now;
        }
    }
}
