//! Disks that stall: a sync does not return for a while, and then it does, or fails. Writes gather meanwhile. The process looks at its
//! disk now and then, as the broker does.

use std::time::{Duration, Instant};

use bellwether_coordinator::records::QueueState;
use bellwether_protocol::ids::{Epoch, Member};
use bellwether_replication::{DiskNews, DiskWatch, Event};

use crate::counts::Guard;
use crate::disk::Disk;
use crate::happenings::Happening;
use crate::ports::{Fact, Input, Output};
use crate::process::Process;
use crate::world::{SESSION_TIMEOUT_US, World};

/// A third of the session.
const LIMIT_US: u64 = SESSION_TIMEOUT_US / 3;

/// How often a process looks at its disk, as a part of the limit.
const LOOKS: u32 = 8;

/// No sync that begins now returns before its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stall {
    until_us: u64,
    /// The sync that waited fails.
    fails: bool,
    /// A sync waits: of the process with this number.
    holds: Option<u64>,
}

/// What a process knows of its disk, and what it did about it.
pub(crate) struct Attention {
    watch: DiskWatch,
    look_at: Instant,
    /// Since when a sync is under way.
    pub syncing_since: Option<Instant>,
    /// The epoch whose leadership it gave up last for a stall, until it leads again.
    gave_up: Option<Epoch>,
    /// The last epoch that it led, or declined to lead.
    seen_to: Option<Epoch>,
}

impl Attention {
    pub fn begins(now: Instant) -> Attention {
        Attention {
            watch: DiskWatch::new(Duration::from_micros(LIMIT_US)),
            look_at: now,
            syncing_since: None,
            gave_up: None,
            seen_to: None,
        }
    }
}

impl Process {
    pub(crate) fn look_at_disk(&mut self, disk: &mut Disk) {
        if self.now < self.attention.look_at {
            return;
        }
        self.attention.look_at = self.now + Duration::from_micros(LIMIT_US) / LOOKS;
        let busy = self.attention.syncing_since.map(|since| self.now - since);
        let Some(news) = self.attention.watch.look(self.now, busy) else { return };
        if news == DiskNews::Stalls {
            self.guarded(Guard::Noticed);
        }
        let led = self.leader.as_ref().map(|leader| leader.epoch);
        let event = match news {
            DiskNews::Stalls | DiskNews::StillStalls => Event::DiskStalls(true),
            DiskNews::Returns => Event::DiskReturns,
            DiskNews::Fine => Event::DiskStalls(false),
        };
        self.step(disk, event);
        match led {
            Some(_) if self.leader.is_none() => {
                self.attention.gave_up = led;
                self.guarded(Guard::Resigned);
            }
            Some(_) if news == DiskNews::Stalls => self.guarded(Guard::Stayed),
            Some(_) | None => {}
        }
    }

    /// A sync returned.
    pub(crate) fn disk_answered(&mut self) {
        self.attention.syncing_since = None;
        let named = |epoch: &Epoch| {
            self.replica
                .state()
                .is_some_and(|(state, _)| state.epoch == *epoch && state.leader == self.life)
        };
        if self.attention.gave_up.as_ref().is_some_and(named) {
            self.guarded(Guard::ReturnedUndecided);
        }
    }

    pub(crate) fn begins_to_lead(&mut self, epoch: Epoch) {
        self.attention.seen_to = Some(epoch);
        if self.attention.gave_up.take().is_some() {
            self.guarded(Guard::LedAgain);
        }
    }

    /// It asks for a state that names nobody in this epoch.
    pub(crate) fn asks_for_no_leader(&mut self, epoch: Epoch) {
        self.out.push(Output::Fact(Fact::Resigns { epoch }));
        if self.attention.seen_to < Some(epoch) && self.replica.stopped().is_none() {
            self.attention.seen_to = Some(epoch);
            self.guarded(Guard::Declined);
        }
    }

    fn guarded(&mut self, guard: Guard) {
        self.out.push(Output::Fact(Fact::Guarded(guard)));
    }
}

impl World {
    /// Short of the limit, around it, or far beyond.
    pub(crate) fn stall(&mut self, node: usize) {
        if self.nodes[node].stall.is_some() {
            return;
        }
        let lasts = match self.random.between(0, 9) {
            0..3 => self.random.between(50_000, LIMIT_US),
            3..6 => self.random.between(LIMIT_US, LIMIT_US * 5 / 4),
            _ => self.random.between(LIMIT_US * 5 / 4, LIMIT_US * 9),
        };
        let fails = self.random.chance(15);
        self.tell(|| format!("fault: the disk of b{} stalls for {lasts} us", node + 1));
        self.counts.stalls += 1;
        self.counts.long_stalls += u64::from(lasts > LIMIT_US);
        let until_us = self.schedule.now_us() + lasts;
        self.nodes[node].stall = Some(Stall { until_us, fails, holds: None });
        self.schedule.at(until_us, Happening::StallEnds { node });
    }

    pub(crate) fn stall_leader(&mut self) {
        let leader = self.serving().map(|(life, _)| life).and_then(|life| self.node_of(life));
        if let Some(node) = leader {
            self.stall(node);
        }
    }

    /// A sync begins. One that a stall holds comes back with its end.
    pub(crate) fn sync_begins(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        if let Some(stall) = &mut it.stall {
            stall.holds = Some(it.generation);
            return;
        }
        let is_slow = it.disk_slow_until_us > self.schedule.now_us();
        let takes = if is_slow || self.random.chance(2) { 100_000 } else { 300 };
        self.later(node, takes, Input::Synced);
    }

    pub(crate) fn stall_ends(&mut self, node: usize) {
        let now = self.schedule.now_us();
        let over = |stall: &mut Stall| stall.until_us <= now || self.quiet;
        let Some(stall) = self.nodes[node].stall.take_if(over) else { return };
        self.tell(|| format!("the disk of b{} goes on", node + 1));
        if stall.holds != Some(self.nodes[node].generation) {
            return;
        }
        if stall.fails && !self.quiet && self.fail_store(node) {
            self.counts.failed += 1;
        } else {
            self.later(node, 300, Input::Synced);
        }
    }

    /// Now and then a broker does not hear what became of its resignation, and its sync returns meanwhile.
    pub(crate) fn may_lose_the_ensemble(&mut self, node: usize) {
        if self.quiet || self.nodes[node].stall.is_none() || !self.random.chance(30) {
            return;
        }
        let (lost, back) =
            (self.random.between(100, 5_000), self.random.between(10_000, 2_500_000));
        self.schedule.after(lost, Happening::Disconnect { node });
        self.schedule.after(lost + back, Happening::Reconnect { node });
        let goes_on = lost + self.random.between(100, 20_000);
        if let Some(stall) = self.nodes[node].stall.as_mut().filter(|_| self.random.chance(50)) {
            stall.until_us = self.schedule.now_us() + goes_on;
            self.schedule.after(goes_on, Happening::StallEnds { node });
        }
    }

    /// A state was written in the place of another.
    pub(crate) fn count(&mut self, before: &QueueState, now: &QueueState) {
        self.counts.written(before, now);
        let by_leader = now.leader.is_some() && now.leader == before.leader;
        let out = before.isr.iter().filter(|member| by_leader && !now.isr.contains(member));
        let stalls = |member: &&Member| self.nodes[member.broker.0 as usize - 1].stall.is_some();
        self.counts.shrunk_out += out.filter(stalls).count() as u64;
    }
}
