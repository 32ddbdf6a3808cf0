//! The same on the real file system.

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bellwether_protocol::ids::{Offset, QueueId};
use bytes::Bytes;

use super::story::{BROKER, bodies_in, enqueue, finish, message, queue, range};
use crate::{Journal, JournalConfig, JournalThread, Logs, Progress};

struct Running {
    shards: Vec<Logs>,
    woken: std::sync::mpsc::Receiver<usize>,
    thread: JournalThread,
}

fn shard_of(queue: QueueId) -> usize {
    (queue.0.as_u128() % 2) as usize
}

fn open(dir: &std::path::Path) -> Running {
    let (journal, _) = Journal::open(JournalConfig::new(dir), BROKER).unwrap();
    let (wake, woken) = sync_channel(1024);
    let notify = move |shard| wake.send(shard).expect("the test outlives the thread");
    let (shards, thread) = journal.start(2, shard_of, notify).unwrap();
    Running { shards, woken, thread }
}

impl Running {
    fn logs(&mut self, queue: QueueId) -> &mut Logs {
        &mut self.shards[shard_of(queue)]
    }

    fn settle_down(&mut self, queues: &[QueueId]) {
        for shard in &mut self.shards {
            shard.flush();
        }
        while queues.iter().any(|queue| {
            let logs = &self.shards[shard_of(*queue)];
            logs.durable(*queue) < logs.end(*queue)
        }) {
            let shard =
                self.woken.recv_timeout(Duration::from_secs(20)).expect("it becomes durable");
            for progress in self.shards[shard].completed() {
                assert!(!matches!(progress, Progress::Failed(_)), "{progress:?}");
            }
        }
    }
}

#[test]
fn queues_of_two_shards_share_one_journal() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = open(dir.path());
    let queues = [queue(1), queue(2), queue(3)];
    for queue in queues {
        running.logs(queue).create(queue);
    }
    for number in 0..3000 {
        for queue in queues {
            let batch = message(queue, 1, number, &format!("{number}"));
            running.logs(queue).append(batch);
        }
    }
    running.settle_down(&queues);
    running.thread.stop();

    let mut running = open(dir.path());
    for queue in queues {
        let logs = running.logs(queue);
        assert_eq!(logs.end(queue), Offset(3000));
        let batches = finish(logs.read(queue, Offset(2999), 1));
        assert_eq!(bodies_in(&batches[0], range(2999, 3000)), ["2999"]);
    }
    running.thread.stop();
}

#[test]
fn the_largest_message_there_can_be_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = open(dir.path());
    let orders = queue(1);
    running.logs(orders).create(orders);
    let body = Bytes::from(vec![b'x'; bellwether_protocol::message::MESSAGE_BYTES_MAX - 100]);
    for number in 0..6 {
        let batch = enqueue(orders, 1, number, std::slice::from_ref(&body));
        running.logs(orders).append(batch);
        running.settle_down(&[orders]);
    }
    running.thread.stop();
    let mut running = open(dir.path());
    let batches = finish(running.logs(orders).read(orders, Offset(0), 1));
    assert_eq!(bodies_in(&batches[0], range(0, 1))[0].len(), body.len());
    assert_eq!(running.logs(orders).end(orders), Offset(6));
    running.thread.stop();
}
