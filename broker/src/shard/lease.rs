//! The right to write deliveries: promises of the other members, put together to a lease for each term of leadership.
//!
//! There is one lease for a term. What it needs changes in place (members join and leave the in-sync set), and it may be
//! withdrawn and granted again; a connection holds back what it does not cover for the moment. Were each change a new lease, and what
//! waits under the old one dropped and handed out again, later messages would overtake it (promise G5).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Instant;

use arc_swap::ArcSwap;
use bellwether_protocol::ids::QueueId;

use crate::metrics::Metrics;

/// The right to write deliveries of one queue in one term of leadership. Holds while it is granted and every other member of the maximal
/// ISR has promised not to deliver as a successor. Checked right before each write.
#[derive(Clone, Default)]
pub struct Lease(Arc<Terms>);

#[derive(Default)]
struct Terms {
    granted: AtomicBool,
    over: AtomicBool,
    /// One for each other member.
    promises: ArcSwap<Vec<Arc<Promises>>>,
}

impl Lease {
    /// Whether a delivery may be written at `now`.
    #[must_use]
    pub fn holds(&self, now: Instant) -> bool {
        let granted = || self.0.granted.load(Ordering::Acquire);
        // Once more behind the promises: a reader withdraws first, and then takes a promise that no longer covers the queue.
        granted() && self.0.promises.load().iter().all(|promise| promise.holds(now)) && granted()
    }

    /// Whether it will never hold again: the term has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.over.load(Ordering::Acquire)
    }

    /// Whether the two are the lease of the same term.
    #[must_use]
    pub fn is(&self, other: &Lease) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Not for the moment. Says whether it was granted.
    pub(crate) fn withdraw(&self) -> bool {
        self.0.granted.swap(false, Ordering::AcqRel)
    }

    /// Never again.
    pub fn end(&self) {
        self.0.over.store(true, Ordering::Release);
        self.0.granted.store(false, Ordering::Release);
    }

    /// Says whether it is granted now and was not before.
    fn grant(&self, promises: Vec<Arc<Promises>>) -> bool {
        self.0.promises.store(Arc::new(promises));
        let grants = !self.is_over();
        !self.0.granted.swap(grants, Ordering::AcqRel) && grants
    }
}

/// One connection of a peer, in the life of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// One that nobody has.
    #[must_use]
    pub fn next() -> ConnectionId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        ConnectionId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The leases that are out, by queue, so that a connection's reader can withdraw one without waiting for a shard.
///
/// The reader of an accepted peer connection calls [`Leases::withdraw`] for each queue of an `Unsubscribe` *before* it
/// takes the next frame: else a promise that comes behind the `Unsubscribe`, and no longer covers that queue, would
/// prolong its lease until the shard gets round to it.
#[derive(Default)]
pub struct Leases {
    entries: RwLock<HashMap<QueueId, Entry>>,
    metrics: Arc<Metrics>,
}

/// The lease of one queue, and what has happened to it that the shard has not heard of.
#[derive(Default)]
struct Entry {
    lease: Option<Lease>,
    /// `Unsubscribe`s read from connections that the shard has not dealt with: the lease is not granted meanwhile, for it
    /// would rest on promises that no longer cover the queue.
    unhandled: Vec<ConnectionId>,
}

impl Leases {
    /// None yet; what is granted and withdrawn is counted.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Leases {
        Leases { entries: RwLock::default(), metrics }
    }

    /// Withdraws a lease until it is granted again: what it rests on is not there.
    pub fn lapse(&self, lease: &Lease) {
        if lease.withdraw() {
            self.metrics.leases_withdrawn.increment();
        }
    }

    /// Grants `lease` on these promises, unless an `Unsubscribe` waits for the shard.
    pub fn grant(&self, queue: QueueId, lease: &Lease, promises: Vec<Arc<Promises>>) {
        let mut entries = self.entries();
        let entry = entries.entry(queue).or_default();
        if !entry.unhandled.is_empty() {
            self.lapse(lease);
        } else if lease.grant(promises) {
            self.metrics.leases_granted.increment();
        }
        entry.lease = Some(lease.clone());
    }

    /// Withdraws the lease of this queue, at once, until the shard has dealt with the reason ([`Leases::handled`]).
    pub fn withdraw(&self, queue: QueueId, by: ConnectionId) {
        let mut entries = self.entries();
        let entry = entries.entry(queue).or_default();
        entry.unhandled.push(by);
        if let Some(lease) = &entry.lease {
            self.lapse(lease);
        }
    }

    /// The shard is dealing with what one [`Leases::withdraw`] was for.
    pub fn handled(&self, queue: QueueId, by: ConnectionId) {
        self.update(queue, |entry| {
            if let Some(one) = entry.unhandled.iter().position(|one| *one == by) {
                entry.unhandled.swap_remove(one);
            }
        });
    }

    /// The connection is down, and its promises with it: nothing that was read from it comes any more. The peer may have
    /// dialed the next one already, and said there what is not to be forgotten.
    pub fn gone(&self, by: ConnectionId) {
        self.entries().retain(|_, entry| {
            entry.unhandled.retain(|one| *one != by);
            entry.lease.is_some() || !entry.unhandled.is_empty()
        });
    }

    /// The queue is not led here any more.
    pub fn forget(&self, queue: QueueId) {
        self.update(queue, |entry| entry.lease = None);
    }

    /// Changes an entry, and drops it when there is nothing left to remember.
    fn update(&self, queue: QueueId, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.entries();
        if let Some(entry) = entries.get_mut(&queue) {
            change(entry);
            if entry.unhandled.is_empty() && entry.lease.is_none() {
                entries.remove(&queue);
            }
        }
    }

    fn entries(&self) -> RwLockWriteGuard<'_, HashMap<QueueId, Entry>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The promises of one peer on one connection that it dialed.
pub struct Promises {
    /// Nanoseconds from `origin` until which deliveries may be written: the time the last answered ask was *sent*, plus two thirds of T. 0: never.
    until: AtomicU64,
    origin: Instant,
}

impl Promises {
    /// No promise yet.
    #[must_use]
    pub fn none() -> Promises {
        Promises { until: AtomicU64::new(0), origin: Instant::now() }
    }

    /// Deliveries may be written until `until`, if that is later than what was promised before.
    pub fn extend(&self, until: Instant) {
        let nanos = until.saturating_duration_since(self.origin).as_nanos() as u64;
        self.until.fetch_max(nanos, Ordering::AcqRel);
    }

    /// The connection is gone: never again.
    pub fn end(&self) {
        self.until.store(0, Ordering::Release);
    }

    /// Whether a delivery may be written at `now`.
    #[must_use]
    pub fn holds(&self, now: Instant) -> bool {
        let nanos = now.saturating_duration_since(self.origin).as_nanos() as u64;
        nanos < self.until.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    const PEER: ConnectionId = ConnectionId(1);
    const PEER_AGAIN: ConnectionId = ConnectionId(2);
    const QUEUE: QueueId = QueueId(Uuid::from_u128(1));

    #[test]
    fn a_lease_is_withheld_while_an_unsubscribe_waits_for_the_shard() {
        let (leases, lease) = (Leases::default(), Lease::default());
        leases.grant(QUEUE, &lease, Vec::new());
        assert!(lease.holds(Instant::now()));
        leases.withdraw(QUEUE, PEER);
        assert!(!lease.holds(Instant::now()), "the reader withdraws it at once");
        leases.grant(QUEUE, &lease, Vec::new());
        assert!(!lease.holds(Instant::now()), "its promises no longer cover the queue");
        leases.handled(QUEUE, PEER);
        leases.grant(QUEUE, &lease, Vec::new());
        assert!(lease.holds(Instant::now()));
    }

    #[test]
    fn an_unsubscribe_that_was_lost_with_its_connection_withholds_no_lease() {
        let (leases, lease) = (Leases::default(), Lease::default());
        leases.withdraw(QUEUE, PEER);
        leases.gone(PEER);
        leases.grant(QUEUE, &lease, Vec::new());
        assert!(lease.holds(Instant::now()));
    }

    /// The shards lagged: they heard of the end of the first connection after the second had withdrawn the lease.
    #[test]
    fn an_unsubscribe_of_the_next_connection_is_not_lost_with_the_last() {
        let (leases, lease) = (Leases::default(), Lease::default());
        leases.withdraw(QUEUE, PEER_AGAIN);
        leases.gone(PEER);
        leases.grant(QUEUE, &lease, Vec::new());
        assert!(!lease.holds(Instant::now()));
        leases.handled(QUEUE, PEER_AGAIN);
        leases.grant(QUEUE, &lease, Vec::new());
        assert!(lease.holds(Instant::now()));
    }

    #[test]
    fn a_member_that_joins_is_needed_at_once_also_by_what_was_handed_out_before() {
        let (leases, lease) = (Leases::default(), Lease::default());
        let handed_out = lease.clone();
        leases.grant(QUEUE, &lease, Vec::new());
        let joins = Arc::new(Promises::none());
        leases.grant(QUEUE, &lease, vec![joins.clone()]);
        let now = Instant::now();
        assert!(!handed_out.holds(now), "it has not promised yet");
        joins.extend(now + Duration::from_secs(1));
        assert!(handed_out.holds(now));
    }

    #[test]
    fn a_lease_whose_term_is_over_is_never_granted_again() {
        let (leases, lease) = (Leases::default(), Lease::default());
        lease.end();
        leases.grant(QUEUE, &lease, Vec::new());
        assert!(!lease.holds(Instant::now()));
        assert!(lease.is_over());
    }
}
