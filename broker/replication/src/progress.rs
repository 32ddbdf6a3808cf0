//! What a leader knows of another copy, and when it takes it for gone.

use std::time::{Duration, Instant};

use bellwether_protocol::ids::{BrokerId, BrokerLife, Member, Offset};

use crate::Timing;

/// How far another copy is behind the leader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    pub broker: BrokerId,
    /// Records of the leader's log that it does not hold durably. `None`: it has reported nothing in this term.
    pub records: Option<u64>,
    /// How long ago it last held everything there was; nothing for one that does.
    pub behind_for: Duration,
}

/// What is known of another copy.
#[derive(Debug)]
pub(crate) struct Progress {
    pub member: Member,
    pub life: Option<BrokerLife>,
    /// Its broker's process is provably dead, or this store is gone.
    pub dead: bool,
    /// It follows on a live connection.
    pub subscribed: bool,
    /// What it reported durable under this epoch.
    pub durable: Option<Offset>,
    /// When it last held everything there was.
    pub caught_up_at: Instant,
    /// The end of the log at some time: holding that means having been caught up then.
    pub mark: (Offset, Instant),
    /// Since when it is known to be in the ISR.
    pub in_sync_since: Option<Instant>,
}

impl Progress {
    pub fn new(member: Member, now: Instant, end: Offset) -> Progress {
        Progress {
            member,
            life: None,
            dead: false,
            subscribed: false,
            durable: None,
            caught_up_at: now,
            mark: (end, now),
            in_sync_since: None,
        }
    }

    pub fn is_gone(&self, now: Instant, timing: &Timing, log_end: Offset) -> bool {
        let caught_up = self.subscribed && self.durable >= Some(log_end);
        self.dead
            || !caught_up && now.saturating_duration_since(self.caught_up_at) > timing.lag_limit
    }

    pub fn lag(&self, now: Instant, log_end: Offset) -> Lag {
        let caught_up = self.subscribed && self.durable >= Some(log_end);
        let since = now.saturating_duration_since(self.caught_up_at);
        Lag {
            broker: self.member.broker,
            records: self.durable.map(|held| log_end.0.saturating_sub(held.0)),
            behind_for: if caught_up { Duration::ZERO } else { since },
        }
    }
}
