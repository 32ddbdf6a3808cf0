//! The task that writes: everything that waits in one write, the lease of every delivery checked right before it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bellwether_protocol::Frame;
use bellwether_protocol::client::{BrokerFrame, Deliver};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Duration, timeout};

use super::Service;
use super::chunks::{Aside, Chunk, Pending};
use super::consumers::Outlet;
use super::inbox::Inbox;
use super::outbox::{Delivery, Item, Outbox};
use super::uptake::Uptake;
use crate::memory::{Held, Pool};
use crate::shard::input::{Lease, ShardInput};

/// Pieces handed to one write call.
const SLICES_MAX: usize = 64;

/// How soon it is looked whether a lease covers again what was set aside; each time in vain twice as late, up to
/// [`LEASE_LOOK_MAX`].
const LEASE_LOOK: Duration = Duration::from_millis(5);
/// See [`LEASE_LOOK`].
const LEASE_LOOK_MAX: Duration = Duration::from_millis(80);

/// How long a delivery of which a part is written waits for its lease before the connection ends: nothing else can be written
/// meanwhile.
const BEGUN_PATIENCE: Duration = Duration::from_secs(2);

/// What an idle client's buffer for writing may keep, in bytes.
const ENCODED_KEPT: usize = 1024;

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
    /// Of deliveries that the socket has taken and may keep to itself: TLS does, until it is flushed.
    unflushed: Vec<Lease>,
    aside: Aside,
    /// Of all chunks since the last flush.
    chunk_bytes: usize,
    encoded: BytesMut,
    /// The most that was in it, which it keeps room for.
    encoded_most: usize,
    held: Held,
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
            held: Held::new(&service.metrics, Pool::Outboxes, 0),
            service,
            outbox,
            inbox,
            heartbeat,
            chunks: VecDeque::new(),
            unflushed: Vec::new(),
            aside: Aside::default(),
            chunk_bytes: 0,
            encoded: BytesMut::new(),
            encoded_most: 0,
        }
    }

    /// Until the connection ends, or the client no longer takes anything.
    pub async fn run(mut self) {
        let ended = self.write_all().await;
        if let Err(error) = ended {
            tracing::debug!(%error, "a client connection could not be written to");
        }
        // What the socket keeps to itself would go out with its end, and nobody would look at the lease meanwhile.
        if self.unflushed.is_empty() {
            // The other side may be gone already: there is nobody left to tell.
            let _closed =
                timeout(self.service.limits.bounds.write_timeout, self.socket.shutdown()).await;
        }
        self.inbox.add(|news| news.writer_gone = true);
    }

    async fn write_all(&mut self) -> io::Result<()> {
        let mut beat = self
            .heartbeat
            .map(|every| tokio::time::interval_at(tokio::time::Instant::now() + every, every));
        let mut wrote = false;
        let mut look = LEASE_LOOK;
        loop {
            let taken = self.outbox.take();
            if taken.reader_goes_on {
                self.inbox.wake();
            }
            if !taken.items.is_empty() {
                for item in taken.items {
                    self.encode(item);
                    if self.chunk_bytes + self.encoded.len() >= ENCODED_MAX {
                        self.flush().await?;
                    }
                }
                self.flush().await?;
                (wrote, look) = (true, LEASE_LOOK);
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
            self.rest(taken.rests);
            tokio::select! {
                () = self.outbox.arrived() => {}
                () = tokio::time::sleep(look), if !self.aside.is_empty() => {
                    look = (look * 2).min(LEASE_LOOK_MAX);
                    self.flush().await?;
                }
                () = tick(&mut beat) => {
                    if !std::mem::take(&mut wrote) {
                        BrokerFrame::Heartbeat.encode(&mut self.encoded);
                        self.flush().await?;
                    }
                }
            }
        }
    }

    /// Nothing waits to be written. A buffer that has grown is kept for the next time, but not for an idle client, nor while memory
    /// is short.
    fn rest(&mut self, idle: bool) {
        let short = self.service.metrics.memory.is_full(Pool::Outboxes);
        if self.encoded_most > ENCODED_KEPT && (idle || short) {
            (self.encoded, self.encoded_most) = (BytesMut::new(), 0);
        }
        self.held.set(self.encoded_most as u64);
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
        self.encoded_most = self.encoded_most.max(bytes.len());
        self.chunks.push_back(Chunk::new(bytes, Some(pending)));
    }

    /// What was encoded so far becomes a chunk.
    fn cut(&mut self) {
        if !self.encoded.is_empty() {
            let bytes = self.encoded.split().freeze();
            self.chunk_bytes += bytes.len();
            self.encoded_most = self.encoded_most.max(bytes.len());
            self.chunks.push_back(Chunk::new(bytes, None));
        }
    }

    /// Writes all chunks; each time the socket takes something, what is not wholly written is checked again.
    async fn flush(&mut self) -> io::Result<()> {
        self.cut();
        self.chunk_bytes = 0;
        self.take_up();
        let mut paused = Duration::ZERO;
        let mut uptake = Uptake::new(self.service.limits.bounds.write_timeout);
        loop {
            let step = timeout(uptake.look_in(), poll_fn(|cx| self.poll_write(cx))).await;
            let Ok(step) = step else {
                uptake.waited(self.holds_up_others())?;
                continue;
            };
            match step? {
                Step::Wrote { bytes, flushed } => {
                    self.advance(bytes);
                    if flushed {
                        self.unflushed.clear();
                    }
                    uptake.wrote(bytes, || self.holds_up_others())?;
                    paused = Duration::ZERO;
                }
                Step::NothingLeft => return Ok(()),
                Step::Paused if paused < BEGUN_PATIENCE => {
                    tokio::time::sleep(LEASE_LOOK).await;
                    paused += LEASE_LOOK;
                }
                Step::Paused => return Err(lease_lost()),
            }
        }
    }

    /// Whether this client leaves answers unread while all unread answers together have used up their pool.
    fn holds_up_others(&self) -> bool {
        self.outbox.unread() > 0 && self.service.metrics.memory.is_full(Pool::Answers)
    }

    /// The check stands in the poll, so that it is made again after every wait for the socket.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Step>> {
        let now = Instant::now();
        // Taken by the socket is not on its way. A successor that delivers sooner, and lets somebody settle, would be followed by
        // these: promise G3.
        if self.unflushed.iter().any(Lease::is_over) {
            return Poll::Ready(Err(lease_lost()));
        }
        if !self.unflushed.iter().all(|lease| lease.holds(now)) {
            return Poll::Ready(Ok(Step::Paused));
        }
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.unflushed.clear();
        if let Some(Chunk { delivery: Some(pending), begun: true, .. }) = self.chunks.front() {
            // Half a delivery cannot be taken back, but its rest can be kept back: without it, it is none.
            if pending.lease.is_over() {
                return Poll::Ready(Err(lease_lost()));
            }
            if !pending.lease.holds(now) {
                return Poll::Ready(Ok(Step::Paused));
            }
        }
        self.set_aside_what_may_not_be_written(now);
        if self.chunks.is_empty() {
            return Poll::Ready(Ok(Step::NothingLeft));
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(&chunk.bytes);
            count += 1;
        }
        let mut socket = Pin::new(&mut self.socket);
        let bytes = ready!(socket.as_mut().poll_write_vectored(cx, &slices[..count]))?;
        if bytes == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let flushed = socket.poll_flush(cx)?.is_ready();
        Poll::Ready(Ok(Step::Wrote { bytes, flushed }))
    }

    /// Of what is written next, sets aside the deliveries that their lease does not cover for the moment, and all of the same
    /// lease behind them; drops those whose lease is over or whose consumer is gone. Of none of them anything is written.
    // A deposed leader that wrote them would deliver what its successor may have let somebody settle (promise G3).
    fn set_aside_what_may_not_be_written(&mut self, now: Instant) {
        let mut at = 0;
        while at < self.chunks.len().min(SLICES_MAX) {
            let Some(pending) =
                self.chunks[at].delivery.as_ref().filter(|_| !self.chunks[at].begun)
            else {
                at += 1;
                continue;
            };
            let is_over = pending.will_never_be_written();
            if !is_over && pending.lease.holds(now) && !self.aside.has(&pending.lease) {
                at += 1;
                continue;
            }
            let bytes = pending.bytes;
            let Some(chunk) = self.chunks.remove(at) else { return };
            if is_over {
                self.tell_drained(self.outbox.delivered(bytes));
            } else {
                self.service.metrics.lease_refusals.increment();
                self.aside.add(chunk);
                self.tell_drained(self.outbox.set_aside(bytes));
            }
        }
    }

    /// What was set aside and is covered again goes first: behind it wait others of its queue.
    fn take_up(&mut self) {
        if self.aside.is_empty() {
            return;
        }
        for chunk in self.aside.take_covered(Instant::now()).into_iter().rev() {
            self.outbox.taken_up(chunk.delivery.as_ref().map_or(0, |pending| pending.bytes));
            self.chunks.push_front(chunk);
        }
    }

    /// So many bytes were written: whole chunks go, the first of the rest has begun.
    fn advance(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let Some(chunk) = self.chunks.front_mut() else { return };
            if let Some(Pending { lease, .. }) = &chunk.delivery
                && !self.unflushed.iter().any(|known| known.is(lease))
            {
                self.unflushed.push(lease.clone());
            }
            if bytes < chunk.bytes.len() {
                chunk.bytes = chunk.bytes.slice(bytes..);
                chunk.begun = true;
                return;
            }
            bytes -= chunk.bytes.len();
            let written = self.chunks.pop_front().and_then(|chunk| chunk.delivery);
            if let Some(pending) = written {
                let metrics = &self.service.metrics;
                metrics.delivered_messages.add(pending.messages);
                metrics.redelivered_messages.add(pending.redelivered);
                self.tell_drained(self.outbox.delivered(pending.bytes));
            }
        }
    }

    fn tell_drained(&self, outlets: Vec<Arc<Outlet>>) {
        for outlet in outlets {
            let Some(queue) = outlet.queue().filter(|_| !outlet.is_closed()) else { continue };
            let input = ShardInput::Drained { queue, consumer: outlet.key };
            let shard = self.service.shards.shard_of(queue);
            self.inbox.add(|news| news.for_shards.push((shard, input)));
        }
    }
}

/// What one attempt to write came to.
enum Step {
    /// So many bytes were taken, and whether the socket keeps none of them to itself.
    Wrote { bytes: usize, flushed: bool },
    /// All that was to be written was set aside or dropped.
    NothingLeft,
    /// A delivery of which a part is written is not covered for the moment.
    Paused,
}

fn lease_lost() -> io::Error {
    io::Error::other("the lease was lost in the middle of a delivery")
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
