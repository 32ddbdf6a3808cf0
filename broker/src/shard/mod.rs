//! Shards: single-owner tasks over which the queues are partitioned. A shard's queues share its turn: it takes
//! what waits, lets each queue act, and then hands everything on in one go — to the journal, the peers, the clients.

mod apply;
mod attach;
mod attention;
pub mod browse;
mod clients;
mod delete;
pub(crate) mod deliver;
mod effects;
mod follow;
mod gate;
pub mod input;
mod lease;
mod news;
mod queue;
mod sample;
mod snapshot;
mod status;
mod stream;
mod tools;
mod trace;
mod upkeep;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_journal::{Logs, RecoveredLog};
use bellwether_protocol::ids::{BrokerId, QueueId};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use attention::Attention;
use input::ShardInput;
use queue::LocalQueue;
pub(crate) use tools::{Environment, Internal, Tools};

/// Inputs that wait for a shard. Each is a batch; a full mailbox makes its senders wait, which withholds publish credit.
const MAILBOX_INPUTS_MAX: usize = 1024;
/// Answers of reads and compare-and-sets that wait for a shard; those who send them wait when it is full.
const INTERNAL_MAX: usize = 1024;
/// Inputs taken in one turn, so that what they append shares one write and one stream frame.
const TURN_INPUTS_MAX: usize = 256;
/// How often the time is told to queues that wait for it.
const TICK: Duration = Duration::from_millis(10);
/// A gap between two ticks that says that the process did not run: longer than any turn takes.
const PAUSE: Duration = Duration::from_millis(250);

/// A shard's mailbox.
#[derive(Clone, Debug)]
pub struct ShardHandle {
    sender: mpsc::Sender<ShardInput>,
}

impl ShardHandle {
    /// Waits while the mailbox is full. After the shard has stopped it does nothing: the broker is stopping.
    pub async fn send(&self, input: ShardInput) {
        if self.sender.send(input).await.is_err() {
            tracing::debug!("a shard has stopped: its input is dropped");
        }
    }

    /// Gives the input back when the mailbox is full.
    ///
    /// # Errors
    /// The input, when there is no room now.
    pub fn try_send(&self, input: ShardInput) -> Result<(), ShardInput> {
        self.sender.try_send(input).map_err(|error| match error {
            mpsc::error::TrySendError::Full(input) | mpsc::error::TrySendError::Closed(input) => {
                input
            }
        })
    }
}

/// All shards of a broker.
#[derive(Clone, Debug)]
pub struct Shards {
    handles: Arc<[ShardHandle]>,
}

/// The receiving ends, until the shards are started.
pub struct ShardMailboxes(Vec<mpsc::Receiver<ShardInput>>);

impl Shards {
    /// Mailboxes for `count` shards.
    #[must_use]
    pub fn new(count: usize) -> (Shards, ShardMailboxes) {
        let (handles, mailboxes): (Vec<_>, Vec<_>) = (0..count.max(1))
            .map(|_| {
                let (sender, receiver) = mpsc::channel(MAILBOX_INPUTS_MAX);
                (ShardHandle { sender }, receiver)
            })
            .unzip();
        (Shards { handles: handles.into() }, ShardMailboxes(mailboxes))
    }

    /// The shard that owns this queue.
    #[must_use]
    pub fn of(&self, queue: QueueId) -> &ShardHandle {
        &self.handles[self.index_of(queue)]
    }

    /// The place of the shard that owns this queue.
    #[must_use]
    pub fn index_of(&self, queue: QueueId) -> usize {
        // Queue ids are random: their low bits spread them evenly.
        (queue.0.as_u128() % self.handles.len() as u128) as usize
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &ShardHandle> {
        self.handles.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.handles.len()
    }
}

impl ShardMailboxes {
    /// The receiving ends, for whoever plays the shards.
    #[cfg(test)]
    pub(crate) fn for_tests(self) -> Vec<mpsc::Receiver<ShardInput>> {
        self.0
    }

    /// Starts every shard with its logs.
    #[expect(
        clippy::too_many_arguments,
        reason = "the front door: each is another part of the broker"
    )]
    pub(crate) fn start(
        self,
        logs: Vec<Logs>,
        recovered: Vec<RecoveredLog>,
        wakes: &[Arc<Notify>],
        shards: &Shards,
        environment: &Arc<Environment>,
        tracker: &tokio_util::task::TaskTracker,
        shutdown: &CancellationToken,
    ) {
        let mut by_shard: Vec<Vec<RecoveredLog>> = (0..self.0.len()).map(|_| Vec::new()).collect();
        for log in recovered {
            by_shard[shards.index_of(log.queue)].push(log);
        }
        for (index, ((mailbox, logs), recovered)) in
            self.0.into_iter().zip(logs).zip(by_shard).enumerate()
        {
            let (internal_sender, internal) = mpsc::channel(INTERNAL_MAX);
            let shard = Shard {
                mailbox,
                internal,
                wake: wakes[index].clone(),
                queues: HashMap::new(),
                attention: Attention::default(),
                shards: shards.count(),
                store_failed: None,
                unready: Vec::new(),
                disk_stalls: false,
                ticks: 0,
                tools: Tools::new(logs, environment.clone(), internal_sender),
                shutdown: shutdown.clone(),
            };
            tracker.spawn(shard.run(recovered));
        }
    }
}

/// One shard.
struct Shard {
    mailbox: mpsc::Receiver<ShardInput>,
    internal: mpsc::Receiver<Internal>,
    /// The journal thread has done something.
    wake: Arc<Notify>,
    queues: HashMap<QueueId, Box<LocalQueue>>,
    attention: Attention,
    /// How many there are of these, each with as many queues.
    shards: usize,
    /// Why the journal is of no use any more, if so.
    store_failed: Option<String>,
    /// Brokers that would decline to lead.
    unready: Vec<BrokerId>,
    /// No sync returns, or syncs have not been fine for long enough since: copies that begin meanwhile have to know.
    disk_stalls: bool,
    ticks: u64,
    tools: Tools,
    shutdown: CancellationToken,
}

impl Shard {
    async fn run(mut self, recovered: Vec<RecoveredLog>) {
        for log in recovered {
            self.recover(log);
        }
        let mut ticker = tokio::time::interval(TICK);
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticked = Instant::now();
        let mut inputs = Vec::with_capacity(TURN_INPUTS_MAX);
        loop {
            let mut tick = false;
            let mut answer = None;
            tokio::select! {
                biased;
                () = self.wake.notified() => {}
                Some(internal) = self.internal.recv() => answer = Some(internal),
                _ = ticker.tick() => tick = true,
                taken = self.mailbox.recv_many(&mut inputs, TURN_INPUTS_MAX) => {
                    if taken == 0 {
                        return;
                    }
                }
                () = self.shutdown.cancelled() => return,
            }
            let now = Instant::now();
            self.tools.begin(now);
            if tick {
                let paused = now.saturating_duration_since(ticked) > PAUSE;
                ticked = now;
                self.tick(paused);
            }
            self.journal_done();
            if let Some(internal) = answer {
                self.answered(internal);
            }
            while let Ok(internal) = self.internal.try_recv() {
                self.answered(internal);
            }
            for input in inputs.drain(..) {
                self.take(input);
            }
            self.end_turn();
        }
    }

    /// Lets every queue that was touched act on what has changed, and hands everything on.
    fn end_turn(&mut self) {
        let touched = self.tools.take_touched();
        for id in &touched {
            if let Some(queue) = self.queues.get_mut(id) {
                queue.finish_turn(&mut self.tools);
            }
        }
        for id in self.tools.take_parted() {
            self.part(id);
        }
        for id in touched {
            match self.queues.get(&id) {
                Some(queue) => self.attention.consider(queue),
                None => self.attention.forget(id),
            }
        }
        self.tools.hand_on();
    }
}
