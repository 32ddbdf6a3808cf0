//! A copy whose log is damaged: it leaves what it is and takes part again as a new member, of a store id of its own,
//! with a snapshot to begin with (promise G1: what the damaged copy once reported durable is counted on by the member
//! that it was, and must not be expected of what it has now).

use std::time::Instant;

use bellwether_coordinator::records::QueueState;
use bellwether_protocol::ids::{Member, StoreId};

use crate::{Effect, LogFacts, Replica, Role};

/// Whether the log here may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    Sound,
    /// Damaged; as soon as no state names this broker as leader the copy becomes that of this store.
    Damaged(StoreId),
    /// A new member, which has nothing until a snapshot is installed.
    Fetched,
}

impl Replica {
    /// Who takes part here: another than at first once a damaged log was given up.
    #[must_use]
    pub fn member(&self) -> Member {
        self.identity.member
    }

    /// Whether the log here is damaged, and not yet replaced: nothing of it may be read, written or taken for an answer.
    #[must_use]
    pub fn awaits_snapshot(&self) -> bool {
        self.trust != Trust::Sound
    }

    pub(crate) fn lose_log(
        &mut self,
        now: Instant,
        store: StoreId,
        why: String,
        effects: &mut Vec<Effect>,
    ) {
        self.trust = Trust::Damaged(store);
        self.stop_and_resign(now, why, effects);
        self.renew(now, effects);
    }

    /// What it asked for before it gave its log up was granted since, or a leader that had not heard of that handed over to it: to the
    /// member that it was. It must not lead, and as long as it is named nobody else may.
    pub(crate) fn is_named_for_lost_log(&self, state: &QueueState) -> bool {
        self.trust == Trust::Fetched || self.renewed && !state.isr.contains(&self.identity.member)
    }

    /// Not before the state names somebody else: as long as it names this broker nobody may stand, and one that took part
    /// anew could be asked to lead with nothing.
    pub(crate) fn renew(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let Trust::Damaged(store) = self.trust else { return };
        if self.is_named_and_resigns() {
            return;
        }
        self.trust = Trust::Fetched;
        self.renewed = true;
        self.resigns = None;
        self.identity.member.store = store;
        // As after a restart: what the old member promised is kept by waiting.
        self.identity.started = now;
        self.log = LogFacts::default();
        self.heard_committed = self.log.high_watermark;
        self.verified = false;
        self.early.clear();
        self.reread_after = None;
        self.role = Role::Idle;
        effects.push(Effect::Renewed);
        if self.life.is_some() {
            self.doubt(now, effects);
        }
    }
}
