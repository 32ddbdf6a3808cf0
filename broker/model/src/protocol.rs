//! The protocol of docs/replication.md as a machine of small steps: what may happen next ([`Protocol::enabled`]), and what comes of it
//! ([`Protocol::take`]). To be read beside that page, from the top: confirming, following, the in-sync set, standing, leading,
//! delivering, deleting, and then what goes wrong.
//!
//! What a step leaves to chance is *when* it happens, if ever. A frozen broker is one that takes no step for a while; a coordinator that is away
//! is one that takes none; a message that is lost is one whose step does not come, and links do not keep an order among each other. The crate's
//! page says what the abstraction may hide.

use crate::log::{Log, Record, What};
use crate::rules::{Bounds, Rules};
use crate::world::{BROKERS, Cas, Id, Isr, Life, Promises, Report, Role, State, World};

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A leader appends the next message.
    Publish {
        leader: Id,
    },
    /// A client is told that the last message was not done.
    Refuse {
        leader: Id,
    },
    /// What a broker has written gets to its disk, and a follower reports it.
    Sync {
        broker: Id,
    },
    /// A sync fails, and is tried again.
    SyncAgain {
        broker: Id,
    },
    /// A leader counts what was reported, and confirms.
    Confirm {
        leader: Id,
    },
    /// A follower asks where the logs part, and cuts its own.
    Agree {
        follower: Id,
    },
    /// A follower appends what its leader has.
    Fetch {
        follower: Id,
    },
    /// A leader asks for another in-sync set.
    Change {
        leader: Id,
        isr: Isr,
    },
    /// A member stops answering, and asks to lead.
    Stand {
        candidate: Id,
    },
    /// The coordinator takes a request up.
    Decide {
        asked_by: Id,
    },
    /// A broker learns what the coordinator holds: by a read after a sync, or by the answer to its request.
    Read {
        broker: Id,
    },
    /// The coordinator says something to a broker that will arrive late.
    Say {
        to: Id,
    },
    /// It arrives.
    HearLate {
        broker: Id,
    },
    /// A follower promises its leader not to deliver as a successor for a while.
    Promise {
        from: Id,
    },
    /// That while is over.
    RunOut {
        from: Id,
        to: Id,
    },
    /// A leader appends the settle of a message that it has delivered.
    Settle {
        leader: Id,
        message: u8,
    },
    /// A leader names a follower that has everything as its successor.
    HandOver {
        leader: Id,
        to: Id,
    },
    /// A leader stops, and asks that nobody be named.
    Resign {
        leader: Id,
    },
    /// A leader stops, and asks for a tombstone in the place of the queue.
    Delete {
        asked_by: Id,
    },
    /// A broker that has read the tombstone drops its copy.
    Drop {
        broker: Id,
    },
    /// Its store is struck off the tombstone.
    StrikeOff {
        broker: Id,
    },
    /// A broker does not find the queue's state, on a server that lags.
    NotFound {
        broker: Id,
    },
    /// A process ends; with the power goes what was not synced.
    Crash {
        broker: Id,
        power: bool,
    },
    Restart {
        broker: Id,
    },
    /// The disk of a broker that is down is replaced by an empty one.
    Wipe {
        broker: Id,
    },
    /// The session of a broker that runs ends.
    Expire {
        broker: Id,
    },
    /// It notices.
    BeginLife {
        broker: Id,
    },
}

/// The rules and how far a search goes.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    pub rules: Rules,
    pub bounds: Bounds,
}

// ---- Who follows whom -----------------------------------------------------------------------------------------------------------

impl Protocol {
    /// The leader that a broker follows, if that one leads the epoch and in the life that the follower has read of.
    fn leader_of(&self, world: &World, follower: Id) -> Option<Id> {
        let broker = &world.brokers[follower];
        let follows = match broker.role {
            Role::Follows { .. } => true,
            // The rule: who stands answers nobody in the old epoch.
            Role::Stands { .. } => self.rules.answer_old_epoch_after_standing,
            _ => false,
        };
        let life = broker.seen.leader.filter(|_| follows)?;
        let leader = Id::from(life.broker);
        let other = &world.brokers[leader];
        let leads = matches!(other.role, Role::Leads { .. })
            && other.life == life.number
            && other.seen.epoch == broker.seen.epoch;
        leads.then_some(leader)
    }

    /// As above, and both have agreed on the log.
    pub(crate) fn agreed_leader_of(&self, world: &World, follower: Id) -> Option<Id> {
        match world.brokers[follower].role {
            Role::Follows { agreed: true } | Role::Stands { agreed: true, .. } => {
                self.leader_of(world, follower)
            }
            _ => None,
        }
    }

    /// A follower tells what it has, and hears how far its leader has committed.
    fn report(&self, world: &mut World, follower: Id, durable: u8) {
        let Some(leader) = self.agreed_leader_of(world, follower) else { return };
        let store = world.brokers[follower].store;
        world.brokers[leader].reports[follower] = Some(Report { store, durable });
        self.hear_committed(world, follower, leader);
    }

    fn hear_committed(&self, world: &mut World, follower: Id, leader: Id) {
        let committed = world.brokers[leader].high_watermark;
        let broker = &mut world.brokers[follower];
        broker.high_watermark = broker.high_watermark.max(committed.min(broker.log.len()));
    }
}

// ---- Confirming -----------------------------------------------------------------------------------------------------------------

impl Protocol {
    /// Up to where a leader may confirm: what every member of the maximal ISR has reported durable under this epoch, if both sets have
    /// `min_isr` members.
    pub(crate) fn may_confirm(&self, world: &World, leader: Id) -> Option<u8> {
        let broker = &world.brokers[leader];
        if !matches!(broker.role, Role::Leads { .. }) || broker.leaves() {
            return None;
        }
        let committed = broker.seen.isr;
        let pending = broker.pending.map(|cas| cas.proposal.isr);
        if committed.len().min(pending.map_or(u8::MAX, Isr::len)) < self.bounds.min_isr {
            return None;
        }
        let counted = pending.filter(|_| !self.rules.expand_before_counted);
        let members = committed.members().chain(counted.into_iter().flat_map(Isr::members));
        // The least, and the least but one.
        let (mut end, mut next) = (u8::MAX, u8::MAX);
        for (member, store) in members.filter(|(member, _)| *member != leader) {
            let report = broker.reports[member].filter(|report| report.store == store);
            let durable = report.map_or(0, |report| report.durable);
            next = next.min(durable.max(end));
            end = end.min(durable);
        }
        let end = if self.rules.confirm_without_one_isr_member { next } else { end };
        let end = end.min(broker.durable());
        (end > broker.high_watermark).then_some(end)
    }

    fn confirm(&self, world: &mut World, leader: Id) {
        let Some(end) = self.may_confirm(world, leader) else { return };
        let broker = &mut world.brokers[leader];
        broker.high_watermark = end;
        let (log, past) = (broker.log.cut(end), &mut world.past);
        if log.starts_with(past.committed) {
            past.committed = log;
        } else if !past.committed.starts_with(log) {
            past.broken.reordered = true;
        }
        for record in log.records() {
            let What::Message(number) = record.what else { continue };
            // A later leader may well confirm it: what is promised is about the one that appended it.
            let own = record.epoch == broker.seen.epoch;
            past.broken.confirmed_after_deposition |= own && past.late & (1 << number) != 0;
            past.broken.confirmed_after_delete |= past.orphaned & (1 << number) != 0;
            past.broken.confirmed_refused |= past.refused & (1 << number) != 0;
        }
    }

    fn publish(&self, world: &mut World, leader: Id) {
        world.spent.messages += 1;
        let (number, broker) = (world.spent.messages, &mut world.brokers[leader]);
        broker.log.push(Record { epoch: broker.seen.epoch, what: What::Message(number) });
        if world.state.epoch > broker.seen.epoch {
            world.past.late |= 1 << number;
        }
        if world.state.deleted.is_some() {
            world.past.orphaned |= 1 << number;
        }
    }

    fn refuse(&self, world: &mut World, leader: Id) {
        if let Some(What::Message(number)) = self.refusable(world, leader) {
            world.past.refused |= 1 << number;
        }
    }

    /// The rule: what has been appended is never refused.
    fn refusable(&self, world: &World, leader: Id) -> Option<What> {
        let broker = &world.brokers[leader];
        let last = broker.log.get(broker.log.len().checked_sub(1)?)?;
        let uncommitted = broker.log.len() > broker.high_watermark && broker.serves().is_some();
        (self.rules.refuse_after_append && uncommitted && last.epoch == broker.seen.epoch)
            .then_some(last.what)
    }
}

// ---- Following ------------------------------------------------------------------------------------------------------------------

impl Protocol {
    pub(crate) fn may_agree(&self, world: &World, follower: Id) -> bool {
        if !matches!(world.brokers[follower].role, Role::Follows { agreed: false }) {
            return false;
        }
        let Some(leader) = self.leader_of(world, follower) else { return false };
        let leader = &world.brokers[leader];
        let Role::Leads { start } = leader.role else { return false };
        // The start of an epoch is synced before any follower is answered.
        leader.durable() > start || self.rules.answer_before_start_synced
    }

    /// The follower names the last epoch in its log, the leader its largest epoch not above that one and where it ends: cut, and ask again.
    fn agree(&self, world: &mut World, follower: Id) {
        let Some(leader) = self.leader_of(world, follower) else { return };
        let theirs = world.brokers[leader].log;
        let broker = &mut world.brokers[follower];
        if self.rules.truncate_to_high_watermark {
            broker.log = broker.log.cut(broker.high_watermark);
        }
        loop {
            let mine = broker.log;
            let answer = theirs.end_of(mine.last_epoch());
            let keep = match answer {
                None => 0,
                Some((epoch, end)) => match mine.end_of(epoch) {
                    Some((shared, my_end)) if shared == epoch => my_end.min(end),
                    Some((_, my_end)) => my_end,
                    None => 0,
                },
            };
            if keep < broker.high_watermark && !self.rules.truncate_to_high_watermark {
                // With the rules kept this cannot be asked of it. The copy is kept as it is.
                world.past.broken.cut_committed = true;
                broker.role = Role::Halted;
                return;
            }
            broker.log = mine.cut(keep);
            if keep == mine.len() {
                break;
            }
        }
        broker.role = Role::Follows { agreed: true };
        let durable = broker.durable();
        self.report(world, follower, durable);
    }

    pub(crate) fn may_fetch(&self, world: &World, follower: Id) -> bool {
        let leader = self.agreed_leader_of(world, follower);
        leader.is_some_and(|leader| {
            world.brokers[follower].log.len() < world.brokers[leader].log.len()
        })
    }

    /// Everything that the leader has streamed, which is everything that it has: it streams before its own sync.
    fn fetch(&self, world: &mut World, follower: Id) {
        let Some(leader) = self.agreed_leader_of(world, follower) else { return };
        let theirs = world.brokers[leader].log;
        let broker = &mut world.brokers[follower];
        for at in broker.log.len()..theirs.len() {
            if let Some(record) = theirs.get(at) {
                broker.log.push(record);
            }
        }
        self.hear_committed(world, follower, leader);
        if self.rules.ack_before_sync {
            let end = world.brokers[follower].log.len();
            self.report(world, follower, end);
        }
        if self.bounds.coarse {
            self.sync(world, follower);
        }
    }

    /// For leaders, and followers that have agreed. Of anybody else it matters at a crash alone, and there a sync right before is the crash
    /// without loss.
    pub(crate) fn may_sync(&self, world: &World, broker: Id) -> bool {
        let syncs = &world.brokers[broker];
        let leads = matches!(syncs.role, Role::Leads { .. });
        let drops = syncs.seen.deleted.is_some() && syncs.is_up();
        syncs.disk != syncs.log
            && (leads || drops || self.agreed_leader_of(world, broker).is_some())
    }

    fn sync(&self, world: &mut World, broker: Id) {
        world.brokers[broker].disk = world.brokers[broker].log;
        let end = world.brokers[broker].log.len();
        self.report(world, broker, end);
    }
}

// ---- The in-sync set ------------------------------------------------------------------------------------------------------------

impl Protocol {
    /// What names an old version is left out: it is refused whatever happens, and until then it only keeps who asked from
    /// confirming, following or asking again, as being slow would.
    fn may_ask(&self, world: &World, broker: Id) -> bool {
        let asks = &world.brokers[broker];
        asks.is_up()
            && asks.seen.version == world.state.version
            && asks.verified
            && !asks.expired
            && asks.pending.is_none()
            && world.under_way[broker].is_none()
            && asks.seen.deleted.is_none()
    }

    /// The sets that a leader may ask for. Whom it takes for gone is left open: it may be wrong about anybody.
    pub(crate) fn changes(&self, world: &World, leader: Id, mut ask: impl FnMut(Isr)) {
        let broker = &world.brokers[leader];
        let Role::Leads { start } = broker.role else { return };
        if !self.may_ask(world, leader) || broker.durable() <= start {
            return;
        }
        let isr = broker.seen.isr;
        let may_shrink = isr.len() > self.bounds.min_isr;
        for (gone, _) in isr.members().filter(|(member, _)| *member != leader) {
            if may_shrink || self.rules.shrink_below_min_isr {
                ask(isr.without(gone));
            }
        }
        for (other, report) in broker.reports.iter().enumerate() {
            let Some(report) = report.filter(|report| !isr.has(other, report.store)) else {
                continue;
            };
            // Durable under this epoch up to the high watermark, and past the epoch start.
            let past_start = report.durable > start || self.rules.expand_before_epoch_start;
            if report.durable < broker.high_watermark || !past_start {
                continue;
            }
            if isr.0[other].is_none() {
                ask(isr.with(other, report.store));
            }
            // Somebody would have to leave and cannot: the copy takes the place in one change.
            for (gone, _) in isr.members().filter(|(member, _)| *member != leader) {
                let in_place = gone == other || isr.0[other].is_none();
                if !may_shrink && in_place && !self.rules.never_swap {
                    ask(isr.without(gone).with(other, report.store));
                }
            }
        }
    }

    fn ask(&self, world: &mut World, broker: Id, proposal: State) {
        let cas = Cas { version: world.brokers[broker].seen.version, proposal };
        world.brokers[broker].pending = Some(cas);
        world.under_way[broker] = Some(cas);
    }
}

// ---- Standing -------------------------------------------------------------------------------------------------------------------

impl Protocol {
    /// A member of the ISR stands whenever it likes: the model asks for no evidence that the leader is gone, so that wrong evidence is in
    /// it. Nor does the longest log go first: that spares elections, and promises nothing.
    pub(crate) fn may_stand(&self, world: &World, candidate: Id) -> bool {
        let broker = &world.brokers[candidate];
        let in_sync = broker.seen.isr.has(candidate, broker.store) || self.rules.stand_outside_isr;
        let leads =
            broker.seen.leader == Some(Life { broker: candidate as u8, number: broker.life });
        self.may_ask(world, candidate)
            && in_sync
            && !leads
            && matches!(broker.role, Role::Idle | Role::Follows { .. })
    }

    fn stand(&self, world: &mut World, candidate: Id) {
        let promised = world.promises;
        let broker = &mut world.brokers[candidate];
        let seen = broker.seen;
        // First it stops answering the old epoch, and only then it asks to lead.
        let agreed = matches!(broker.role, Role::Follows { agreed: true });
        broker.role = Role::Stands { before: broker.stopped, agreed };
        if !self.rules.answer_old_epoch_after_standing {
            broker.stopped = broker.stopped.max(seen.epoch);
        }
        // A leader that resigned delivers nothing any more; any other may, until what was promised so far has run out.
        if seen.leader.is_some() && !self.rules.deliver_at_once {
            broker.waits = broker.waits.and(promised);
        }
        let dead =
            seen.leader.map(|life| Id::from(life.broker)).filter(|leader| *leader != candidate);
        let isr = match dead {
            // Never fewer than min_isr: rather keep a dead member.
            Some(dead) if seen.isr.0[dead].is_some() && seen.isr.len() > self.bounds.min_isr => {
                seen.isr.without(dead)
            }
            _ => seen.isr,
        };
        let isr =
            if self.rules.stand_outside_isr { isr.with(candidate, broker.store) } else { isr };
        let leader = Some(Life { broker: candidate as u8, number: broker.life });
        self.ask(world, candidate, State { epoch: seen.epoch + 1, leader, isr, ..seen });
    }

    fn decide(&self, world: &mut World, asked_by: Id) {
        let Some(cas) = world.under_way[asked_by].take() else { return };
        if self.rules.write_without_version {
            world.state = State { version: world.state.version + 1, ..cas.proposal };
            return;
        }
        world.state = State { version: cas.version + 1, ..cas.proposal };
        // What else names the old version is refused sooner or later, and nobody can tell when.
        world.under_way = [None; BROKERS];
    }
}

// ---- Heeding what was read, leading ---------------------------------------------------------------------------------------------

impl Protocol {
    pub(crate) fn may_read(&self, world: &World, broker: Id) -> bool {
        let reads = &world.brokers[broker];
        let undecided = reads.pending.is_some() && self.rules.take_old_read_for_refusal;
        let news = world.state.version > reads.seen.version
            || !reads.verified
            || reads.abandoned.is_some();
        reads.is_up() && !reads.expired && (news || undecided)
    }

    fn read(&self, world: &mut World, id: Id, state: State, synced: bool) {
        let broker = &mut world.brokers[id];
        if state.version < broker.seen.version || state.epoch < broker.log.last_epoch() {
            // Never back to an older one; and a server that lags accuses nobody.
            return;
        }
        if let Some((epoch, before)) = broker.abandoned.filter(|_| synced) {
            // The session that the request was sent in is over: it can no longer apply.
            broker.abandoned = None;
            if state.epoch == epoch && broker.stopped == epoch {
                broker.stopped = before;
            }
        }
        let old = std::mem::replace(&mut broker.seen, state);
        if broker.stopped < state.epoch {
            // It never goes back to an epoch below.
            (broker.stopped, broker.abandoned) = (0, None);
        }
        broker.verified |= synced || self.rules.believe_stale_read;
        if !broker.verified {
            return;
        }
        let decided = broker.pending.is_none_or(|cas| state.version > cas.version);
        match broker.role {
            Role::Leads { .. }
                if state.epoch == old.epoch
                    && state.leader == old.leader
                    && state.deleted.is_none() =>
            {
                if decided || self.rules.take_old_read_for_refusal {
                    broker.pending = None;
                }
                return;
            }
            Role::Stands { before, .. } => {
                if !decided && !self.rules.take_old_read_for_refusal {
                    // The request may apply yet: a read of the old version decides nothing.
                    return;
                }
                if state.epoch == old.epoch {
                    // Decided against it: the old epoch may be answered again.
                    broker.stopped = before;
                    broker.role = Role::Idle;
                }
            }
            Role::Follows { .. } if state.epoch == old.epoch && state.leader == old.leader => {
                return;
            }
            Role::Down | Role::Halted | Role::Idle | Role::Leads { .. } | Role::Follows { .. } => {}
        }
        self.take_role(world, id, old.epoch);
    }

    /// Takes the role that the state asks for.
    fn take_role(&self, world: &mut World, id: Id, left: u8) {
        let broker = &mut world.brokers[id];
        let state = broker.seen;
        if matches!(broker.role, Role::Leads { .. }) && left == state.epoch {
            broker.stopped = left;
        }
        (broker.role, broker.pending, broker.reports) = (Role::Idle, None, [None; BROKERS]);
        let me = Life { broker: id as u8, number: broker.life };
        match state.leader.filter(|_| state.deleted.is_none()) {
            // Once in each epoch, and none that it has stopped answering.
            Some(leader) if leader == me => {
                let led = broker.log.last_epoch() == state.epoch;
                let may = broker.may_answer(state.epoch) && state.isr.has(id, broker.store);
                if may && (!led || self.rules.adopt_old_ephemeral) {
                    self.lead(world, id);
                }
            }
            Some(leader) if Id::from(leader.broker) != id && broker.may_answer(state.epoch) => {
                broker.role = Role::Follows { agreed: false };
            }
            Some(_) | None => {}
        }
    }

    fn lead(&self, world: &mut World, id: Id) {
        let broker = &mut world.brokers[id];
        let epoch = broker.seen.epoch;
        let known = broker.log.records().position(|record| record.epoch == epoch);
        // Without a mutant it is never there: an epoch is not gone on with.
        let start = known.map_or(broker.log.len(), |at| at as u8);
        if known.is_none() {
            broker.log.push(Record { epoch, what: What::EpochStart });
        }
        broker.role = Role::Leads { start };
        broker.reports = [None; BROKERS];
        let leads = id as u8 + 1;
        let led_by = &mut world.past.leaders[usize::from(epoch)];
        world.past.broken.two_leaders |= *led_by != 0 && *led_by != leads;
        *led_by = leads;
    }
}

// ---- Delivering, settling, leaving in order -------------------------------------------------------------------------------------

impl Protocol {
    /// Whether a leader may deliver: it serves, has waited its time out, and everybody else in the maximal ISR has promised.
    #[must_use]
    pub fn may_deliver(&self, world: &World, leader: Id) -> bool {
        let broker = &world.brokers[leader];
        let leaves = broker.leaves() && !self.rules.deliver_while_leaving;
        if broker.serves().is_none() || leaves || broker.waits != Promises::default() {
            return false;
        }
        let pending = broker.pending.iter().flat_map(|cas| cas.proposal.isr.members());
        let mut others =
            broker.seen.isr.members().chain(pending).filter(|(member, _)| *member != leader);
        self.rules.deliver_without_lease
            || others.all(|(member, store)| {
                let subscribed = broker.reports[member].is_some_and(|report| report.store == store);
                subscribed && world.promises.has(Promises::one(member, leader))
            })
    }

    /// How much of its log a leader delivers from.
    #[must_use]
    pub fn delivers_from(&self, world: &World, leader: Id) -> Log {
        let broker = &world.brokers[leader];
        if self.rules.deliver_before_commit {
            broker.log
        } else {
            broker.log.cut(broker.high_watermark)
        }
    }

    /// Asked and answered while it follows; who stands has stopped before.
    fn may_promise(&self, world: &World, follower: Id) -> Option<Promises> {
        let leader = self.agreed_leader_of(world, follower)?;
        let promise = Promises::one(follower, leader);
        let waited_for = world.brokers.iter().any(|broker| broker.waits.0 & promise.0 != 0);
        (!world.promises.has(promise) || waited_for).then_some(promise)
    }

    /// Anew, it runs longer than those wait that began to before.
    fn promise(&self, world: &mut World, follower: Id) {
        let Some(promise) = self.may_promise(world, follower) else { return };
        self.run_out(world, promise);
        world.promises = world.promises.and(promise);
    }

    fn run_out(&self, world: &mut World, promise: Promises) {
        world.promises = world.promises.but(promise);
        for broker in &mut world.brokers {
            broker.waits = broker.waits.but(promise);
        }
    }

    fn settle(&self, world: &mut World, leader: Id, message: u8) {
        world.spent.settles += 1;
        let broker = &mut world.brokers[leader];
        broker.log.push(Record { epoch: broker.seen.epoch, what: What::Settle(message) });
    }

    /// Whoever follows one that left in order delivers at once: so that one must have waited its own time out.
    fn may_leave(&self, world: &World, leader: Id) -> bool {
        let broker = &world.brokers[leader];
        let waited = broker.waits == Promises::default() || self.rules.pass_on_at_once;
        waited && broker.serves().is_some() && self.may_ask(world, leader)
    }

    fn may_hand_over(&self, world: &World, leader: Id, to: Id) -> bool {
        let broker = &world.brokers[leader];
        let end = broker.log.len();
        let has_all = broker.reports[to]
            .is_some_and(|report| report.durable == end && broker.seen.isr.has(to, report.store));
        let follows = self.agreed_leader_of(world, to) == Some(leader);
        self.may_leave(world, leader) && broker.high_watermark == end && has_all && follows
    }

    fn hand_over(&self, world: &mut World, leader: Id, to: Id) {
        let number = world.brokers[to].life;
        let seen = world.brokers[leader].seen;
        let named = Some(Life { broker: to as u8, number });
        self.ask(world, leader, State { epoch: seen.epoch + 1, leader: named, ..seen });
    }

    /// It stops leading first, and says so second.
    fn resign(&self, world: &mut World, leader: Id) {
        let seen = world.brokers[leader].seen;
        self.ask(world, leader, State { leader: None, ..seen });
        let broker = &mut world.brokers[leader];
        (broker.role, broker.pending, broker.reports) = (Role::Idle, None, [None; BROKERS]);
        broker.stopped = broker.stopped.max(seen.epoch);
    }
}

// ---- Deleting -------------------------------------------------------------------------------------------------------------------

impl Protocol {
    fn may_delete(&self, world: &World, asked_by: Id) -> bool {
        let serves = world.brokers[asked_by].serves().is_some();
        self.may_ask(world, asked_by) && (serves || self.rules.delete_without_stopping)
    }

    fn delete(&self, world: &mut World, asked_by: Id) {
        let seen = world.brokers[asked_by].seen;
        self.ask(world, asked_by, State { deleted: Some(0b111), ..seen });
        if self.rules.delete_without_stopping {
            world.brokers[asked_by].pending = None;
        }
    }

    fn may_drop(&self, world: &World, broker: Id) -> bool {
        let drops = &world.brokers[broker];
        // On the tombstone alone, never on "not found".
        drops.is_up() && drops.verified && drops.seen.deleted.is_some() && !drops.log.is_empty()
    }

    fn drop_copy(&self, world: &mut World, broker: Id) {
        let drops = &mut world.brokers[broker];
        (drops.log, drops.high_watermark, drops.role) = (Log::default(), 0, Role::Idle);
    }

    fn may_strike_off(&self, world: &World, id: Id) -> bool {
        let broker = &world.brokers[id];
        let listed = world.state.deleted.is_some_and(|listed| listed & (1 << id) != 0);
        let dropped = broker.is_up()
            && broker.seen.deleted.is_some()
            && broker.log.is_empty()
            && broker.disk.is_empty();
        let absent = broker.role == Role::Down && self.rules.strike_off_the_absent;
        listed && (dropped || absent)
    }
}

// ---- What goes wrong ------------------------------------------------------------------------------------------------------------

impl Protocol {
    fn crash(&self, world: &mut World, id: Id, power: bool) {
        world.spent.crashes += 1;
        let broker = &mut world.brokers[id];
        if power {
            // A mark of what is committed gets to the disk in the order of the log's own records, so never ahead of a cut.
            if !self.rules.keep_high_watermark_apart {
                broker.high_watermark = broker.high_watermark.min(broker.durable());
            }
            broker.log = broker.disk;
        } else {
            // What the system has in memory gets to the disk; at the next start it is checked and synced.
            broker.disk = broker.log;
        }
        broker.high_watermark = broker.high_watermark.min(broker.log.len());
        (broker.role, broker.pending, broker.abandoned) = (Role::Down, None, None);
        (broker.verified, broker.expired, broker.stopped) = (false, false, 0);
        broker.reports = [None; BROKERS];
        broker.waits = Promises::default();
        if !self.rules.adopt_old_ephemeral {
            broker.seen = State::default();
        }
        for other in (0..BROKERS).filter(|other| *other != id) {
            self.run_out(world, Promises::one(other, id));
            let broker = &mut world.brokers[other];
            let followed = broker.seen.leader.is_some_and(|life| Id::from(life.broker) == id);
            if followed && broker.role == (Role::Follows { agreed: true }) {
                broker.role = Role::Follows { agreed: false };
            }
        }
    }

    /// Not before its former session is over, and with it what was under way. It reads after a sync, and until then it does nothing.
    fn restart(&self, world: &mut World, id: Id) {
        let promised = world.promises;
        let broker = &mut world.brokers[id];
        broker.role = Role::Idle;
        // It has forgotten its promises.
        broker.waits = promised;
        if self.rules.adopt_old_ephemeral {
            return;
        }
        broker.life += 1;
        world.under_way[id] = None;
        self.read_first(world, id);
    }

    /// A broker that has not read yet does nothing, like one that is still down: so both are one step.
    fn read_first(&self, world: &mut World, id: Id) {
        if !self.rules.believe_stale_read {
            self.read(world, id, world.state, true);
        }
    }

    fn wipe(&self, world: &mut World, id: Id) {
        world.spent.wipes += 1;
        let broker = &mut world.brokers[id];
        (broker.disk, broker.log, broker.high_watermark) = (Log::default(), Log::default(), 0);
        if !self.rules.skip_store_id {
            broker.store += 1;
        }
    }

    fn expire(&self, world: &mut World, id: Id) {
        world.spent.expiries += 1;
        world.brokers[id].expired = true;
        world.under_way[id] = None;
    }

    /// Drops every leadership, and comes back as another life.
    fn begin_life(&self, world: &mut World, id: Id) {
        let broker = &mut world.brokers[id];
        match broker.role {
            Role::Leads { .. } => broker.stopped = broker.stopped.max(broker.seen.epoch),
            // Until the state is read anew in another session, the old epoch stays unanswered.
            Role::Stands { before, .. } => broker.abandoned = Some((broker.seen.epoch, before)),
            _ => {}
        }
        (broker.role, broker.pending) = (Role::Idle, None);
        (broker.verified, broker.expired) = (false, false);
        broker.reports = [None; BROKERS];
        broker.life += 1;
        self.read_first(world, id);
    }
}

// ---- All of it ------------------------------------------------------------------------------------------------------------------

impl Protocol {
    /// What may happen next, within the bounds.
    pub fn enabled(&self, world: &World, steps: &mut Vec<Step>) {
        for id in 0..BROKERS {
            self.enabled_for_clients(world, id, steps);
            self.enabled_for_copies(world, id, steps);
            self.enabled_for_coordination(world, id, steps);
            if self.bounds.deliveries {
                self.enabled_for_deliveries(world, id, steps);
            }
            if self.bounds.deletes {
                self.enabled_for_deletes(world, id, steps);
            }
            self.enabled_faults(world, id, steps);
        }
    }

    fn enabled_for_clients(&self, world: &World, id: Id, steps: &mut Vec<Step>) {
        let broker = &world.brokers[id];
        if broker.serves().is_some()
            && !broker.leaves()
            && world.spent.messages < self.bounds.messages
        {
            steps.push(Step::Publish { leader: id });
        }
        if let Some(What::Message(number)) = self.refusable(world, id)
            && world.past.refused & (1 << number) == 0
        {
            steps.push(Step::Refuse { leader: id });
        }
    }

    fn enabled_for_copies(&self, world: &World, id: Id, steps: &mut Vec<Step>) {
        if self.may_sync(world, id) {
            steps.push(Step::Sync { broker: id });
            if self.rules.retry_failed_sync {
                steps.push(Step::SyncAgain { broker: id });
            }
        }
        if self.may_confirm(world, id).is_some() {
            steps.push(Step::Confirm { leader: id });
        }
        if self.may_agree(world, id) {
            steps.push(Step::Agree { follower: id });
        }
        if self.may_fetch(world, id) {
            steps.push(Step::Fetch { follower: id });
        }
    }

    fn enabled_for_coordination(&self, world: &World, id: Id, steps: &mut Vec<Step>) {
        if world.spent.isr_changes < self.bounds.isr_changes {
            self.changes(world, id, |isr| steps.push(Step::Change { leader: id, isr }));
        }
        if world.brokers[id].seen.epoch < self.bounds.epochs && self.may_stand(world, id) {
            steps.push(Step::Stand { candidate: id });
        }
        if world.under_way[id].is_some() {
            steps.push(Step::Decide { asked_by: id });
        }
        if self.may_read(world, id) {
            steps.push(Step::Read { broker: id });
        }
        if world.late.is_none() && world.spent.late_answers < self.bounds.late_answers {
            steps.push(Step::Say { to: id });
        }
        if world.late.is_some_and(|(to, _)| Id::from(to) == id) && world.brokers[id].is_up() {
            steps.push(Step::HearLate { broker: id });
        }
    }

    fn enabled_for_deliveries(&self, world: &World, id: Id, steps: &mut Vec<Step>) {
        if self.may_promise(world, id).is_some() {
            steps.push(Step::Promise { from: id });
        }
        for to in (0..BROKERS).filter(|to| *to != id) {
            if world.promises.has(Promises::one(id, to)) {
                steps.push(Step::RunOut { from: id, to });
            }
            if world.spent.moves < self.bounds.moves
                && world.brokers[id].seen.epoch < self.bounds.epochs
                && self.may_hand_over(world, id, to)
            {
                steps.push(Step::HandOver { leader: id, to });
            }
        }
        if world.spent.moves < self.bounds.moves && self.may_leave(world, id) {
            steps.push(Step::Resign { leader: id });
        }
        let early = self.rules.settle_before_lease && world.brokers[id].serves().is_some();
        if world.spent.settles < self.bounds.settles && (early || self.may_deliver(world, id)) {
            let (log, ready) = (world.brokers[id].log, self.delivers_from(world, id));
            for message in 1..=self.bounds.messages {
                if ready.holds(What::Message(message)) && !log.holds(What::Settle(message)) {
                    steps.push(Step::Settle { leader: id, message });
                }
            }
        }
    }

    fn enabled_for_deletes(&self, world: &World, id: Id, steps: &mut Vec<Step>) {
        if world.spent.deletes == 0 && self.may_delete(world, id) {
            steps.push(Step::Delete { asked_by: id });
        }
        if self.may_drop(world, id) {
            steps.push(Step::Drop { broker: id });
        }
        if self.may_strike_off(world, id) {
            steps.push(Step::StrikeOff { broker: id });
        }
    }

    fn enabled_faults(&self, world: &World, id: Id, steps: &mut Vec<Step>) {
        let (broker, spent) = (&world.brokers[id], &world.spent);
        if broker.role == Role::Down {
            steps.push(Step::Restart { broker: id });
            if spent.wipes < self.bounds.wipes {
                steps.push(Step::Wipe { broker: id });
            }
            return;
        }
        if broker.expired {
            steps.push(Step::BeginLife { broker: id });
        } else if spent.expiries < self.bounds.expiries {
            steps.push(Step::Expire { broker: id });
        }
        if spent.crashes < self.bounds.crashes {
            steps.push(Step::Crash { broker: id, power: false });
            if broker.disk != broker.log {
                steps.push(Step::Crash { broker: id, power: true });
            }
        }
        if self.rules.delete_on_not_found
            && spent.late_answers < self.bounds.late_answers
            && !broker.log.is_empty()
        {
            steps.push(Step::NotFound { broker: id });
        }
    }

    /// What comes of a step.
    #[must_use]
    pub fn take(&self, world: &World, step: Step) -> World {
        let mut next = *world;
        let w = &mut next;
        match step {
            Step::Publish { leader } => self.publish(w, leader),
            Step::Refuse { leader } => self.refuse(w, leader),
            Step::Sync { broker } => self.sync(w, broker),
            Step::SyncAgain { broker } => {
                let end = w.brokers[broker].log.len();
                self.report(w, broker, end);
            }
            Step::Confirm { leader } => self.confirm(w, leader),
            Step::Agree { follower } => self.agree(w, follower),
            Step::Fetch { follower } => self.fetch(w, follower),
            Step::Change { leader, isr } => {
                w.spent.isr_changes += 1;
                let seen = w.brokers[leader].seen;
                self.ask(w, leader, State { isr, ..seen });
            }
            Step::Stand { candidate } => self.stand(w, candidate),
            Step::Decide { asked_by } => self.decide(w, asked_by),
            Step::Read { broker } => self.read(w, broker, world.state, true),
            Step::Say { to } => {
                w.spent.late_answers += 1;
                w.late = Some((to as u8, w.state));
            }
            Step::HearLate { broker } => {
                if let Some((_, state)) = w.late.take() {
                    self.read(w, broker, state, false);
                }
            }
            Step::Promise { from } => self.promise(w, from),
            Step::RunOut { from, to } => self.run_out(w, Promises::one(from, to)),
            Step::Settle { leader, message } => self.settle(w, leader, message),
            Step::HandOver { leader, to } => {
                w.spent.moves += 1;
                self.hand_over(w, leader, to);
            }
            Step::Resign { leader } => {
                w.spent.moves += 1;
                self.resign(w, leader);
            }
            Step::Delete { asked_by } => {
                w.spent.deletes += 1;
                self.delete(w, asked_by);
            }
            Step::Drop { broker } => self.drop_copy(w, broker),
            Step::StrikeOff { broker } => {
                w.state.deleted = w.state.deleted.map(|listed| listed & !(1 << broker));
            }
            Step::NotFound { broker } => {
                w.spent.late_answers += 1;
                self.drop_copy(w, broker);
                self.sync(w, broker);
            }
            Step::Crash { broker, power } => self.crash(w, broker, power),
            Step::Restart { broker } => self.restart(w, broker),
            Step::Wipe { broker } => self.wipe(w, broker),
            Step::Expire { broker } => self.expire(w, broker),
            Step::BeginLife { broker } => self.begin_life(w, broker),
        }
        if self.bounds.coarse {
            (0..BROKERS).for_each(|leader| self.confirm(w, leader));
        }
        next
    }
}
