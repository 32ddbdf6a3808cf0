//! One connection for replication, from the hellos to its end: what is read goes to the shards, what the shards push is
//! written, promises are asked for and given.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::ids::{BrokerLife, StoreId};
use bellwether_protocol::peer::{PeerFrame, PeerHello};
use bellwether_protocol::{CodecError, Frame, FrameCodec};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::codec::Decoder;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::cut::Assembly;
use super::forwards::{Forwards, WayBack};
use super::hello::Framed;
use super::outbox::Outbox;
use super::promises::PromiseClock;
use super::secure::Stream;
use super::sort::{ForShard, Sorter};
use crate::metrics::Metrics;
use crate::shard::input::{ConnectionId, PeerNews, Promises, PublishOrigin, ShardInput, Side};

/// A heartbeat goes out when nothing else has for so long.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);

/// A connection on which nothing has arrived for so long is closed: the peer is frozen or cut off. This proves nothing
/// about it, least of all its death.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Reads that wait for the shards. When they are full the socket is not read, and promises wait with the rest.
const INBOX_READS_MAX: usize = 64;

/// Room made for one read, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// How long a goodbye may take.
const GOODBYE_WAIT: Duration = Duration::from_millis(200);

/// A connection as the rest of the broker holds it.
pub(super) struct Link {
    /// This broker, in the life in which it said hello.
    pub mine: BrokerLife,
    pub peer: BrokerLife,
    pub store: StoreId,
    pub side: Side,
    pub connection: ConnectionId,
    pub outbox: Arc<Outbox>,
    pub forwards: Forwards,
    /// Ends it from this side.
    pub cancel: CancellationToken,
    /// Cancelled once the shards have heard that it is down.
    pub over: CancellationToken,
    promises: Arc<Promises>,
    /// How long a promise of the peer holds: its own T.
    promised_for: Duration,
    clock: Mutex<PromiseClock>,
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// By the other side, or its host. Half of the evidence of its death.
    Reset,
    /// Nothing arrived any more.
    Silent,
    /// By this side.
    Closed,
    /// The peer sent what it may not.
    Broken(ErrorBody),
}

impl Link {
    pub fn new(
        mine: BrokerLife,
        theirs: &PeerHello,
        side: Side,
        bulk_bytes_max: usize,
        metrics: &Arc<Metrics>,
    ) -> Link {
        Link {
            mine,
            peer: theirs.life,
            store: theirs.store,
            side,
            connection: ConnectionId::next(),
            outbox: Arc::new(Outbox::counted(bulk_bytes_max, metrics.clone())),
            forwards: Forwards::default(),
            cancel: CancellationToken::new(),
            over: CancellationToken::new(),
            promises: Arc::new(Promises::none()),
            promised_for: Duration::from_millis(theirs.promise_ms.into()),
            clock: Mutex::default(),
        }
    }

    /// Runs it to its end. When this returns the shards have heard that it is down.
    pub async fn run(self: &Arc<Link>, shared: &Arc<Shared>, framed: Framed<Stream>) -> End {
        let (inbox, arrived) = mpsc::channel(INBOX_READS_MAX);
        let hand_on = shared.tracker.spawn(hand_on(self.clone(), shared.clone(), arrived));
        let Framed { stream, arrived, codec } = framed;
        let (read_half, mut write_half) = stream.into_split();
        let mut reader = Reader {
            link: self.clone(),
            shared: shared.clone(),
            stream: read_half,
            arrived,
            codec,
            assembly: Assembly::default(),
            sorter: Sorter::new(shared.shards.clone()),
            way_back: Arc::new(WayBack(self.outbox.clone())),
        };
        let end = tokio::select! {
            end = reader.run(inbox) => end,
            end = self.write(shared, &mut write_half) => end,
            () = self.ask_for_promises(shared) => End::Closed,
            () = shared.life_is_over(self.mine) => End::Closed,
            () = self.cancel.cancelled() => End::Closed,
            () = shared.shutdown.cancelled() => End::Closed,
        };
        // The lease first: nothing may be delivered on the word of a peer that is out of reach.
        self.promises.end();
        self.outbox.close();
        if let End::Broken(error) = &end {
            say_goodbye(&mut write_half, error).await;
        }
        drop((reader, write_half));
        self.forwards.abandon();
        if hand_on.await.is_err() {
            tracing::error!(peer = %self.peer, "handing on what a peer sent has panicked");
        }
        end
    }

    async fn write<W: AsyncWrite + Unpin>(&self, shared: &Shared, socket: &mut W) -> End {
        let mut out = BytesMut::new();
        loop {
            let outgoing = match tokio::time::timeout(HEARTBEAT_EVERY, self.outbox.next()).await {
                Ok(Some(outgoing)) => outgoing,
                Ok(None) => {
                    tracing::warn!(peer = %self.peer, "the peer takes nothing: its connection is given up");
                    return End::Closed;
                }
                Err(_) => {
                    super::outbox::Outgoing { frames: vec![PeerFrame::Heartbeat], room: false }
                }
            };
            out.clear();
            for frame in &outgoing.frames {
                frame.encode(&mut out);
            }
            count_sent(shared, &outgoing.frames);
            drop(outgoing.frames);
            // Flushed: TLS may hold on to the end of what was written.
            let written = match socket.write_all(&out).await {
                Ok(()) => socket.flush().await,
                error => error,
            };
            if let Err(error) = written {
                return end_of(&error);
            }
            if outgoing.room {
                self.tell_room(shared);
            }
        }
    }

    /// Room is told by a task of its own: a shard whose mailbox is full must not hold up promises.
    fn tell_room(&self, shared: &Shared) {
        let (shards, peer) = (shared.shards.clone(), self.peer);
        shared.tracker.spawn(async move {
            for shard in 0..shards.shards() {
                shards.send(shard, ShardInput::Peer(PeerNews::Room { peer })).await;
            }
        });
    }

    /// On the accepting side only: the other is asked.
    async fn ask_for_promises(&self, shared: &Shared) {
        if self.side == Side::Dialed {
            return std::future::pending().await;
        }
        // A sixth of T: three in a row may be late before the lease, of two thirds, ends.
        let every = (self.promise(shared) / 6).max(Duration::from_millis(1));
        let mut ticker = tokio::time::interval(every);
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticker.tick().await;
            // The clock is read before the ask can be answered: a lease that counted from later would be too long.
            let number = self.clock().ask(Instant::now());
            if self.outbox.push(PeerFrame::PromiseAsk { number }) == super::outbox::Pushed::Closed {
                return;
            }
        }
    }

    fn clock(&self) -> std::sync::MutexGuard<'_, PromiseClock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn promised(&self, shared: &Shared, number: u64) {
        if let Some(sent) = self.clock().answered(number) {
            self.promises.extend(sent + self.promise(shared) * 2 / 3);
        }
    }

    /// For how long a promise of the peer is counted on: no longer than the peer keeps it, who may have another T.
    fn promise(&self, shared: &Shared) -> Duration {
        shared.config.promise.min(self.promised_for)
    }
}

fn count_sent(shared: &Shared, frames: &[PeerFrame]) {
    let bytes: usize = frames
        .iter()
        .map(|frame| match frame {
            PeerFrame::Append(runs) => runs.iter().map(|run| run.batches.len()).sum(),
            PeerFrame::AppendPart { bytes, .. } => bytes.len(),
            _ => 0,
        })
        .sum();
    if bytes > 0 {
        shared.metrics.replication_bytes_sent.add(bytes as u64);
    }
}

async fn say_goodbye<W: AsyncWrite + Unpin>(socket: &mut W, error: &ErrorBody) {
    let mut out = BytesMut::new();
    PeerFrame::Goodbye(error.clone()).encode(&mut out);
    let saying = async {
        socket.write_all(&out).await?;
        socket.flush().await
    };
    match tokio::time::timeout(GOODBYE_WAIT, saying).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a peer did not wait for the reason of its end"),
        Err(_) => tracing::debug!("a peer does not take the reason of its end"),
    }
}

/// Only what the other host says counts as a reset: a time-out of the network is silence.
fn end_of(error: &std::io::Error) -> End {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::UnexpectedEof
        | ErrorKind::NotConnected => End::Reset,
        _ => {
            tracing::debug!(%error, "a peer connection failed");
            End::Silent
        }
    }
}

struct Reader<R> {
    link: Arc<Link>,
    shared: Arc<Shared>,
    stream: R,
    arrived: BytesMut,
    codec: FrameCodec<PeerFrame>,
    assembly: Assembly,
    sorter: Sorter,
    way_back: Arc<dyn PublishOrigin>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    async fn run(&mut self, inbox: mpsc::Sender<Vec<ForShard>>) -> End {
        loop {
            loop {
                let taken = match self.codec.decode(&mut self.arrived) {
                    Ok(None) => break,
                    Ok(Some(frame)) => self.take(frame),
                    Err(CodecError::Frame(error)) => Err(End::Broken(error.into())),
                    Err(CodecError::Io(error)) => Err(end_of(&error)),
                };
                if let Err(end) = taken {
                    return end;
                }
            }
            if let Some(sorted) = self.sorter.take()
                && inbox.send(sorted).await.is_err()
            {
                return End::Closed;
            }
            self.arrived.reserve(READ_BYTES);
            match tokio::time::timeout(SILENCE_MAX, self.stream.read_buf(&mut self.arrived)).await {
                Ok(Ok(0)) => return End::Reset,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return end_of(&error),
                Err(_) => return End::Silent,
            }
        }
    }

    fn take(&mut self, frame: PeerFrame) -> Result<(), End> {
        check_direction(self.link.side, &frame).map_err(End::Broken)?;
        match frame {
            PeerFrame::Heartbeat => {}
            PeerFrame::Goodbye(error) => {
                tracing::warn!(peer = %self.link.peer, reason = error.message, "the peer ends the connection");
            }
            PeerFrame::PromiseAsk { number } => {
                // At once, whatever the shards are doing. A life that is over promises nothing: its connections end.
                if self.shared.lives(self.link.mine) {
                    self.link.outbox.push(PeerFrame::Promise { number });
                }
            }
            PeerFrame::Promise { number } => self.link.promised(&self.shared, number),
            PeerFrame::Forward(forward) => self.sorter.publish(forward, self.way_back.clone()),
            PeerFrame::Forwarded(results) => self.link.forwards.settle(results),
            PeerFrame::ForwardPart { last, bytes } => {
                let whole = self.assembly.forward(last, &bytes).map_err(|error| broken(&error))?;
                if let Some(PeerFrame::Forward(forward)) = whole {
                    self.sorter.publish(forward, self.way_back.clone());
                }
            }
            PeerFrame::AppendPart { queue, epoch, high_watermark, last, bytes } => {
                self.count_received(bytes.len());
                let place = (queue, epoch);
                let whole = self.assembly.append(place, high_watermark, last, &bytes);
                if let Some(append) = whole.map_err(|error| broken(&error))? {
                    self.sorter.frame(append);
                }
            }
            PeerFrame::Unsubscribe(queues) => {
                for (queue, _) in &queues {
                    // Before the next frame is read: a promise behind this one no longer covers these queues.
                    self.shared.leases.withdraw(*queue, self.link.connection);
                }
                self.sorter.frame(PeerFrame::Unsubscribe(queues));
            }
            PeerFrame::Append(runs) => {
                self.count_received(runs.iter().map(|run| run.batches.len()).sum());
                self.sorter.frame(PeerFrame::Append(runs));
            }
            other => self.sorter.frame(other),
        }
        Ok(())
    }

    fn count_received(&self, bytes: usize) {
        self.shared.metrics.replication_bytes_received.add(bytes as u64);
    }
}

fn broken(error: &super::cut::BrokenPieces) -> End {
    End::Broken(ErrorBody::not_done(ErrorCode::MalformedFrame, error.to_string()))
}

/// Each frame has one direction, or both; the hellos are over, and snapshots have a connection of their own.
fn check_direction(side: Side, frame: &PeerFrame) -> Result<(), ErrorBody> {
    let from_dialer = match frame {
        PeerFrame::Subscribe(_)
        | PeerFrame::Unsubscribe(_)
        | PeerFrame::Durable(_)
        | PeerFrame::Promise { .. }
        | PeerFrame::Forward(_)
        | PeerFrame::ForwardPart { .. } => Some(true),
        PeerFrame::NotLeading { .. }
        | PeerFrame::EpochEnd { .. }
        | PeerFrame::SnapshotNeeded { .. }
        | PeerFrame::Append(_)
        | PeerFrame::AppendPart { .. }
        | PeerFrame::Committed(_)
        | PeerFrame::PromiseAsk { .. }
        | PeerFrame::Forwarded(_) => Some(false),
        PeerFrame::Goodbye(_)
        | PeerFrame::Heartbeat
        | PeerFrame::PositionAsk(_)
        | PeerFrame::Positions(..)
        | PeerFrame::StateChanged(_) => return Ok(()),
        PeerFrame::Hello(_)
        | PeerFrame::SnapshotAsk { .. }
        | PeerFrame::SnapshotStart { .. }
        | PeerFrame::SnapshotPart(_)
        | PeerFrame::SnapshotEnd => None,
    };
    if from_dialer == Some(side == Side::Accepted) {
        return Ok(());
    }
    Err(ErrorBody::not_done(
        ErrorCode::UnexpectedFrame,
        "a frame that this side of a peer connection does not send",
    ))
}

/// Tells the shards what arrived, in order: first that the connection is up, last that it is down.
async fn hand_on(link: Arc<Link>, shared: Arc<Shared>, mut arrived: mpsc::Receiver<Vec<ForShard>>) {
    let shards = &shared.shards;
    shared.remember(&link).await;
    let (peer, side, connection) = (link.peer, link.side, link.connection);
    shared.metrics.peer_connections.add(1);
    for shard in 0..shards.shards() {
        let promises = (side == Side::Accepted).then(|| link.promises.clone());
        let up = PeerNews::Up { peer, store: link.store, side, promises };
        shards.send(shard, ShardInput::Peer(up)).await;
    }
    while let Some(sorted) = arrived.recv().await {
        for (shard, for_shard) in sorted.into_iter().enumerate() {
            let ForShard { frames, publishes } = for_shard;
            if !frames.is_empty() {
                shards
                    .send(
                        shard,
                        ShardInput::Peer(PeerNews::Frames { peer, side, connection, frames }),
                    )
                    .await;
            }
            if !publishes.is_empty() {
                shards.send(shard, ShardInput::Publish(publishes)).await;
            }
        }
    }
    shared.forget(&link);
    for shard in 0..shards.shards() {
        shards.send(shard, ShardInput::Peer(PeerNews::Down { peer, side, connection })).await;
    }
    shared.metrics.peer_connections.subtract(1);
    link.over.cancel();
}
