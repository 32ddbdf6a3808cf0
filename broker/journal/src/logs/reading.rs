//! Reads: recent batches from memory, older ones by their place on the disk.

use bellwether_log::Batch;
use bellwether_protocol::ids::{Offset, OffsetRange, QueueId};

use super::Logs;
use crate::log::Log;
use crate::read::ReadRequest;
use crate::{Condition, Read};

impl Logs {
    /// Batches from the one that holds `from` on, about `bytes_max` of them, one at least.
    #[must_use]
    pub fn read(&self, queue: QueueId, from: Offset, bytes_max: usize) -> Read {
        let log = self.log(queue);
        if from < log.start || log.condition != Condition::Ok {
            return Read::Gone;
        }
        self.read_live(queue, &[OffsetRange::new(from, log.end)], bytes_max)
    }

    /// The batches that hold the messages of `ranges` (ascending), wherever they lie, about `bytes_max` of
    /// them: a prefix of what was asked, one batch at least. A batch may hold more than was asked for; see
    /// from the last batch's end how far it got.
    #[must_use]
    pub fn read_live(&self, queue: QueueId, ranges: &[OffsetRange], bytes_max: usize) -> Read {
        let log = self.log(queue);
        if log.condition != Condition::Ok {
            return Read::Gone;
        }
        let Some(first) = ranges.iter().find(|range| range.count() > 0) else {
            return Read::Ready(Vec::new());
        };
        match self.cache.first(queue) {
            Some(cached) if cached <= first.first => {
                Read::Ready(self.read_cached(queue, ranges, bytes_max))
            }
            cached => Logs::read_disk(log, queue, ranges, cached.unwrap_or(log.end), bytes_max),
        }
    }

    /// Everything from the first of `ranges` on is in memory.
    fn read_cached(&self, queue: QueueId, ranges: &[OffsetRange], bytes_max: usize) -> Vec<Batch> {
        let mut batches: Vec<Batch> = Vec::new();
        let mut bytes = 0;
        for range in ranges {
            let next = batches.last().map_or(range.first, |last| last.end().max(range.first));
            if next >= range.end {
                continue;
            }
            for batch in self.cache.from(queue, next).take_while(|batch| batch.base() < range.end) {
                if bytes > 0 && bytes + batch.bytes().len() > bytes_max {
                    return batches;
                }
                bytes += batch.bytes().len();
                batches.push(batch.clone());
            }
        }
        batches
    }

    /// Up to `end`, behind which everything is in memory.
    fn read_disk(
        log: &Log,
        queue: QueueId,
        ranges: &[OffsetRange],
        end: Offset,
        bytes_max: usize,
    ) -> Read {
        let mut wanted = Vec::new();
        let mut bytes = 0;
        let mut next = Offset(0);
        'ranges: for range in ranges {
            next = next.max(range.first);
            while next < range.end.min(end) {
                let Some(located) = log.find(next) else { break 'ranges };
                let length = located.place.length as usize;
                if bytes > 0 && bytes + length > bytes_max {
                    break 'ranges;
                }
                bytes += length;
                next = located.end();
                wanted.push((log.segment(located.place.segment), located));
            }
        }
        if wanted.is_empty() { Read::Gone } else { Read::OnDisk(ReadRequest { queue, wanted }) }
    }
}
