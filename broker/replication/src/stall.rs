//! A disk that stalls: the leader resigns while it still can say so, and neither stands nor leads until syncs have been fine
//! for a while. What it appended and could not sync has an unknown fate, as at any loss of a leadership (promise G11):
//! no confirm was given for it, for its own disk had no part in it yet.

use std::time::Instant;

use crate::{Effect, Replica, Role};

/// What the state remembers of a leader that resigned, for people.
const STALLS: &str = "its disk stalls: no write or sync returns";
/// The same of one that was elected or named, and never led.
const DECLINES: &str = "its disk stalls: it was to lead, and declined";

impl Replica {
    /// The disk here stalls, or has been fine for long enough. Said again and again while it lasts, so that a leader whom nobody
    /// could follow at first resigns once somebody can.
    pub(crate) fn disk_stalls(&mut self, now: Instant, stalls: bool, effects: &mut Vec<Effect>) {
        self.stalls = stalls;
        if !stalls {
            return self.consider_standing(now, effects);
        }
        if self.could_be_followed() {
            self.give_up_leading(now, effects);
        }
    }

    /// Whether another in-sync member is there to be elected: without one, resigning would only end what may go on when the
    /// sync returns after all (promise G10). While the epoch start is not synced nobody is answered, and who asks counts.
    fn could_be_followed(&self) -> bool {
        let Role::Leading(leading) = &self.role else { return false };
        let subscribed = leading.others.iter().filter(|other| other.subscribed);
        let asking = self.early.iter().filter(|(_, asked)| asked.epoch == leading.epoch);
        let mut there =
            subscribed.map(|other| other.member).chain(asking.map(|(_, asked)| asked.member));
        self.connected && there.any(|member| leading.committed.contains(&member))
    }

    // First it stops, then it says so: a leader that went on until its resignation was written could confirm, when the sync
    // returns in between, what a successor that is elected at once does not have (promise G2), or deliver beside it (G3).
    fn give_up_leading(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        self.leave_role(now, effects);
        self.resigns = Some(STALLS.to_owned());
        self.resign(now, effects);
    }

    /// Elected, or named by one that handed over, while the disk stalls: it would lead nobody anywhere. The epoch is never led.
    pub(crate) fn declines(&mut self, now: Instant, effects: &mut Vec<Effect>) -> bool {
        let Some(seen) = self.seen.as_ref().filter(|seen| self.stalls && seen.state.isr.len() > 1)
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
