//! One queue's replica: elections, reconciliation of logs, the in-sync set and the high watermark.
//!
//! A pure machine: events and the time go in, effects come out. It owns no log; it is told how far
//! the local one goes ([`Replica::log`]) and says what to append and where to cut.

mod disk_watch;
mod event;
mod follow;
mod force;
mod heed;
mod isr;
mod lead;
mod leave;
mod part;
mod progress;
mod renew;
mod stall;
mod stand;
mod stop;

use std::time::{Duration, Instant};

use bellwether_coordinator::coordinator::Version;
use bellwether_coordinator::records::QueueState;
use bellwether_log::EpochHistory;
use bellwether_protocol::ids::{BrokerId, BrokerLife, Epoch, Member, Offset, QueueId};
use bellwether_protocol::peer::{NoPosition, Position, Subscription};

pub use disk_watch::{DiskNews, DiskWatch};
pub use event::{CasOutcome, Effect, Event};
pub use follow::Admit;
pub use force::{Force, NotForced};
pub use isr::MemberHealth;
pub use progress::Lag;

use follow::Following;
use force::Forcing;
use lead::Leading;
use part::Parting;
use renew::Trust;
use stand::Standing;

/// The times that the rules need.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A member that has not caught up for this long is taken out of the ISR.
    pub lag_limit: Duration,
    /// T: how long a promise not to deliver as a successor holds.
    pub promise: Duration,
    /// How long a candidate waits for the positions of the others, and for each one that goes before it.
    pub stand_step: Duration,
    /// How long a follower waits before it asks a leader again that said it does not lead (yet).
    pub retry: Duration,
    /// How long the preferred leader has to be in sync, and the present one to lead, before the leadership moves to it.
    pub settle: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            lag_limit: Duration::from_secs(1),
            promise: Duration::from_millis(300),
            stand_step: Duration::from_millis(30),
            retry: Duration::from_millis(30),
            settle: Duration::from_secs(5),
        }
    }
}

/// Who this replica is: fixed for the life of the process, but for a damaged log that is given up.
#[derive(Clone, Debug)]
pub struct Identity {
    pub queue: QueueId,
    pub member: Member,
    /// When the process started: a restarted broker has forgotten its promises, and delivers only T later.
    pub started: Instant,
}

/// How far the local log goes, kept in step by the shell.
#[derive(Clone, Debug, Default)]
pub struct LogFacts {
    pub epochs: EpochHistory,
    /// Batches below are dropped but for live messages: a follower that ends below needs a snapshot.
    pub start: Offset,
    pub end: Offset,
    pub durable: Offset,
    /// Highest known to be committed. Never cut below it.
    pub high_watermark: Offset,
}

/// The last state that was read, with its version.
#[derive(Clone, Debug)]
struct Seen {
    state: QueueState,
    version: Version,
}

/// What this replica is doing.
#[derive(Debug)]
enum Role {
    /// Nothing known yet, or nothing to do: no leader, not in the ISR, no life.
    Idle,
    /// Follows, or tries to.
    Following(Following),
    /// Has stopped answering the old epoch; its CAS is under way.
    Standing(Standing),
    /// Leads the epoch.
    Leading(Box<Leading>),
    /// Outside the replica set, and asks for leave to give its log up.
    Parting(Box<Parting>),
    /// Takes no further part.
    Stopped { why: String },
}

/// One queue's replica on one broker.
///
/// *Invariants:* leads an epoch at most once, and none that it has stopped answering; `log.high_watermark` never goes
/// back; the log is never cut below it.
#[derive(Debug)]
pub struct Replica {
    identity: Identity,
    timing: Timing,
    life: Option<BrokerLife>,
    connected: bool,
    seen: Option<Seen>,
    /// The state was read after a sync in this life. Until then it answers no peer and stands for nothing: a stale
    /// read would let it vote in an epoch that its former life has ended.
    verified: bool,
    /// The highest epoch that it has stopped answering: it neither follows nor leads this or a lower one.
    stopped_answering: Option<Epoch>,
    /// An epoch that it stopped answering to stand, in a session that is over, and what had been stopped before.
    abandoned: Option<(Epoch, Option<Epoch>)>,
    /// It gave its leadership up for this reason, which concerns this copy alone: while the state names it, it resigns.
    resigns: Option<String>,
    /// Whether syncs return here.
    disk: stall::Disk,
    trust: Trust,
    /// It has begun anew as another member in this life of the process: the old one may still be counted on.
    renewed: bool,
    /// When it last stopped answering an epoch, for the delivery lease of its successor.
    stopped_at: Option<Instant>,
    /// When the term that was left, or stood for, could have begun to deliver: until then an older leader may.
    deliver_from: Option<Instant>,
    /// The last life that is proven gone or dead.
    departed: Vec<BrokerLife>,
    /// Lives whose process is taken for dead. Evidence, not proof: hearing from one ends it.
    taken_for_dead: Vec<BrokerLife>,
    log: LogFacts,
    role: Role,
    /// Brokers that would decline to lead.
    unready: Vec<BrokerId>,
    /// How much longer each member waits for those before it, while many queues lost this leader at once.
    crowd: Option<(BrokerLife, Duration)>,
    /// Since when a trigger to stand has been there, and what was heard since.
    candidacy: Option<stand::Candidacy>,
    /// Subscriptions to an epoch that this broker does not know of yet; answered when it leads it.
    early: Vec<(BrokerLife, Subscription)>,
    /// Subscriptions so far. An answer to an older one than the last may speak of a log that is another by now.
    subscriptions: u64,
    /// Not before: the next read of the state that a doubt asks for.
    reread_after: Option<Instant>,
    /// Milliseconds since 1970, as last told: for what a state remembers, and for nothing that is decided.
    wall_ms: u64,
    /// The largest high watermark that a leader told. This log may end below it.
    heard_committed: Offset,
    /// An operator's order to lead, that is being looked into.
    forcing: Option<Forcing>,
}

/// Lives proven dead that are remembered, at most: more than any replica set has members.
const DEPARTED_MAX: usize = 16;
/// Early subscriptions that are kept, at most one for each other member.
const EARLY_MAX: usize = 8;

impl Replica {
    /// Takes other times from now on: how long a follower may lag, and how long a preferred leader has to be in sync. Both decide when
    /// something is tried, and never what may be confirmed. The promise stays as it was: a successor that waits for a shorter one than
    /// the leader before it counts on would deliver beside it (promise G3).
    pub fn retime(&mut self, lag_limit: Duration, settle: Duration) {
        (self.timing.lag_limit, self.timing.settle) = (lag_limit, settle);
    }

    /// A replica of a log that was checked and, as far as it says so, is durable.
    #[must_use]
    pub fn new(identity: Identity, timing: Timing, log: LogFacts) -> Replica {
        Replica {
            identity,
            timing,
            life: None,
            connected: false,
            seen: None,
            verified: false,
            stopped_answering: None,
            abandoned: None,
            resigns: None,
            disk: stall::Disk::default(),
            trust: Trust::Sound,
            renewed: false,
            stopped_at: None,
            deliver_from: None,
            departed: Vec::new(),
            taken_for_dead: Vec::new(),
            log,
            role: Role::Idle,
            unready: Vec::new(),
            crowd: None,
            candidacy: None,
            early: Vec::new(),
            subscriptions: 0,
            reread_after: None,
            wall_ms: 0,
            heard_committed: Offset(0),
            forcing: None,
        }
    }

    /// What a clock on the wall shows, in milliseconds since 1970.
    pub fn tell_time(&mut self, unix_ms: u64) {
        self.wall_ms = unix_ms;
    }

    /// One thing happens.
    pub fn step(&mut self, now: Instant, event: Event, effects: &mut Vec<Effect>) {
        if let Role::Stopped { .. } = self.role {
            return self.step_stopped(now, event, effects);
        }
        if let Some(speaker) = event.speaker() {
            // Two members that went on taking each other for dead would depose each other for ever.
            self.taken_for_dead.retain(|life| *life != speaker);
        }
        match event {
            Event::Life(life) => self.live(now, life, effects),
            Event::Connected(connected) => self.connect(now, connected, effects),
            Event::State { state, version, synced } => {
                self.read(now, state, version, synced, effects)
            }
            Event::Gone { life } => {
                remember(&mut self.departed, life);
                self.depart(now, life, true, effects);
            }
            Event::Dead { life } => {
                remember(&mut self.taken_for_dead, life);
                self.depart(now, life, false, effects);
            }
            Event::Dialed { peer } => self.dialed(now, peer, effects),
            Event::DialedDown { peer } => self.dialed_down(now, peer),
            Event::AcceptedDown { peer } => self.accepted_down(now, peer, effects),
            Event::Subscribe { from, subscription } => {
                self.subscribed(now, from, subscription, effects)
            }
            Event::Unsubscribe { from, epoch } => self.unsubscribed(now, from, epoch, effects),
            Event::Durable { from, epoch, end } => self.reported(now, from, epoch, end, effects),
            Event::EpochEnd { from, epoch, last_epoch, end, number } => {
                if number == self.subscriptions {
                    self.reconcile(now, from, epoch, last_epoch, end, effects);
                }
            }
            Event::NotLeading { from, epoch, seen } => {
                self.rebuffed(now, from, epoch, seen, effects)
            }
            Event::SnapshotNeeded { from, epoch } => self.snapshot_needed(from, epoch, effects),
            Event::SnapshotInstalled { epoch, at, epochs } => {
                self.snapshot_installed(now, epoch, at, epochs, effects);
            }
            Event::SnapshotFailed { epoch } => self.snapshot_failed(now, epoch),
            Event::Committed { from, epoch, high_watermark } => {
                self.follow_high_watermark(from, epoch, high_watermark, effects);
            }
            Event::Position { from, position } => self.heard_position(now, from, position, effects),
            Event::NoPosition { from, without } => {
                self.heard_no_position(now, from, without, effects)
            }
            Event::Appended { end } => self.appended(now, end),
            Event::LocalDurable { end } => self.local_durable(now, end, effects),
            Event::Cas { version, state, outcome } => {
                self.cas_answered(now, version, &state, outcome, effects)
            }
            Event::HandOver => self.hand_over(now, effects),
            Event::Move => self.move_on(now, effects),
            Event::DiskStalls(stalls) => self.disk_stalls(now, stalls, effects),
            Event::DiskReturns => self.disk_returns(now, effects),
            Event::StoreFailed { why } | Event::Broken { why } => {
                self.stop_and_resign(now, why, effects);
            }
            Event::LogLost { store, why } => self.lose_log(now, store, why, effects),
            Event::Force(order) => self.force(now, order, effects),
            Event::Note(committed) => self.note(committed, effects),
            Event::Paused => self.paused(now),
            Event::Tick => self.tick(now, effects),
        }
    }

    /// Whether time alone may make it act, so that it wants [`Event::Tick`] every few milliseconds.
    #[must_use]
    pub fn wants_ticks(&self) -> bool {
        if let Role::Stopped { .. } = self.role {
            return self.is_named_and_resigns();
        }
        if self.candidacy.is_some()
            || self.reread_after.is_some()
            || self.forcing.is_some()
            || self.disk.waits_for_others()
            || self.is_named_and_resigns()
        {
            return true;
        }
        match &self.role {
            Role::Idle | Role::Stopped { .. } => false,
            Role::Following(following) => following.wants_ticks(),
            Role::Standing(_) | Role::Parting(_) => true,
            Role::Leading(leading) => leading.wants_ticks(&self.log),
        }
    }

    /// How far the local log goes, as this machine knows it.
    #[must_use]
    pub fn log(&self) -> &LogFacts {
        &self.log
    }

    /// Batches below are dropped from now on.
    pub fn log_starts(&mut self, start: Offset) {
        if !self.awaits_snapshot() {
            self.log.start = start;
        }
    }

    /// The last state that was read.
    #[must_use]
    pub fn state(&self) -> Option<(&QueueState, Version)> {
        self.seen.as_ref().map(|seen| (&seen.state, seen.version))
    }

    /// What this broker promised for the epoch it stopped answering may have been promised as late as this.
    pub fn promised_until(&mut self, at: Instant) {
        self.stopped_at = self.stopped_at.map(|stopped| stopped.max(at));
    }

    /// The epoch this broker leads, if it does.
    #[must_use]
    pub fn leads(&self) -> Option<Epoch> {
        match &self.role {
            Role::Leading(leading) if !leading.is_leaving() => Some(leading.epoch),
            _ => None,
        }
    }

    /// The epoch this broker leads and serves, if it does.
    #[must_use]
    pub fn serves(&self) -> Option<Epoch> {
        match &self.role {
            Role::Leading(leading) if leading.serves() => Some(leading.epoch),
            _ => None,
        }
    }

    /// Whether it leads an epoch, serving, about to serve or about to leave.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        matches!(self.role, Role::Leading(_))
    }

    /// Whether a change of the state is under way that this leader has asked for: which version the state has next is not known.
    #[must_use]
    pub fn changes_state(&self) -> bool {
        matches!(&self.role, Role::Leading(leading) if leading.pending.is_some())
    }

    /// Whether it has asked to lead.
    #[must_use]
    pub fn is_standing(&self) -> bool {
        matches!(self.role, Role::Standing(_))
    }

    /// Why the replica takes no part any more, if so.
    #[must_use]
    pub fn stopped(&self) -> Option<&str> {
        match &self.role {
            Role::Stopped { why } => Some(why),
            _ => None,
        }
    }

    /// Whether what stopped it concerns this copy alone: the others may well lead.
    #[must_use]
    pub fn stopped_alone(&self) -> bool {
        matches!(self.role, Role::Stopped { .. }) && self.resigns.is_some()
    }

    /// Where this log ends, for members that stand and for one that would pass this one over.
    ///
    /// # Errors
    /// Nothing of it may be used, or may be yet.
    pub fn position(&self) -> Result<Position, NoPosition> {
        let stopped = matches!(self.role, Role::Stopped { .. });
        if stopped || !self.verified {
            let (queue, member) = (self.identity.queue, self.identity.member);
            return Err(NoPosition { queue, member, stopped });
        }
        Ok(Position {
            queue: self.identity.queue,
            member: self.identity.member,
            seen: self.highest_epoch(),
            last_epoch: self.log.epochs.last().unwrap_or_default(),
            log_end: self.log.end,
        })
    }

    fn highest_epoch(&self) -> Epoch {
        let read = self.seen.as_ref().map_or(Epoch(0), |seen| seen.state.epoch);
        read.max(self.log.epochs.last().unwrap_or_default())
    }

    fn live(&mut self, now: Instant, life: Option<BrokerLife>, effects: &mut Vec<Effect>) {
        if self.life == life {
            return;
        }
        // A session's end ends every leadership won in it: only the incarnation that the state names leads.
        self.leave_role(now, effects);
        self.life = life;
        self.verified = false;
        self.resigns = None;
        self.candidacy = None;
        self.early.clear();
        if life.is_some() {
            self.doubt(now, effects);
        }
    }

    /// Ends what it is doing, without doing anything else yet. A leader stops answering its epoch.
    fn leave_role(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        match std::mem::replace(&mut self.role, Role::Idle) {
            Role::Idle => {}
            Role::Following(following) => {
                effects
                    .push(Effect::Unsubscribe { leader: following.leader, epoch: following.epoch });
            }
            Role::Standing(standing) => {
                // Until the state is read anew on another session, the old epoch stays unanswered.
                self.abandoned = Some((standing.old_epoch, standing.answered_before));
                self.stop_answering(now, standing.old_epoch);
                self.deliver_from = Some(now + self.timing.promise);
            }
            Role::Leading(leading) => {
                self.stop_answering(now, leading.epoch);
                self.deliver_from = Some(leading.deliver_from);
                effects.push(Effect::StopLeading { epoch: leading.epoch });
            }
            Role::Parting(_) => {}
            Role::Stopped { why } => self.role = Role::Stopped { why },
        }
    }

    fn stop_answering(&mut self, now: Instant, epoch: Epoch) {
        self.stopped_answering = self.stopped_answering.max(Some(epoch));
        self.stopped_at = Some(now);
    }

    fn may_answer(&self, epoch: Epoch) -> bool {
        self.stopped_answering.is_none_or(|stopped| epoch > stopped)
    }

    fn connect(&mut self, now: Instant, connected: bool, effects: &mut Vec<Effect>) {
        self.connected = connected;
        if connected {
            self.resend_cas(effects);
            self.consider_standing(now, effects);
        }
    }

    fn depart(&mut self, now: Instant, life: BrokerLife, proven: bool, effects: &mut Vec<Effect>) {
        if let Role::Leading(leading) = &mut self.role {
            leading.departed(life, proven);
            return self.consider_isr(now, effects);
        }
        self.consider_standing(now, effects);
    }

    fn has_departed(&self, life: BrokerLife) -> bool {
        self.departed.contains(&life) || self.taken_for_dead.contains(&life)
    }

    fn doubt(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        // One read at a time: a doubt that lasts asks again after a while.
        if self.reread_after.is_none() {
            effects.push(Effect::ReadState);
            self.reread_after = Some(now + self.timing.retry * 8);
        }
    }

    fn tick(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.reread_after.is_some_and(|at| now >= at) {
            self.reread_after = Some(now + self.timing.retry * 8);
            effects.push(Effect::ReadState);
        }
        match &self.role {
            Role::Following(_) => self.follow_tick(now, effects),
            Role::Standing(_) => self.stand_tick(now, effects),
            Role::Leading(_) => self.lead_tick(now, effects),
            Role::Parting(_) => self.part_tick(now, effects),
            Role::Idle | Role::Stopped { .. } => {}
        }
        self.force_when_due(now, effects);
        self.resign(now, effects);
        self.consider_standing(now, effects);
    }

    fn cas_answered(
        &mut self,
        now: Instant,
        version: Version,
        state: &QueueState,
        outcome: CasOutcome,
        effects: &mut Vec<Effect>,
    ) {
        if self.resigns.is_some() && outcome != CasOutcome::NotSent {
            effects.push(Effect::ReadState);
        }
        // An answer to what was asked for in a role or a life that was left since means nothing: what is read decides.
        match &self.role {
            Role::Standing(standing)
                if standing.version == version && standing.proposal == *state =>
            {
                self.stand_answered(now, outcome, effects);
            }
            Role::Leading(leading) if leading.awaits(version, state) => {
                self.isr_answered(now, outcome, effects);
            }
            Role::Parting(parting) if parting.awaits(version, state) => {
                self.part_answered(now, outcome, effects);
            }
            Role::Idle
            | Role::Standing(_)
            | Role::Leading(_)
            | Role::Following(_)
            | Role::Parting(_)
            | Role::Stopped { .. } => {}
        }
    }

    /// The same CAS again: at most one of its sendings can win.
    fn resend_cas(&mut self, effects: &mut Vec<Effect>) {
        match &self.role {
            Role::Standing(standing) => effects.push(standing.cas()),
            Role::Leading(leading) => effects.extend(leading.pending_cas()),
            Role::Parting(parting) => effects.push(parting.cas()),
            Role::Idle | Role::Following(_) | Role::Stopped { .. } => {}
        }
    }
}

fn remember(lives: &mut Vec<BrokerLife>, life: BrokerLife) {
    if !lives.contains(&life) {
        if lives.len() == DEPARTED_MAX {
            lives.remove(0);
        }
        lives.push(life);
    }
}
