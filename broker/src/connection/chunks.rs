//! What the writer has encoded: bytes, with the right to write them where they are a delivery; and what is set aside until
//! it has that right again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::consumers::Outlet;
use crate::shard::input::Lease;

/// Bytes to write.
pub(super) struct Chunk {
    pub bytes: Bytes,
    pub delivery: Option<Pending>,
    /// Whether a part of them is written.
    pub begun: bool,
}

/// A delivery. None of its bytes is written without its lease.
pub(super) struct Pending {
    pub outlet: Arc<Outlet>,
    pub lease: Lease,
    /// As the outbox counts them.
    pub bytes: usize,
    pub messages: u64,
    pub redelivered: u64,
}

impl Chunk {
    pub fn new(bytes: Bytes, delivery: Option<Pending>) -> Chunk {
        Chunk { bytes, delivery, begun: false }
    }
}

impl Pending {
    pub fn will_never_be_written(&self) -> bool {
        self.outlet.is_closed() || self.lease.is_over()
    }
}

/// Deliveries that their leases do not cover for the moment.
///
/// *Invariant:* in order for each lease; `leases` are those of `chunks`.
#[derive(Default)]
pub(super) struct Aside {
    chunks: VecDeque<Chunk>,
    leases: Vec<Lease>,
}

impl Aside {
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Whether something of this lease waits here: what comes behind it waits too, or it would overtake it (promise G5).
    pub fn has(&self, lease: &Lease) -> bool {
        self.leases.iter().any(|known| known.is(lease))
    }

    pub fn add(&mut self, chunk: Chunk) {
        if let Some(pending) = &chunk.delivery
            && !self.has(&pending.lease)
        {
            self.leases.push(pending.lease.clone());
        }
        self.chunks.push_back(chunk);
    }

    /// Takes what is covered again, in order; drops what will never be.
    pub fn take_covered(&mut self, now: Instant) -> Vec<Chunk> {
        // Asked once for each lease: what it covers is taken whole.
        let covered: Vec<Lease> =
            self.leases.iter().filter(|lease| lease.holds(now)).cloned().collect();
        let mut taken = Vec::new();
        self.leases.clear();
        for chunk in std::mem::take(&mut self.chunks) {
            let Some(pending) = &chunk.delivery else { continue };
            if pending.will_never_be_written() {
                continue;
            }
            if covered.iter().any(|lease| lease.is(&pending.lease)) {
                taken.push(chunk);
            } else {
                self.add(chunk);
            }
        }
        taken
    }
}
