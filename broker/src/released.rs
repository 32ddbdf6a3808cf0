//! What released versions wrote to disks is kept under broker/fixtures, one folder a format, and opened here: a version that cannot read
//! them would strand every data folder there is. A new format gets a folder of its own, and the old ones stay.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bellwether_journal::disk::RealDisk;
use bellwether_journal::{Condition, Journal, JournalConfig, JournalThread, Logs, Read};
use bellwether_log::{Batch, Enqueue, ProducerMark, Record, SettleKind};
use bellwether_protocol::ids::{
    BrokerId, BrokerLife, ClusterId, Epoch, Incarnation, Offset, OffsetRange, QueueId, Seq,
};
use bellwether_protocol::message::MessageBlock;
use bellwether_protocol::names::{ExchangeName, ProducerName, RoutingKey};
use bellwether_queue::Queue;
use bytes::Bytes;
use tokio::sync::Notify;

const BROKER: BrokerId = BrokerId(1);
/// Nothing here takes that long; a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn queue(number: u128) -> QueueId {
    QueueId(uuid::Uuid::from_u128(0xfeed_0000 + number))
}

fn range(first: u64, end: u64) -> OffsetRange {
    OffsetRange::new(Offset(first), Offset(end))
}

fn fixture(format: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/data-format-{format}"))
}

/// Small segments, so that a fixture is small, and holds more than one.
fn config(dir: &Path) -> JournalConfig {
    let mut config = JournalConfig::new(dir);
    config.segment_bytes = 64 * 1024;
    config.waiting_bytes_max = 32 * 1024;
    config.disk_low_bytes = 0;
    config
}

/// A data folder in use.
struct Opened {
    logs: Logs,
    machines: Vec<(QueueId, Queue)>,
    woken: Arc<Notify>,
    thread: JournalThread,
}

impl Opened {
    /// Opens the folder, and applies the logs of its queues.
    fn open(dir: &Path) -> Opened {
        let disk = Arc::new(RealDisk::new(dir).unwrap());
        let (journal, recovered) = Journal::open_on(disk, config(dir), BROKER).unwrap();
        journal.folder().claim(ClusterId(uuid::Uuid::from_u128(0xc1))).unwrap();
        let woken = Arc::new(Notify::new());
        let wake = Arc::clone(&woken);
        let (mut logs, thread) = journal.start(1, |_| 0, move |_| wake.notify_one()).unwrap();
        let logs = logs.remove(0);
        let machines = recovered.into_iter().map(|log| {
            assert_eq!(log.condition, Condition::Ok);
            let checkpoint = log.checkpoint.as_ref();
            let mut machine =
                checkpoint.map_or_else(Queue::new, |kept| Queue::restore(&kept.state).unwrap());
            while machine.applied() < log.end {
                let batches = match logs.read(log.queue, machine.applied(), 4096) {
                    Read::Ready(batches) => batches,
                    Read::OnDisk(request) => request.run().unwrap(),
                    Read::Gone => panic!("what lies behind the checkpoint is there"),
                };
                let from = machine.applied();
                for batch in batches.iter().filter(|batch| batch.base() >= from) {
                    let record = batch.record().unwrap();
                    machine.apply(batch.base(), &record, &mut Vec::new()).unwrap();
                }
            }
            (log.queue, machine)
        });
        let machines = machines.collect();
        Opened { logs, machines, woken, thread }
    }

    fn machine(&self, number: u128) -> &Queue {
        let found = self.machines.iter().find(|(id, _)| *id == queue(number));
        &found.expect("the queue is there").1
    }

    fn append(&mut self, number: u128, record: &Record) {
        let id = queue(number);
        let base = self.logs.end(id);
        self.logs.append(Batch::encode(id, Epoch(1), base, record));
    }

    async fn durable(&mut self, number: u128) {
        let id = queue(number);
        self.logs.flush();
        let settled = async {
            while self.logs.durable(id) < self.logs.end(id) {
                self.woken.notified().await;
                self.logs.completed();
            }
        };
        tokio::time::timeout(PATIENCE, settled).await.expect("it becomes durable");
    }
}

fn begins() -> Record {
    let leader = BrokerLife { broker: BROKER, incarnation: Incarnation(7) };
    Record::EpochStart { leader, time_ms: 1_000 }
}

fn messages(first: u64, count: u64) -> Record {
    let bodies = (0..count).map(|number| {
        let mut body = format!("message {} ", first + number);
        body.push_str(&"x".repeat(4_000));
        (None, Bytes::from(body))
    });
    Record::Enqueue(Enqueue {
        producer: Some(ProducerMark { name: ProducerName::new("p").unwrap(), first: Seq(first) }),
        time_ms: 2_000,
        exchange: ExchangeName::new("").unwrap(),
        routing_key: RoutingKey::new("orders").unwrap(),
        messages: MessageBlock::from_messages(bodies),
    })
}

fn settle(ranges: Vec<OffsetRange>) -> Record {
    Record::Settle { kind: SettleKind::Ack, ranges }
}

/// Writes what a fixture holds, as this version does.
async fn write(dir: &Path) {
    let mut opened = Opened::open(dir);
    // One with a checkpoint and records behind it, over more than one segment; its first part is settled.
    opened.logs.create(queue(1));
    let mut machine = Queue::new();
    let (mut base, mut checkpointed) = (Offset(0), false);
    for record in [
        begins(),
        messages(1, 6),
        settle(vec![range(1, 4), range(5, 6)]),
        messages(7, 6),
        messages(13, 6),
        Record::Return { ranges: vec![range(8, 10)] },
        settle(vec![range(12, 13)]),
    ] {
        opened.append(1, &record);
        opened.durable(1).await;
        if base < Offset(14) {
            machine.apply(base, &record, &mut Vec::new()).unwrap();
        } else if !checkpointed {
            checkpointed = true;
            let (at, state) = (machine.applied(), machine.checkpoint().into());
            opened.logs.checkpoint(queue(1), at, at, state);
        }
        base = opened.logs.end(queue(1));
    }
    opened.durable(1).await;
    // One without a checkpoint, nothing settled; and one that was deleted.
    opened.logs.create(queue(2));
    opened.append(2, &begins());
    opened.append(2, &messages(1, 3));
    opened.durable(2).await;
    opened.logs.create(queue(3));
    opened.append(3, &messages(1, 1));
    opened.durable(3).await;
    opened.logs.remove(queue(3));
    opened.logs.flush();
    opened.thread.stop();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        // Made anew at every start, and nothing but zeros.
        if name.starts_with("spare") || name.starts_with("lock") {
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// A copy: opening a folder writes to it.
fn copied(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

/// Its files and their sizes.
fn files(dir: &Path) -> BTreeMap<String, u64> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let file = |entry: std::fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len())
    };
    entries.map(file).collect()
}

async fn opens_with_every_message_that_was_not_settled(dir: &Path) {
    // Twice: what the first opening wrote is of this version.
    for _ in 0..2 {
        let mut opened = Opened::open(dir);
        let ids: Vec<QueueId> = opened.machines.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [queue(1), queue(2)], "the deleted queue does not come back");
        let unsettled: Vec<OffsetRange> = opened.machine(1).unsettled().collect();
        assert_eq!(unsettled, [range(4, 5), range(6, 7), range(8, 12), range(13, 20)]);
        assert_eq!(opened.machine(1).counts().enqueued, 18);
        assert_eq!(opened.machine(1).counts().settled, 5);
        assert_eq!(opened.machine(1).producers(), 1);
        assert_eq!(opened.machine(2).unsettled().collect::<Vec<_>>(), [range(1, 4)]);
        // And it goes on where it was.
        opened.append(2, &settle(vec![range(0, 1)]));
        opened.durable(2).await;
        opened.thread.stop();
    }
}

#[tokio::test]
async fn a_data_folder_of_format_1_is_opened_with_every_message_that_was_not_settled() {
    let dir = copied(&fixture(1));
    opens_with_every_message_that_was_not_settled(dir.path()).await;
}

/// When this fails for a change of the format, the format's number has to go up. The fixture of the new one is made by this test too:
/// with `KEEP_FIXTURE=FOLDER` it leaves there what it wrote.
#[tokio::test]
async fn what_this_version_writes_is_of_the_newest_format_that_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path()).await;
    assert_eq!(files(dir.path()), files(&fixture(1)));
    if let Some(keep) = std::env::var_os("KEEP_FIXTURE") {
        std::fs::rename(copied(dir.path()).keep(), keep).unwrap();
    }
    opens_with_every_message_that_was_not_settled(dir.path()).await;
}
