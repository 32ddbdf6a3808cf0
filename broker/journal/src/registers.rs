//! Where the registers of each queue lie, and which of them still count.

use std::collections::HashMap;

use bellwether_protocol::ids::QueueId;

use crate::format::{EntryHeader, EntryKind, SegmentSeq, Stamp};

/// A register and where it lies.
#[derive(Clone, Copy, Debug)]
pub struct RegisterRef {
    pub header: EntryHeader,
    pub segment: SegmentSeq,
    pub position: u32,
}

impl RegisterRef {
    /// Says that the log was dropped.
    fn drops(&self) -> bool {
        self.header.kind == EntryKind::Shape && self.header.generation == Stamp(0)
    }
}

/// All registers on the disk.
#[derive(Debug, Default)]
pub struct Registers {
    queues: HashMap<QueueId, Held>,
    segments: HashMap<SegmentSeq, Vec<QueueId>>,
}

/// The registers of one queue.
#[derive(Debug)]
struct Held {
    /// The newest: says the log's shape.
    top: RegisterRef,
    /// The newest checkpoint, unless the log was dropped since.
    checkpoint: Option<RegisterRef>,
    /// How many there are on the disk, old ones included.
    count: u32,
}

impl Registers {
    /// A register is on the disk. Those of one queue come with rising versions, but for copies of ones that still count.
    pub fn wrote(&mut self, register: RegisterRef) {
        let queue = register.header.queue;
        self.segments.entry(register.segment).or_default().push(queue);
        let held =
            self.queues.entry(queue).or_insert(Held { top: register, checkpoint: None, count: 0 });
        held.count += 1;
        let version = register.header.version;
        if version >= held.top.header.version {
            held.top = register;
        }
        if register.drops() {
            held.checkpoint = None;
        }
        let newest = held.checkpoint.is_none_or(|known| version >= known.header.version);
        if register.header.kind == EntryKind::Checkpoint && newest && !held.top.drops() {
            held.checkpoint = Some(register);
        }
    }

    /// The registers in a segment that still count: they must be moved before it is freed.
    pub fn needed_in(&self, segment: SegmentSeq) -> Vec<RegisterRef> {
        let mut queues = self.segments.get(&segment).cloned().unwrap_or_default();
        queues.sort_unstable();
        queues.dedup();
        let mut needed = Vec::new();
        for held in queues.iter().filter_map(|queue| self.queues.get(queue)) {
            // That a log was dropped must be known as long as something older of it could be taken for it.
            let forgettable = held.top.drops() && held.count == 1;
            if held.top.segment == segment && !forgettable {
                needed.push(held.top);
            }
            let older = held.checkpoint.filter(|one| one.header.version < held.top.header.version);
            needed.extend(older.filter(|one| one.segment == segment));
        }
        needed
    }

    /// The segment is gone.
    pub fn freed(&mut self, segment: SegmentSeq) {
        for queue in self.segments.remove(&segment).unwrap_or_default() {
            if let Some(held) = self.queues.get_mut(&queue) {
                held.count -= 1;
                if held.count == 0 {
                    self.queues.remove(&queue);
                }
            }
        }
    }
}
