//! How fast the journal is here: `cargo run --release -p bellwether-journal --example throughput -- FOLDER [MESSAGES [BATCH]]`.
//! Appends 1 KiB messages in batches (of 100), then one by one, then restarts with all of them waiting.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use bellwether_journal::{Journal, JournalConfig, JournalThread, Logs, Progress};
use bellwether_log::{Batch, Enqueue, Record};
use bellwether_protocol::ids::{BrokerId, Epoch, Offset, OffsetRange, QueueId};
use bellwether_protocol::message::MessageBlock;
use bellwether_protocol::names::{ExchangeName, RoutingKey};
use bytes::Bytes;
use uuid::Uuid;

const QUEUE: QueueId = QueueId(Uuid::from_u128(1));

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: throughput FOLDER [MESSAGES [BATCH]]")?;
    let messages: u64 = arguments.next().map_or(Ok(1_000_000), |count| count.parse())?;

    let batch: u64 = arguments.next().map_or(Ok(100), |count| count.parse())?;

    let mut running = Running::open(&folder)?;
    if !running.logs.contains(QUEUE) {
        running.logs.create(QUEUE);
    }
    running.append(messages, batch, false)?;
    running.append(2_000, 1, true)?;
    running.thread.stop();

    let began = Instant::now();
    let running = Running::open(&folder)?;
    let end = running.logs.end(QUEUE);
    println!("restart with {end} offsets: {:?}; resident {} MiB", began.elapsed(), resident_mib());
    let began = Instant::now();
    let mut next = Offset(0);
    while next < end {
        let batches = match running.logs.read_live(QUEUE, &[OffsetRange::new(next, end)], 1 << 20) {
            bellwether_journal::Read::Ready(batches) => batches,
            bellwether_journal::Read::OnDisk(request) => request.run()?,
            bellwether_journal::Read::Gone => return Err("messages are gone".into()),
        };
        next = batches.last().ok_or("nothing read")?.end();
    }
    println!("read back in {:?}; resident {} MiB", began.elapsed(), resident_mib());
    running.thread.stop();
    Ok(())
}

struct Running {
    logs: Logs,
    woken: Receiver<()>,
    thread: JournalThread,
}

impl Running {
    fn open(folder: &str) -> Result<Running, Box<dyn std::error::Error>> {
        let (journal, _) = Journal::open(JournalConfig::new(folder), BrokerId(1))?;
        let (wake, woken) = sync_channel(1);
        let notify = move |_| match wake.try_send(()) {
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        };
        let (mut logs, thread) = journal.start(1, |_| 0, notify)?;
        let logs = logs.pop().ok_or("one shard was asked for")?;
        Ok(Running { logs, woken, thread })
    }

    /// Appends so many messages, so many a batch; `patient` waits for each batch.
    fn append(
        &mut self,
        messages: u64,
        batch: u64,
        patient: bool,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let body = Bytes::from(vec![7; 1024]);
        let block = MessageBlock::from_messages((0..batch).map(|_| (None, body.clone())));
        let record = Record::Enqueue(Enqueue {
            producer: None,
            time_ms: 1,
            exchange: ExchangeName::new("")?,
            routing_key: RoutingKey::new("orders")?,
            messages: block,
        });
        let began = Instant::now();
        for _ in 0..messages / batch.max(1) {
            self.logs.append(Batch::encode(QUEUE, Epoch(1), self.logs.end(QUEUE), &record));
            self.logs.flush();
            while !self.logs.has_room()
                || (patient && self.logs.durable(QUEUE) < self.logs.end(QUEUE))
            {
                self.hear()?;
            }
        }
        while self.logs.durable(QUEUE) < self.logs.end(QUEUE) {
            self.hear()?;
        }
        let took = began.elapsed();
        let rate = messages as f64 / took.as_secs_f64();
        println!(
            "{messages} messages of 1 KiB, {batch} a batch: {took:?}, {rate:.0} a second; resident {} MiB",
            resident_mib()
        );
        Ok(())
    }

    fn hear(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        match self.woken.recv_timeout(Duration::from_secs(1)) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err("the journal thread is gone".into()),
        }
        for progress in self.logs.completed() {
            match progress {
                Progress::Failed(error) => return Err(error.into()),
                Progress::Evacuate(evacuation) => self.logs.evacuate(evacuation, &[]),
                Progress::Durable { .. }
                | Progress::Installed { .. }
                | Progress::Corrupt { .. }
                | Progress::Disk(_) => {}
            }
        }
        Ok(())
    }
}

/// Resident memory of this process.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    let kib = line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
