//! A disk that stalls: the leader resigns while it still can say so, and neither stands nor leads until syncs have been fine
//! for a while. What it appended and could not sync has an unknown fate, as at any loss of a leadership (promise G11):
//! no confirm was given for it, for its own disk had no part in it yet.

use std::time::{Duration, Instant};

use bellwether_coordinator::coordinator::Version;

use crate::{Effect, Replica, Role};

/// What the state remembers of a leader that resigned, for people.
const STALLS: &str = "its disk stalls: no write or sync returns";
/// The same of one that was elected or named, and never led.
const DECLINES: &str = "its disk stalls: it was to lead, and declined";
/// What a copy says of itself between the two.
const RETURNS: &str = "its disk stalled, and has yet to be fine for a while";

/// How long a member whose disk stalled, and whose syncs return again, leaves it to the others to stand: a sound one stands within
/// milliseconds. Beyond it the others are likely to be no better off, as on one storage that stalled for all of them.
const OTHERS_FIRST: Duration = Duration::from_secs(3);

/// Whether syncs return here.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Disk {
    /// None returned for long, or not for long enough since: it neither stands nor leads, if there are others.
    stalls: bool,
    /// They return again, though not for long yet.
    returns: bool,
    /// Since when nobody leads and this member, but for its disk, would stand; and the version of the state: nobody else stood.
    unled: Option<(Version, Instant)>,
}

impl Disk {
    pub fn told(&mut self, stalls: bool) {
        *self = Disk { stalls, returns: false, unled: self.unled };
    }

    pub fn returned(&mut self) {
        self.returns = self.stalls;
    }

    /// Time alone may make it stand.
    pub fn waits_for_others(&self) -> bool {
        self.returns && self.unled.is_some()
    }
}

impl Replica {
    /// The disk here stalls, or has been fine for long enough. Said again and again while it lasts, so that a leader whom nobody
    /// could follow at first resigns once somebody can.
    pub(crate) fn disk_stalls(&mut self, now: Instant, stalls: bool, effects: &mut Vec<Effect>) {
        self.disk.told(stalls);
        if !stalls {
            return self.consider_standing(now, effects);
        }
        if self.could_be_followed(now) {
            self.give_up_leading(now, effects);
        }
    }

    pub(crate) fn disk_returns(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.disk.returned();
        self.consider_standing(now, effects);
    }

    /// Whether another in-sync member is there to be elected: without one, resigning would only end what may go on when the
    /// sync returns after all (promise G10). One that is frozen, or whose own disk stalls, is not there, though its connection is.
    /// While the epoch start is not synced nobody is answered, and who asks counts.
    fn could_be_followed(&self, now: Instant) -> bool {
        let Role::Leading(leading) = &self.role else { return false };
        let follows = leading
            .others
            .iter()
            .filter(|other| other.subscribed && !other.is_gone(now, &self.timing, self.log.end));
        let asking = self.early.iter().filter(|(_, asked)| asked.epoch == leading.epoch);
        let mut there =
            follows.map(|other| other.member).chain(asking.map(|(_, asked)| asked.member));
        self.connected && there.any(|member| leading.committed.contains(&member))
    }

    /// What keeps this copy from leading, for an operator who asks.
    #[must_use]
    pub fn disk_trouble(&self) -> Option<&'static str> {
        self.disk.stalls.then_some(if self.disk.returns { RETURNS } else { STALLS })
    }

    /// One whose disk stalled lets the others go first. But when none of them stands, and its syncs return, it does: a queue that
    /// could be led would have no leader until every disk was fine for a while (promise G10). Standing is safe for any member.
    pub(crate) fn leaves_it_to_others(&mut self, now: Instant) -> bool {
        let version = self.seen.as_ref().map(|seen| seen.version);
        let Some(version) = version.filter(|_| self.disk.stalls && self.may_stand()) else {
            self.disk.unled = None;
            return false;
        };
        let since =
            self.disk.unled.filter(|(at, _)| *at == version).map_or(now, |(_, since)| since);
        self.disk.unled = Some((version, since));
        !self.disk.returns || now < since + OTHERS_FIRST
    }

    // First it stops, then it says so: a leader that went on until its resignation was written could confirm, when the sync
    // returns in between, what a successor that is elected at once does not have (promise G2), or deliver beside it (G3).
    fn give_up_leading(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.leave_role(now, effects);
        self.resigns = Some(STALLS.to_owned());
        self.resign(now, effects);
    }

    /// Elected, or named by one that handed over, while the disk stalls: it would lead nobody anywhere. The epoch is never led. One
    /// that `won` after it had left it to the others long enough does not: nobody else would.
    pub(crate) fn declines(&mut self, now: Instant, won: bool, effects: &mut Vec<Effect>) -> bool {
        let stalls = self.disk.stalls && !(won && self.disk.returns);
        let Some(seen) = self.seen.as_ref().filter(|seen| stalls && seen.state.isr.len() > 1)
        else {
            return false;
        };
        let epoch = seen.state.epoch;
        self.leave_role(now, effects);
        self.stop_answering(now, epoch);
        // The leader before may deliver until what was promised to it has passed, and the next one asks nobody.
        self.deliver_from = Some(now + self.timing.promise);
        self.resigns = Some(DECLINES.to_owned());
        self.resign(now, effects);
        true
    }

    /// A state was read: what it asked for is done when it is named no more, and is asked for again when it still is.
    pub(crate) fn resignation_read(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if matches!(self.role, Role::Stopped { .. }) || self.resigns.is_none() {
            return;
        }
        if self.is_named_and_resigns() {
            self.resign(now, effects);
        } else {
            self.resigns = None;
        }
    }
}
