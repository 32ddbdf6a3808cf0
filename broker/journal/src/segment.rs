//! One segment file, as shards and the journal thread share it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::disk::DiskFile;
use crate::format::SegmentSeq;

/// A segment file. Whoever holds one can read it, also when it has been freed meanwhile: a file is
/// overwritten only when nobody else holds it.
pub struct Segment {
    pub seq: SegmentSeq,
    pub file: Arc<dyn DiskFile>,
    /// Bytes of unsettled messages in it, as far as the shards know.
    live_bytes: AtomicU64,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Segment({})", self.seq.0)
    }
}

impl Segment {
    pub fn new(seq: SegmentSeq, file: Arc<dyn DiskFile>) -> Arc<Segment> {
        Arc::new(Segment { seq, file, live_bytes: AtomicU64::new(0) })
    }

    pub fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Relaxed)
    }

    pub fn add_live(&self, bytes: u64) {
        self.live_bytes.fetch_add(bytes, Relaxed);
    }

    /// Each share takes out no more than it put in.
    pub fn take_live(&self, bytes: u64) {
        self.live_bytes.fetch_sub(bytes, Relaxed);
    }
}

pub fn segment_name(seq: SegmentSeq) -> String {
    format!("segment-{:08x}", seq.0)
}

pub fn side_name(seq: SegmentSeq) -> String {
    format!("index-{:08x}", seq.0)
}

pub fn spare_name(number: u32) -> String {
    format!("spare-{number:08x}")
}

/// The number in a file name of that kind.
pub fn number_in(name: &str, kind: &str) -> Option<u32> {
    let digits = name.strip_prefix(kind)?.strip_prefix('-')?;
    (digits.len() == 8).then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}
