//! Following a leader: agreeing with it on the log, taking what it streams, reporting what is durable.

use std::time::Instant;

use bellwether_protocol::ids::{BrokerLife, Epoch, Offset};
use bellwether_protocol::peer::Subscription;

use crate::renew::Trust;
use crate::{Effect, Replica, Role};

/// A leader and how far the agreement with it has come.
#[derive(Debug)]
pub(crate) struct Following {
    pub epoch: Epoch,
    pub leader: BrokerLife,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its connection is not up, or it did not know yet that it leads: subscribe (again) at this time.
    Waiting { retry_at: Option<Instant> },
    /// Subscribed; it has not said yet where the logs part.
    Asked,
    /// The logs agree: what it streams is appended, and what is durable is reported.
    Agreed,
    /// A snapshot is being fetched.
    Fetching,
}

impl Following {
    pub fn wants_ticks(&self) -> bool {
        matches!(self.phase, Phase::Waiting { retry_at: Some(_) })
    }
}

/// What to do with batches that a leader streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Append those from this offset on; what lies below is in the log already.
    From(Offset),
    /// Not from the leader that is followed, or not agreed on yet: drop them.
    Drop,
    /// They do not join the log: a stream was cut. The shell drops them; the machine subscribes again.
    Gap,
}

impl Replica {
    /// The leader that is followed and its epoch, if there is one.
    #[must_use]
    pub fn follows(&self) -> Option<(BrokerLife, Epoch)> {
        match &self.role {
            Role::Following(following) => Some((following.leader, following.epoch)),
            _ => None,
        }
    }

    /// Whether batches from `base` to `end`, streamed by `from` in `epoch`, may be appended.
    pub fn admit(&mut self, now: Instant, from: BrokerLife, epoch: Epoch, base: Offset) -> Admit {
        let end = self.log.end;
        match &self.role {
            Role::Following(f)
                if f.leader == from && f.epoch == epoch && f.phase == Phase::Agreed =>
            {
                if base <= end {
                    return Admit::From(end);
                }
                // What was streamed before is still under way: ask again when it has passed.
                self.set_phase(Phase::Waiting { retry_at: Some(now + self.timing.retry) });
                Admit::Gap
            }
            _ => Admit::Drop,
        }
    }

    /// The shell appended what the leader streamed: the log ends at `end` now. `starts` are the
    /// first batches of epochs that were not in the log before.
    pub fn followed(&mut self, starts: &[(Epoch, Offset)], end: Offset) {
        for (epoch, base) in starts {
            if self.log.epochs.last() != Some(*epoch) {
                self.log.epochs.append(*epoch, *base);
            }
        }
        self.log.end = end;
    }

    pub(crate) fn follow(
        &mut self,
        now: Instant,
        leader: BrokerLife,
        epoch: Epoch,
        effects: &mut Vec<Effect>,
    ) {
        if self.is_superseded() {
            // What an older leader told is not all in the queue any more.
            self.heard_committed = Offset(0);
        }
        self.role =
            Role::Following(Following { epoch, leader, phase: Phase::Waiting { retry_at: None } });
        self.subscribe(now, effects);
    }

    /// Asks the leader to stream. Without a connection nothing is lost: [`crate::Event::Dialed`] asks again.
    fn subscribe(&mut self, _now: Instant, effects: &mut Vec<Effect>) {
        let Role::Following(following) = &self.role else { return };
        let (leader, epoch) = (following.leader, following.epoch);
        if self.awaits_snapshot() {
            effects.push(Effect::FetchSnapshot { leader, epoch });
            return self.set_phase(Phase::Fetching);
        }
        self.subscriptions += 1;
        let subscription = Subscription {
            queue: self.identity.queue,
            epoch,
            member: self.identity.member,
            last_epoch: self.log.epochs.last(),
            log_end: self.log.end,
            number: self.subscriptions,
        };
        effects.push(Effect::Subscribe { leader, subscription });
        self.set_phase(Phase::Asked);
    }

    fn set_phase(&mut self, phase: Phase) {
        if let Role::Following(following) = &mut self.role {
            following.phase = phase;
        }
    }

    fn phase_with(&self, from: BrokerLife, epoch: Epoch) -> Option<Phase> {
        match &self.role {
            Role::Following(f) if f.leader == from && f.epoch == epoch => Some(f.phase),
            _ => None,
        }
    }

    pub(crate) fn dialed(&mut self, now: Instant, peer: BrokerLife, effects: &mut Vec<Effect>) {
        match &self.role {
            Role::Following(f) if f.leader == peer && f.phase != Phase::Fetching => {
                self.subscribe(now, effects);
            }
            // Another life of the leader's broker: the one that was followed is no more.
            Role::Following(f) if f.leader.broker == peer.broker && f.leader != peer => {
                self.doubt(now, effects);
            }
            _ => {}
        }
    }

    pub(crate) fn dialed_down(&mut self, _now: Instant, peer: BrokerLife) {
        if let Role::Following(f) = &mut self.role
            && f.leader == peer
            && f.phase != Phase::Fetching
        {
            f.phase = Phase::Waiting { retry_at: None };
        }
    }

    /// The leader says where its log parts from this one: cut, and ask again until both agree. Never by the
    /// high watermark, which lags: cutting there would drop records that are committed.
    pub(crate) fn reconcile(
        &mut self,
        now: Instant,
        from: BrokerLife,
        epoch: Epoch,
        last_epoch: Option<Epoch>,
        end: Offset,
        effects: &mut Vec<Effect>,
    ) {
        if self.phase_with(from, epoch) != Some(Phase::Asked) {
            return;
        }
        let keep = match last_epoch {
            // The leader has no epoch as old as these: nothing here is in its log.
            None => Offset(0),
            Some(theirs) => match self.log.epochs.end_of(theirs, self.log.end) {
                Some((shared, my_end)) if shared == theirs => my_end.min(end),
                // Its epoch is not in this log: keep what is older, and ask again.
                Some((_, my_end)) => my_end,
                None => Offset(0),
            },
        };
        if keep < self.log.end {
            if self.cut(keep, effects) {
                // The leader streams once it hears of a log that agrees with its own.
                self.subscribe(now, effects);
            }
        } else if self.log.epochs.last() == last_epoch {
            self.set_phase(Phase::Agreed);
            self.report(effects);
        } else {
            self.subscribe(now, effects);
        }
    }

    /// Cuts the log at `to`; refuses, and stops this replica, below its own high watermark.
    fn cut(&mut self, to: Offset, effects: &mut Vec<Effect>) -> bool {
        if to < self.log.high_watermark && self.is_superseded() {
            // Cut here, what was applied could not be taken back. It is kept aside and fetched anew.
            self.set_phase(Phase::Waiting { retry_at: None });
            let why = format!(
                "a leader was forced on the queue whose log ends at {to}; this one is committed up to {}",
                self.log.high_watermark
            );
            effects.push(Effect::Superseded { why });
            return false;
        }
        if to < self.log.high_watermark {
            self.stop(
                format!(
                    "the leader's log ends at {to}, below {} which is known to be committed here: this copy is kept as it is. Compare the replicas before anything is deleted",
                    self.log.high_watermark
                ),
                effects,
            );
            return false;
        }
        effects.push(Effect::Truncate { to });
        self.log.epochs.truncate(to);
        self.log.end = to;
        self.log.durable = self.log.durable.min(to);
        true
    }

    /// Reports under an epoch only after both logs agree.
    fn report(&mut self, effects: &mut Vec<Effect>) {
        if let Role::Following(f) = &self.role
            && f.phase == Phase::Agreed
        {
            effects.push(Effect::ReportDurable {
                leader: f.leader,
                epoch: f.epoch,
                end: self.log.durable,
            });
        }
    }

    pub(crate) fn follower_durable(&mut self, effects: &mut Vec<Effect>) {
        self.report(effects);
    }

    pub(crate) fn rebuffed(
        &mut self,
        now: Instant,
        from: BrokerLife,
        epoch: Epoch,
        seen: Epoch,
        effects: &mut Vec<Effect>,
    ) {
        if self.phase_with(from, epoch).is_none() {
            return;
        }
        self.set_phase(Phase::Waiting { retry_at: Some(now + self.timing.retry) });
        if seen > epoch {
            self.doubt(now, effects);
        }
    }

    pub(crate) fn snapshot_needed(
        &mut self,
        from: BrokerLife,
        epoch: Epoch,
        effects: &mut Vec<Effect>,
    ) {
        if matches!(self.phase_with(from, epoch), Some(Phase::Asked | Phase::Agreed)) {
            self.set_phase(Phase::Fetching);
            effects.push(Effect::FetchSnapshot { leader: from, epoch });
        }
    }

    pub(crate) fn snapshot_installed(
        &mut self,
        now: Instant,
        epoch: Epoch,
        at: Offset,
        epochs: Vec<(Epoch, Offset)>,
        effects: &mut Vec<Effect>,
    ) {
        match bellwether_log::EpochHistory::new(epochs) {
            Ok(epochs) => self.log.epochs = epochs,
            Err(error) => {
                return self
                    .stop(format!("a snapshot's epochs are not in order: {error:?}"), effects);
            }
        }
        self.trust = Trust::Sound;
        self.log.start = at;
        self.log.end = at;
        self.log.durable = at;
        if at > self.log.high_watermark {
            self.log.high_watermark = at;
            effects.push(Effect::HighWatermark { end: at });
        }
        if let Role::Following(f) = &self.role
            && f.epoch == epoch
            && f.phase == Phase::Fetching
        {
            self.subscribe(now, effects);
        }
    }

    pub(crate) fn snapshot_failed(&mut self, now: Instant, epoch: Epoch) {
        let retry_at = Some(now + self.timing.retry * 8);
        if let Role::Following(f) = &mut self.role
            && f.epoch == epoch
            && f.phase == Phase::Fetching
        {
            f.phase = Phase::Waiting { retry_at };
        }
    }

    pub(crate) fn follow_high_watermark(
        &mut self,
        from: BrokerLife,
        epoch: Epoch,
        high_watermark: Offset,
        effects: &mut Vec<Effect>,
    ) {
        let Some(phase) = self.phase_with(from, epoch) else { return };
        self.heard_committed = self.heard_committed.max(high_watermark);
        if phase != Phase::Agreed {
            return;
        }
        let end = high_watermark.min(self.log.end);
        if end > self.log.high_watermark {
            self.log.high_watermark = end;
            effects.push(Effect::HighWatermark { end });
        }
    }

    pub(crate) fn follow_tick(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if let Role::Following(f) = &self.role
            && let Phase::Waiting { retry_at: Some(at) } = f.phase
            && now >= at
        {
            self.subscribe(now, effects);
        }
    }
}
