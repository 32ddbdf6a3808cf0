//! The task that writes: everything that waits in one write, the lease of every delivery checked right before it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bellwether_protocol::Frame;
use bellwether_protocol::client::{BrokerFrame, Deliver};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Duration, timeout};

use super::consumers::Outlet;
use super::inbox::Inbox;
use super::outbox::{Delivery, Item, Outbox};
use super::{Service, WRITE_TIMEOUT};
use crate::shard::input::{Lease, ShardInput};

/// Pieces handed to one write call.
const SLICES_MAX: usize = 64;

/// How often it is looked whether a lease covers again what is held back.
const LEASE_LOOK: Duration = Duration::from_millis(5);

/// Encoded bytes before writing begins: beyond it a write would only wait for the socket.
const ENCODED_MAX: usize = 512 * 1024;

/// See the module.
pub(super) struct Writer<W> {
    socket: W,
    service: Arc<Service>,
    outbox: Arc<Outbox>,
    inbox: Arc<Inbox>,
    /// How often the client wants to hear something.
    heartbeat: Option<Duration>,
    chunks: VecDeque<Chunk>,
    /// Deliveries that their leases do not cover for the moment, in order. Bounded as the outbox is: their bytes count there.
    held: VecDeque<Chunk>,
    /// Of all chunks since the last flush.
    chunk_bytes: usize,
    encoded: BytesMut,
}

/// Bytes to write.
struct Chunk {
    bytes: Bytes,
    /// Of a delivery none of whose bytes is written yet.
    delivery: Option<Pending>,
}

/// A delivery that may still be dropped.
struct Pending {
    outlet: Arc<Outlet>,
    lease: Lease,
    bytes: usize,
    messages: u64,
    redelivered: u64,
}

impl Pending {
    fn will_never_be_written(&self) -> bool {
        self.outlet.is_closed() || self.lease.is_over()
    }

    fn may_be_written(&self, now: Instant) -> bool {
        !self.will_never_be_written() && self.lease.holds(now)
    }
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub fn new(
        socket: W,
        service: Arc<Service>,
        outbox: Arc<Outbox>,
        inbox: Arc<Inbox>,
        heartbeat: Option<Duration>,
    ) -> Writer<W> {
        Writer {
            socket,
            service,
            outbox,
            inbox,
            heartbeat,
            chunks: VecDeque::new(),
            held: VecDeque::new(),
            chunk_bytes: 0,
            encoded: BytesMut::new(),
        }
    }

    /// Until the connection ends, or the client no longer takes anything.
    pub async fn run(mut self) {
        let ended = self.write_all().await;
        if let Err(error) = ended {
            tracing::debug!(%error, "a client connection could not be written to");
        }
        // The other side may be gone already: there is nobody left to tell.
        let _closed = timeout(WRITE_TIMEOUT, self.socket.shutdown()).await;
        self.inbox.add(|news| news.writer_gone = true);
    }

    async fn write_all(&mut self) -> io::Result<()> {
        let mut beat = self
            .heartbeat
            .map(|every| tokio::time::interval_at(tokio::time::Instant::now() + every, every));
        let mut wrote = false;
        loop {
            let taken = self.outbox.take();
            if !taken.items.is_empty() {
                for item in taken.items {
                    self.encode(item);
                    if self.chunk_bytes + self.encoded.len() >= ENCODED_MAX {
                        self.flush().await?;
                    }
                }
                self.flush().await?;
                wrote = true;
                continue;
            }
            if taken.overflown {
                return self.goodbye(slow_reader()).await;
            }
            if let Some(reason) = taken.ending {
                return match reason {
                    Some(error) => self.goodbye(error).await,
                    None => Ok(()),
                };
            }
            tokio::select! {
                () = self.outbox.arrived() => {}
                () = tokio::time::sleep(LEASE_LOOK), if !self.held.is_empty() => self.flush().await?,
                () = tick(&mut beat) => {
                    if !std::mem::take(&mut wrote) {
                        BrokerFrame::Heartbeat.encode(&mut self.encoded);
                        self.flush().await?;
                    }
                }
            }
        }
    }

    async fn goodbye(&mut self, error: ErrorBody) -> io::Result<()> {
        BrokerFrame::Goodbye(error).encode(&mut self.encoded);
        self.flush().await
    }

    fn encode(&mut self, item: Item) {
        match item {
            Item::Frame(frame) => frame.encode(&mut self.encoded),
            Item::Delivery(delivery) => self.encode_delivery(delivery),
        }
    }

    /// A chunk of its own, so that it can still be dropped.
    fn encode_delivery(&mut self, delivery: Delivery) {
        self.cut();
        let bytes = delivery.bytes();
        let count = |runs: &mut dyn Iterator<Item = &bellwether_protocol::client::DeliveredRun>| {
            runs.map(|run| u64::from(run.messages.count())).sum()
        };
        let pending = Pending {
            messages: count(&mut delivery.runs.iter()),
            redelivered: count(&mut delivery.runs.iter().filter(|run| run.redelivered)),
            outlet: delivery.outlet,
            lease: delivery.lease,
            bytes,
        };
        let consumer = pending.outlet.handle;
        BrokerFrame::Deliver(Deliver { consumer, epoch: delivery.epoch, runs: delivery.runs })
            .encode(&mut self.encoded);
        let bytes = self.encoded.split().freeze();
        self.chunk_bytes += bytes.len();
        self.chunks.push_back(Chunk { bytes, delivery: Some(pending) });
    }

    /// What was encoded so far becomes a chunk.
    fn cut(&mut self) {
        if !self.encoded.is_empty() {
            let bytes = self.encoded.split().freeze();
            self.chunk_bytes += bytes.len();
            self.chunks.push_back(Chunk { bytes, delivery: None });
        }
    }

    /// Writes all chunks; each time the socket takes something, what has not begun is checked again.
    async fn flush(&mut self) -> io::Result<()> {
        self.cut();
        self.chunk_bytes = 0;
        // What is held back goes first: behind it wait others of its queue.
        for chunk in std::mem::take(&mut self.held).into_iter().rev() {
            self.chunks.push_front(chunk);
        }
        while !self.chunks.is_empty() {
            let written = timeout(WRITE_TIMEOUT, poll_fn(|cx| self.poll_write(cx))).await;
            let written = written.map_err(|_| {
                io::Error::new(io::ErrorKind::TimedOut, "the client does not read")
            })??;
            if let Some(bytes) = written {
                self.advance(bytes);
            }
        }
        self.socket.flush().await
    }

    /// The check stands in the poll, so that it is made again after every wait for the socket.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<usize>>> {
        self.set_aside_what_may_not_be_written();
        if self.chunks.is_empty() {
            return Poll::Ready(Ok(None));
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(&chunk.bytes);
            count += 1;
        }
        Pin::new(&mut self.socket).poll_write_vectored(cx, &slices[..count]).map(|written| {
            match written {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => Ok(Some(bytes)),
                Err(error) => Err(error),
            }
        })
    }

    /// Holds back deliveries that their lease does not cover for the moment, and all of the same lease behind them; drops those
    /// whose lease is over or whose consumer is gone. Of none of them anything is written.
    // A deposed leader that wrote them would deliver what its successor may have let somebody settle (promise G3).
    fn set_aside_what_may_not_be_written(&mut self) {
        let now = Instant::now();
        let covered = |chunk: &Chunk| {
            chunk.delivery.as_ref().is_none_or(|pending| pending.may_be_written(now))
        };
        if self.held.is_empty() && self.chunks.iter().take(SLICES_MAX).all(covered) {
            return;
        }
        for chunk in std::mem::take(&mut self.chunks) {
            match &chunk.delivery {
                Some(pending) if pending.will_never_be_written() => self.released(pending.bytes),
                Some(pending)
                    if !pending.may_be_written(now) || self.holds_back(&pending.lease) =>
                {
                    self.service.metrics.lease_refusals.increment();
                    self.held.push_back(chunk);
                }
                Some(_) | None => self.chunks.push_back(chunk),
            }
        }
    }

    /// Whether something of this lease waits already.
    fn holds_back(&self, lease: &Lease) -> bool {
        self.held
            .iter()
            .filter_map(|chunk| chunk.delivery.as_ref())
            .any(|held| held.lease.is(lease))
    }

    /// So many bytes were written: whole chunks go, the first of the rest has begun.
    fn advance(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let Some(chunk) = self.chunks.front_mut() else { return };
            let pending = chunk.delivery.take();
            if bytes < chunk.bytes.len() {
                chunk.bytes = chunk.bytes.slice(bytes..);
                bytes = 0;
            } else {
                bytes -= chunk.bytes.len();
                self.chunks.pop_front();
            }
            if let Some(pending) = pending {
                let metrics = &self.service.metrics;
                metrics.delivered_messages.add(pending.messages);
                metrics.redelivered_messages.add(pending.redelivered);
                self.released(pending.bytes);
            }
        }
    }

    fn released(&self, bytes: usize) {
        for outlet in self.outbox.delivered(bytes) {
            let Some(queue) = outlet.queue().filter(|_| !outlet.is_closed()) else { continue };
            let input = ShardInput::Drained { queue, consumer: outlet.key };
            let shard = self.service.shards.shard_of(queue);
            self.inbox.add(|news| news.for_shards.push((shard, input)));
        }
    }
}

async fn tick(beat: &mut Option<tokio::time::Interval>) {
    match beat {
        Some(beat) => {
            beat.tick().await;
        }
        None => std::future::pending().await,
    }
}

fn slow_reader() -> ErrorBody {
    let words = "too many frames wait to be read by this client; it has to read what it asks for";
    ErrorBody::not_done(ErrorCode::ConnectionLimit, words)
}
