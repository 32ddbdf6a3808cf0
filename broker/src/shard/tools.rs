//! What the queues of one shard share: the logs, the way to peers, clients and the coordinator, and
//! what a turn has gathered for them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bellwether_coordinator::coordinator::Version;
use bellwether_coordinator::records::QueueState;
use bellwether_journal::{Logs, ReadError, ReadRequest};
use bellwether_log::Batch;
use bellwether_protocol::error::{BrokerAddress, ErrorBody};
use bellwether_protocol::ids::{BrokerId, BrokerLife, Epoch, Member, Offset, QueueId};
use bellwether_protocol::peer::{AppendRun, PeerFrame};
use bellwether_replication::{CasOutcome, Timing};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::input::{ConsumerKey, Leases, LiveBrokers, Promises, PublishOrigin};
use crate::memory::{Held, Pool};
use crate::metrics::Metrics;
use crate::seams::{PeerLinks, SendOutcome, StateKeeper};
use crate::traces::Traces;

/// What every shard is given.
pub(crate) struct Environment {
    pub member: Member,
    pub timing: Timing,
    pub started: Instant,
    pub peers: Arc<dyn PeerLinks>,
    pub keeper: Arc<dyn StateKeeper>,
    pub leases: Arc<Leases>,
    pub metrics: Arc<Metrics>,
    /// Spans of traced messages, if any are wanted.
    pub traces: Option<Traces>,
    pub health: Arc<crate::admin::Health>,
    pub runtime: tokio::runtime::Handle,
    /// Room for what is read from the disk, in pieces of [`READ_PIECE_BYTES`].
    pub reads: Arc<Semaphore>,
    pub reads_max: u64,
}

/// Room for reads is counted in pieces of so many bytes.
const READ_PIECE_BYTES: u64 = 4 * 1024;
/// Room for reads where no memory limit is set, in bytes.
const READ_BYTES_UNLIMITED: u64 = 1024 * 1024 * 1024;

impl Environment {
    /// Waits until so many bytes more may be read from the disk: with ten thousand consumers that are behind, what is read for
    /// them would otherwise fill the memory.
    pub(super) async fn room_to_read(&self, bytes: u64) -> ReadInMemory {
        let pieces = bytes.div_ceil(READ_PIECE_BYTES).min(self.reads_max);
        let pieces = u32::try_from(pieces).unwrap_or(u32::MAX);
        // Never closed; without room one would only read sooner.
        let room = self.reads.clone().acquire_many_owned(pieces).await.ok();
        ReadInMemory { _room: room, _held: Held::new(&self.metrics, Pool::Reads, bytes) }
    }

    /// Room for reads, in pieces, and how many there are.
    pub fn reads(metrics: &Metrics) -> (Arc<Semaphore>, u64) {
        let bytes = metrics.memory.limit_of(Pool::Reads).unwrap_or(READ_BYTES_UNLIMITED);
        let pieces = (bytes / READ_PIECE_BYTES).clamp(1, u64::from(u32::MAX));
        (Arc::new(Semaphore::new(usize::try_from(pieces).unwrap_or(usize::MAX))), pieces)
    }
}

/// An answer to something a shard asked for.
pub(crate) enum Internal {
    /// A read from the disk is done.
    Read {
        queue: QueueId,
        purpose: ReadPurpose,
        result: Result<Vec<Batch>, ReadError>,
        /// Until it is handed over.
        held: ReadInMemory,
    },
    /// A compare-and-set is answered.
    Cas { queue: QueueId, version: Version, state: QueueState, outcome: CasOutcome },
}

/// What was read and is not handed over yet: its room, and its bytes in the pool.
pub(crate) struct ReadInMemory {
    _room: Option<OwnedSemaphorePermit>,
    _held: Held,
}

/// Why something was read from the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadPurpose {
    /// To apply committed records.
    Apply { from: Offset },
    /// To stream to a follower.
    Stream { to: BrokerLife, from: Offset },
    /// To deliver to a consumer.
    Deliver { consumer: ConsumerKey },
    /// To be shown. Who asked is answered elsewhere: the shard hears only when it fails.
    Browse,
}

/// A publish outcome on its way.
pub(crate) type Outcome = (u64, Result<(), ErrorBody>);

/// What the queues of one shard share.
pub(crate) struct Tools {
    pub now: Instant,
    /// Milliseconds since 1970, as of this turn.
    pub time_ms: u64,
    pub logs: Logs,
    /// The environment's to begin with.
    pub timing: Timing,
    pub environment: Arc<Environment>,
    pub life: Option<BrokerLife>,
    pub connected: bool,
    pub brokers: Arc<LiveBrokers>,
    /// Lease clocks of the connections that peers dialed.
    pub promises: HashMap<BrokerLife, Arc<Promises>>,
    internal: mpsc::Sender<Internal>,
    touched: HashSet<QueueId>,
    /// Queues whose copy here is given up.
    parted: Vec<QueueId>,
    /// Number of the last fetch of a snapshot, of whichever queue: a copy that begins anew must not take what an earlier one asked for.
    fetches: u64,
    outcomes: HashMap<usize, (Arc<dyn PublishOrigin>, Vec<Outcome>)>,
    durable: HashMap<BrokerLife, Vec<(QueueId, Epoch, Offset)>>,
    committed: HashMap<BrokerLife, Vec<(QueueId, Epoch, Offset)>>,
    rereads: Vec<QueueId>,
}

/// Longest run of a log in one stream frame, in bytes.
const STREAM_BYTES_MAX: usize = bellwether_protocol::peer::CHUNK_BYTES_MAX;

impl Tools {
    pub fn new(
        logs: Logs,
        environment: Arc<Environment>,
        internal: mpsc::Sender<Internal>,
    ) -> Tools {
        Tools {
            now: Instant::now(),
            time_ms: 0,
            logs,
            timing: environment.timing,
            environment,
            life: None,
            connected: false,
            brokers: Arc::new(LiveBrokers::default()),
            promises: HashMap::new(),
            internal,
            touched: HashSet::new(),
            parted: Vec::new(),
            fetches: 0,
            outcomes: HashMap::new(),
            durable: HashMap::new(),
            committed: HashMap::new(),
            rereads: Vec::new(),
        }
    }

    pub fn begin(&mut self, now: Instant) {
        self.now = now;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        self.time_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    }

    /// Where answers to what the shard asked for go.
    pub(super) fn internal(&self) -> mpsc::Sender<Internal> {
        self.internal.clone()
    }

    /// The queue acts at the end of this turn.
    pub fn touch(&mut self, queue: QueueId) {
        self.touched.insert(queue);
    }

    pub fn next_fetch(&mut self) -> u64 {
        self.fetches += 1;
        self.fetches
    }

    /// The copy of this queue is given up: it goes at the end of the turn.
    pub fn part(&mut self, queue: QueueId) {
        self.parted.push(queue);
    }

    pub fn take_parted(&mut self) -> Vec<QueueId> {
        std::mem::take(&mut self.parted)
    }

    pub fn take_touched(&mut self) -> HashSet<QueueId> {
        std::mem::take(&mut self.touched)
    }

    pub fn outcome(
        &mut self,
        origin: &Arc<dyn PublishOrigin>,
        token: u64,
        result: Result<(), ErrorBody>,
    ) {
        let key = Arc::as_ptr(origin).cast::<()>() as usize;
        self.outcomes
            .entry(key)
            .or_insert_with(|| (origin.clone(), Vec::new()))
            .1
            .push((token, result));
    }

    pub fn report_durable(
        &mut self,
        leader: BrokerLife,
        queue: QueueId,
        epoch: Epoch,
        end: Offset,
    ) {
        self.durable.entry(leader).or_default().push((queue, epoch, end));
    }

    pub fn tell_committed(
        &mut self,
        follower: BrokerLife,
        queue: QueueId,
        epoch: Epoch,
        end: Offset,
    ) {
        self.committed.entry(follower).or_default().push((queue, epoch, end));
    }

    pub fn reread(&mut self, queue: QueueId) {
        self.rereads.push(queue);
    }

    pub fn to_leader(&self, to: BrokerLife, frame: PeerFrame) {
        // A connection that is down says so by itself: the machine hears of it and acts.
        if !self.environment.peers.to_leader(to, frame) {
            tracing::trace!(peer = %to, "no connection to the leader");
        }
    }

    pub fn to_follower(&self, to: BrokerLife, frame: PeerFrame) -> SendOutcome {
        self.environment.peers.to_follower(to, frame)
    }

    /// Streams one run; says whether the follower's outbox took it.
    pub fn stream(&self, to: BrokerLife, run: AppendRun) -> SendOutcome {
        self.environment.peers.to_follower(to, PeerFrame::Append(vec![run]))
    }

    pub fn stream_bytes_max(&self) -> usize {
        STREAM_BYTES_MAX
    }

    /// Where clients reach this broker, if it is live.
    pub fn address_of(&self, broker: BrokerId) -> Option<BrokerAddress> {
        self.brokers
            .brokers
            .iter()
            .find(|record| record.life.broker == broker)
            .map(|record| record.address())
    }

    /// Reads on a thread that may block; the answer comes as [`Internal::Read`].
    pub fn read_on_disk(&self, queue: QueueId, purpose: ReadPurpose, request: ReadRequest) {
        let internal = self.internal.clone();
        let environment = self.environment.clone();
        self.environment.runtime.spawn(async move {
            let held = environment.room_to_read(request.bytes()).await;
            let result = blocking_read(request).await;
            forward(&internal, Internal::Read { queue, purpose, result, held }).await;
        });
    }

    /// Compares and sets; the answer comes as [`Internal::Cas`].
    pub fn cas(&self, queue: QueueId, version: Version, state: QueueState) {
        let life = self.life;
        let internal = self.internal.clone();
        let keeper = self.environment.keeper.clone();
        self.environment.runtime.spawn(async move {
            let outcome = match life {
                Some(life) => keeper.cas(life, queue, version, state.clone()).await,
                None => CasOutcome::NotSent,
            };
            forward(&internal, Internal::Cas { queue, version, state, outcome }).await;
        });
    }

    pub fn promises_of(&self, life: BrokerLife) -> Option<Arc<Promises>> {
        self.promises.get(&life).cloned()
    }

    /// The end of a turn: everything that was gathered goes its way.
    pub fn hand_on(&mut self) {
        self.logs.flush();
        for (_, (origin, outcomes)) in self.outcomes.drain() {
            origin.outcomes(outcomes);
        }
        for (leader, ends) in std::mem::take(&mut self.durable) {
            self.to_leader(leader, PeerFrame::Durable(ends));
        }
        for (follower, ends) in std::mem::take(&mut self.committed) {
            // Coalesced with what waits there already; nothing is lost when the connection is down.
            self.to_follower(follower, PeerFrame::Committed(ends));
        }
        if !self.rereads.is_empty() {
            let mut rereads = std::mem::take(&mut self.rereads);
            rereads.sort_unstable();
            rereads.dedup();
            self.environment.keeper.reread(rereads);
        }
    }
}

/// Runs a read on a thread that may block.
pub(super) async fn blocking_read(request: ReadRequest) -> Result<Vec<Batch>, ReadError> {
    let read = tokio::task::spawn_blocking(move || request.run()).await;
    read.unwrap_or_else(|panic| {
        let error = std::io::Error::other(format!("the read broke off: {panic}"));
        Err(ReadError::Io { segment: 0, position: 0, error })
    })
}

pub(super) async fn forward(internal: &mpsc::Sender<Internal>, answer: Internal) {
    if internal.send(answer).await.is_err() {
        tracing::debug!("a shard has stopped: an answer to it is dropped");
    }
}
