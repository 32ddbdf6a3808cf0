//! A journal with one shard, and the small words the tests are told in.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use bellwether_log::{Batch, Enqueue, Record, SettleKind};
use bellwether_protocol::ids::{BrokerId, Epoch, Offset, OffsetRange, QueueId, StoreId};
use bellwether_protocol::message::MessageBlock;
use bellwether_protocol::names::{ExchangeName, RoutingKey};
use bytes::Bytes;
use uuid::Uuid;

use crate::disk::crash::CrashDisk;
use crate::{
    Evacuation, Journal, JournalConfig, JournalThread, Logs, OpenError, Progress, Read,
    RecoveredLog,
};

pub const BROKER: BrokerId = BrokerId(1);

/// How long a test waits for a fact before it gives up.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn queue(number: u8) -> QueueId {
    QueueId(Uuid::from_u128(0x1000 + u128::from(number)))
}

/// As whose copy a log that was fetched anew takes part.
pub fn store() -> StoreId {
    StoreId(Uuid::from_u128(0x2000))
}

pub fn config() -> JournalConfig {
    JournalConfig {
        segment_bytes: 64 * 1024,
        dead_bytes_max: 1024 * 1024,
        cache_bytes: 16 * 1024,
        waiting_bytes_max: 32 * 1024,
        disk_low_bytes: 0,
        ..JournalConfig::new("/store")
    }
}

pub fn enqueue(queue: QueueId, epoch: u64, base: u64, bodies: &[Bytes]) -> Batch {
    let messages = bodies.iter().map(|body| (None, body.clone()));
    let record = Record::Enqueue(Enqueue {
        producer: None,
        time_ms: 1,
        exchange: ExchangeName::new("").unwrap(),
        routing_key: RoutingKey::new("orders").unwrap(),
        messages: MessageBlock::from_messages(messages),
    });
    Batch::encode(queue, Epoch(epoch), Offset(base), &record)
}

/// A batch of one message.
pub fn message(queue: QueueId, epoch: u64, base: u64, body: &str) -> Batch {
    enqueue(queue, epoch, base, &[Bytes::copy_from_slice(body.as_bytes())])
}

pub fn settle(queue: QueueId, epoch: u64, base: u64, ranges: &[OffsetRange]) -> Batch {
    let record = Record::Settle { kind: SettleKind::Ack, ranges: ranges.to_vec() };
    Batch::encode(queue, Epoch(epoch), Offset(base), &record)
}

pub fn range(first: u64, end: u64) -> OffsetRange {
    OffsetRange::new(Offset(first), Offset(end))
}

/// A running journal.
pub struct Story {
    pub logs: Logs,
    pub recovered: Vec<RecoveredLog>,
    pub disk: CrashDisk,
    woken: Receiver<()>,
    thread: Option<JournalThread>,
    /// What was heard and not asked for yet.
    heard: Vec<Progress>,
}

impl Story {
    pub fn begin() -> Story {
        Story::on(CrashDisk::default(), config())
    }

    pub fn on(disk: CrashDisk, config: JournalConfig) -> Story {
        Story::try_on(disk, config).expect("the journal opens")
    }

    pub fn try_on(disk: CrashDisk, config: JournalConfig) -> Result<Story, OpenError> {
        let (journal, recovered) = Journal::open_on(Arc::new(disk.clone()), config, BROKER)?;
        let (wake, woken) = sync_channel(1);
        let notify = move |_| match wake.try_send(()) {
            // A full channel says already what there is to say; a closed one: the story is over.
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        };
        let started = journal.start(1, |_| 0, notify);
        let (mut logs, thread) = started
            .map_err(|error| OpenError::io(std::path::Path::new("/store"), "start", error))?;
        let logs = logs.pop().unwrap();
        let (thread, heard) = (Some(thread), Vec::new());
        Ok(Story { logs, recovered, disk, woken, thread, heard })
    }

    /// Ends the journal as a shutdown does, and begins again.
    pub fn again(mut self) -> Story {
        self.stop();
        Story::on(self.disk.restarted(), config())
    }

    pub fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.stop();
        }
    }

    /// Takes what has happened; waits for something if nothing has.
    pub fn hear(&mut self) -> Vec<Progress> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.logs.flush();
            let mut heard = std::mem::take(&mut self.heard);
            heard.extend(self.logs.completed());
            if !heard.is_empty() {
                return heard;
            }
            assert!(Instant::now() < deadline, "nothing happened");
            self.wait();
        }
    }

    fn wait(&self) {
        match self.woken.recv_timeout(Duration::from_millis(100)) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => panic!("the journal thread is gone"),
        }
    }

    /// Waits for a fact, keeping what else is heard for later.
    pub fn until(&mut self, what: &str, mut is: impl FnMut(&Logs, &Progress) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut others = Vec::new();
        loop {
            let heard = self.hear();
            let mut found = false;
            for progress in heard {
                if !found && is(&self.logs, &progress) {
                    found = true;
                } else if !matches!(progress, Progress::Durable { .. }) {
                    others.push(progress);
                }
            }
            if found {
                others.append(&mut self.heard);
                self.heard = others;
                return;
            }
            assert!(Instant::now() < deadline, "{what} never came");
        }
    }

    /// Waits until the disk shows a fact.
    pub fn eventually(&mut self, what: &str, is: impl Fn(&CrashDisk) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is(&self.disk) {
            assert!(Instant::now() < deadline, "{what}: never");
            self.wait();
            self.heard.extend(self.logs.completed());
            self.logs.flush();
        }
    }

    /// Flushes and waits until everything appended to a queue is durable.
    pub fn settle_down(&mut self, queue: QueueId) {
        self.logs.flush();
        let end = self.logs.end(queue);
        if self.logs.durable(queue) < end {
            self.until("durable", |logs, progress| {
                assert!(!matches!(progress, Progress::Failed(_)), "{progress:?}");
                logs.durable(queue) >= end
            });
        }
    }

    /// Waits for something to happen, and keeps it.
    pub fn hear_more(&mut self) {
        let kept = std::mem::take(&mut self.heard);
        let heard = self.hear();
        self.heard = kept;
        self.heard.extend(heard);
    }

    /// A question of the cleaner's that has been heard.
    pub fn evacuation(&mut self) -> Option<Evacuation> {
        self.heard.extend(self.logs.completed());
        let asked = |one: &Progress| matches!(one, Progress::Evacuate(_));
        let at = self.heard.iter().position(asked)?;
        match self.heard.remove(at) {
            Progress::Evacuate(evacuation) => Some(evacuation),
            other => panic!("{other:?} is no question"),
        }
    }

    /// Appends a message to a queue's end and answers its offset.
    pub fn publish(&mut self, queue: QueueId, epoch: u64, body: &str) -> u64 {
        let base = self.logs.end(queue).0;
        self.logs.append(message(queue, epoch, base, body));
        base
    }

    /// All batches from `from` on.
    pub fn read(&self, queue: QueueId, from: u64) -> Vec<Batch> {
        let mut batches: Vec<Batch> = Vec::new();
        let mut next = Offset(from);
        while next < self.logs.end(queue) {
            let read = finish(self.logs.read(queue, next, 4096));
            next = read.last().expect("a read brings one batch at least").end();
            batches.extend(read);
        }
        batches
    }

    /// The bodies of the messages of a range, wherever they lie.
    pub fn bodies(&self, queue: QueueId, range: OffsetRange) -> Vec<String> {
        let mut bodies = Vec::new();
        let mut next = range;
        while next.count() > 0 {
            let read = finish(self.logs.read_live(queue, &[next], 4096));
            for batch in &read {
                bodies.extend(bodies_in(batch, next));
            }
            next.first = read.last().expect("a read brings one batch at least").end();
        }
        bodies
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Runs a read to its end.
pub fn finish(read: Read) -> Vec<Batch> {
    match read {
        Read::Ready(batches) => batches,
        Read::OnDisk(request) => request.run().expect("what is in the index is on the disk"),
        Read::Gone => panic!("the offset is gone"),
    }
}

/// The bodies of a batch's messages whose offsets lie in a range.
pub fn bodies_in(batch: &Batch, range: OffsetRange) -> Vec<String> {
    let Ok(Record::Enqueue(enqueue)) = batch.record() else { return Vec::new() };
    let offsets = batch.base().0..;
    let messages = offsets.zip(enqueue.messages.iter());
    messages
        .filter(|(offset, _)| (range.first.0..range.end.0).contains(offset))
        .map(|(_, message)| String::from_utf8(message.body.to_vec()).unwrap())
        .collect()
}
