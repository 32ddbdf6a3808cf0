//! The reading side of a connection: takes frames, publishes, settles, and starts requests. It never waits for anything
//! but the socket, except for room in a shard's mailbox when that shard is to hear of settles.

mod publishing;
mod settling;

use std::collections::HashMap;
use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bellwether_protocol::client::{BrokerFrame, ClientFrame, Publish};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::ids::ConsumerHandle;
use bellwether_protocol::names::VirtualHost;
use bellwether_protocol::{CodecError, FrameCodec};
use bellwether_tls::CertificateIdentity;
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadHalf};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Duration, timeout};
use tokio_util::codec::Decoder;
use tokio_util::sync::CancellationToken;

use super::consumers::Outlet;
use super::handshake::Greeted;
use super::inbox::{Inbox, News};
use super::intake::Intake;
use super::lookups::Lookups;
use super::outbox::Outbox;
use super::writer::Writer;
use super::{LINGER, Service, shutting_down};
use crate::login::Access;
use crate::memory::Pool;
use crate::publish::{Dispatch, Dispatcher, Publisher, Routes, Stalled};
use crate::shard::input::{ConsumerSettle, PublishOrigin, ShardInput};

pub(super) use settling::no_such_consumer;

/// Size of the read buffer of a busy connection: a window of small messages comes in one piece.
const READ_BYTES: usize = 64 * 1024;

/// Size of the read buffer of a connection that has not filled one yet: ten thousand idle ones cost this much each.
const READ_BYTES_IDLE: usize = 2 * 1024;

/// Runs of messages and settles that are taken before others have their turn.
const FRAMES_A_TURN: usize = 64;

/// A request counts for so many of them: each is work of its own, and a client that asks without end is to slow itself.
const FRAMES_A_REQUEST: usize = 16;

/// A new buffer is taken when less than this part of the last one is left. Messages keep the buffer that they arrived in: with a
/// new one for each read, a small message would hold a whole buffer until it is confirmed.
const READ_PART_MIN: usize = 8;

/// How often publishes that wait for an answer are looked at, for their deadlines.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the catalog may take to find out about an unknown name.
pub(super) const CATCH_UP_FOR: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Session<S> {
    pub service: Arc<Service>,
    pub host: VirtualHost,
    /// Whom the client's verified certificate names, for whoever asks who this is.
    pub certificate: Option<CertificateIdentity>,
    pub access: Access,
    pub from: Option<IpAddr>,
    /// Nobody between can read what is sent.
    pub secured: bool,
    /// Of the users, when it was last looked what that means for this connection.
    pub users_version: u64,
    socket: ReadHalf<S>,
    codec: FrameCodec<ClientFrame>,
    arrived: BytesMut,
    /// Size of the next read buffer.
    read_bytes: usize,
    intake: Intake,
    /// Producers wait for credit that nothing else would bring them.
    credit_owed: bool,
    /// Producers of this connection that were told so.
    withheld: u64,
    pub outbox: Arc<Outbox>,
    pub inbox: Arc<Inbox>,
    pub publisher: Publisher,
    dispatcher: Dispatcher,
    dispatches: Vec<Dispatch>,
    stalled: Stalled,
    routes: Routes,
    /// Publishes to unknown names, and what came behind them.
    parked: Vec<Publish>,
    parked_bytes: usize,
    pub consumers: HashMap<ConsumerHandle, Arc<Outlet>>,
    /// Settles of this turn, by shard.
    settles: Vec<Vec<ConsumerSettle>>,
    pub requests: JoinSet<Finished>,
    pub lookups: Lookups,
    /// Nothing more is read for now: see [`Session::has_to_wait`].
    pub held_up: bool,
    changes: watch::Receiver<u64>,
    bytes_open: u64,
    heard: tokio::time::Instant,
    /// When deadlines are looked at next. A time, not a pause: on a busy connection a pause would begin anew for ever.
    look_at: tokio::time::Instant,
    frames: Vec<BrokerFrame>,
}

/// What a task of a connection was.
pub(super) enum Finished {
    /// A look-up: the next may begin.
    Lookup,
    /// Something that nothing waits for.
    Other,
}

/// Why a connection ends.
enum End {
    /// The client left, or is gone.
    Left,
    /// The client is told why.
    Said(ErrorBody),
    /// The user who logged in is none any more, or another.
    LoggedOut(ErrorBody),
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Session<S> {
    /// Serves a client that has said hello.
    pub async fn serve(
        socket: S,
        greeted: Greeted,
        service: Arc<Service>,
        shutdown: CancellationToken,
    ) {
        let (read, write) = tokio::io::split(socket);
        let outbox = Arc::new(Outbox::new(
            usize::try_from(service.limits.outbox_bytes_max).unwrap_or(usize::MAX),
            Arc::clone(&service.metrics),
        ));
        let inbox = Arc::new(Inbox::default());
        let writer = Writer::new(
            write,
            Arc::clone(&service),
            Arc::clone(&outbox),
            Arc::clone(&inbox),
            greeted.heartbeat(),
        );
        let writer = tokio::spawn(writer.run());
        let origin: Arc<dyn PublishOrigin> = Arc::clone(&inbox) as Arc<dyn PublishOrigin>;
        let dispatcher = Dispatcher::new(
            service.catalog.me(),
            Arc::clone(&service.shards),
            Arc::clone(&service.peers),
            origin,
        );
        let session = Session {
            access: Access::new(greeted.user, greeted.hello.virtual_host.clone()),
            from: greeted.from,
            secured: greeted.secured,
            // It was looked at before the handshake's end: looked at again before anything is done.
            users_version: u64::MAX,
            host: greeted.hello.virtual_host,
            certificate: greeted.certificate,
            socket: read,
            codec: greeted.codec,
            arrived: greeted.arrived,
            read_bytes: READ_BYTES_IDLE,
            intake: Intake::new(
                &service.metrics,
                service.frame_room.clone(),
                service.limits.bounds.frame_timeout,
            ),
            credit_owed: false,
            withheld: 0,
            outbox: Arc::clone(&outbox),
            inbox,
            publisher: Publisher::new(service.publish_limits()),
            dispatcher,
            dispatches: Vec::new(),
            stalled: Stalled::default(),
            routes: Routes::default(),
            parked: Vec::new(),
            parked_bytes: 0,
            consumers: HashMap::new(),
            settles: (0..service.shards.shards()).map(|_| Vec::new()).collect(),
            requests: JoinSet::new(),
            lookups: Lookups::default(),
            held_up: false,
            changes: service.catalog.changes(),
            bytes_open: 0,
            heard: tokio::time::Instant::now(),
            look_at: tokio::time::Instant::now() + LOOK_EVERY,
            frames: Vec::new(),
            service,
        };
        session.run(shutdown).await;
        // What is owed is still written, for a while.
        let abort = writer.abort_handle();
        if timeout(LINGER, writer).await.is_err() {
            abort.abort();
        }
        outbox.abandon();
    }

    async fn run(mut self, shutdown: CancellationToken) {
        let end = self.read(&shutdown).await;
        if matches!(end, End::LoggedOut(_)) {
            // Nothing is delivered to it any more; but what it asked for while it might is answered: else who deletes their
            // own user, or changes its password, would never hear that it is done.
            self.leave().await;
            let answered = async { while self.requests.join_next().await.is_some() {} };
            if timeout(LINGER, answered).await.is_err() {
                tracing::debug!("requests of a user who is gone stay unanswered");
            }
            self.requests.shutdown().await;
        } else {
            self.requests.shutdown().await;
            self.leave().await;
        }
        let reason = match end {
            End::Left => None,
            End::Said(error) | End::LoggedOut(error) => {
                let certificate = self.certificate.as_ref().map(|named| named.name.as_str());
                tracing::debug!(reason = %error.message, certificate, "a client connection was closed");
                Some(error)
            }
        };
        self.outbox.end(reason);
    }

    /// All that can happen to a connection.
    async fn read(&mut self, shutdown: &CancellationToken) -> End {
        if let Err(end) = self.take_frames().await {
            return end;
        }
        loop {
            let wake = self.wake_at();
            let shards = Arc::clone(&self.service.shards);
            let stalled = self.stalled.shards.first().copied();
            let deadline = self.heard + self.service.heartbeat * 2;
            let frame_deadline = self.intake.deadline();
            let reads = self.intake.reads();
            if reads {
                self.make_room();
            }
            tokio::select! {
                read = self.socket.read_buf(&mut self.arrived), if reads => match read {
                    Ok(0) | Err(_) => return End::Left,
                    Ok(_) => {
                        self.heard = tokio::time::Instant::now();
                        if let Err(end) = self.take_frames().await {
                            return end;
                        }
                    }
                },
                () = self.intake.room() => self.heard = tokio::time::Instant::now(),
                () = sleep_until(frame_deadline) => return End::Said(self.intake.late()),
                () = self.inbox.arrived() => {}
                changed = self.changes.changed() => {
                    if changed.is_err() {
                        return End::Said(shutting_down());
                    }
                    self.publisher.look_again();
                    if let Err(error) = self.heed_users().await {
                        return End::LoggedOut(error);
                    }
                }
                () = sleep_until(wake) => {
                    self.look_at = tokio::time::Instant::now() + LOOK_EVERY;
                    self.publisher.tick();
                }
                () = room(&shards, stalled) => self.publisher.tick(),
                Some(finished) = self.requests.join_next() => {
                    self.finished(finished);
                }
                // One that is not read cannot be heard.
                () = tokio::time::sleep_until(deadline), if reads => return End::Said(silent(self.service.heartbeat * 2)),
                () = shutdown.cancelled() => return End::Said(shutting_down()),
            }
            let news = self.inbox.take();
            if news.writer_gone {
                return End::Left;
            }
            self.take_news(news).await;
            if self.held_up && !self.has_to_wait() {
                // What had arrived behind them is still there.
                self.held_up = false;
                if let Err(end) = self.take_frames().await {
                    return end;
                }
            }
            self.pump();
            self.look_up();
        }
    }

    fn finished(&mut self, finished: Result<Finished, JoinError>) {
        match finished {
            Ok(Finished::Lookup) => self.lookups.done(),
            Ok(Finished::Other) => {}
            Err(error) => {
                tracing::error!(%error, "a request broke off and stays unanswered");
                // Whichever it was: one look-up too many at work is better than none ever again.
                self.lookups.done();
            }
        }
    }

    /// When the publisher wants to be woken.
    fn wake_at(&self) -> Option<tokio::time::Instant> {
        let looks = self.publisher.bytes_open() > 0 || self.credit_owed;
        let look = looks.then_some(self.look_at);
        let held = self.publisher.wake_at().map(tokio::time::Instant::from_std);
        match (look, held) {
            (Some(look), Some(held)) => Some(look.min(held)),
            (look, held) => look.or(held),
        }
    }

    /// Room in the read buffer: little until a connection has shown that it needs more.
    fn make_room(&mut self) {
        if self.arrived.capacity() - self.arrived.len() < self.read_bytes / READ_PART_MIN {
            self.arrived.reserve(self.read_bytes);
        }
    }

    /// A client that only says that it lives needs no large buffer any more: thousands of them may have been busy once.
    fn rest(&mut self) {
        self.read_bytes = READ_BYTES_IDLE;
        if self.arrived.is_empty() {
            self.arrived = BytesMut::new();
        }
    }

    async fn take_frames(&mut self) -> Result<(), End> {
        // Once a turn: what was revoked is not done any more, however much this client sends.
        self.heed_users().await.map_err(End::LoggedOut)?;
        let filled = self.arrived.len() == self.arrived.capacity();
        let (mut taken, mut turn) = (false, 0);
        while !self.held_up {
            match self.codec.decode(&mut self.arrived) {
                Ok(Some(frame)) => {
                    turn += match frame {
                        ClientFrame::Request { .. } | ClientFrame::UnreadableRequest { .. } => {
                            FRAMES_A_REQUEST
                        }
                        _ => 1,
                    };
                    self.take(frame).await?;
                    taken = true;
                    if turn >= FRAMES_A_TURN {
                        turn = 0;
                        tokio::task::yield_now().await;
                    }
                    self.held_up = self.has_to_wait();
                }
                Ok(None) => break,
                Err(CodecError::Frame(error)) => return Err(End::Said(error.into())),
                Err(CodecError::Io(_)) => return Err(End::Left),
            }
        }
        if filled && taken {
            self.grow();
        }
        match self.held_up {
            // Whole frames may be left, which need no room.
            true => self.intake.count(&self.arrived),
            false => self.intake.look(&self.arrived, taken, self.read_bytes),
        }
        self.send_settles().await;
        Ok(())
    }

    /// Whether answers have to be made, or read by the client, before more is read from it, or publishes routed. The writer wakes this
    /// when enough is written, and so does each look-up that ends, and the catalog when it has caught up.
    fn has_to_wait(&self) -> bool {
        self.lookups.are_many() || self.outbox.has_to_wait() || self.has_parked_much()
    }

    /// A larger read buffer for a connection that has filled the one it had, with frames and not with a part of one.
    fn grow(&mut self) {
        if !self.service.metrics.memory.is_full(Pool::Connections) {
            self.read_bytes = READ_BYTES.min(self.read_bytes * 4);
        }
    }

    async fn take(&mut self, frame: ClientFrame) -> Result<(), End> {
        match frame {
            ClientFrame::Publish(publish) => self.publish(publish),
            ClientFrame::Settle(settle) => self.settle(settle),
            ClientFrame::Request { id, request } => {
                // A detach must not overtake the settles before it.
                self.send_settles().await;
                self.request(id, request).await;
            }
            ClientFrame::UnreadableRequest { id, error } => {
                self.outbox.push(BrokerFrame::Failure { id, error })
            }
            ClientFrame::Heartbeat => {
                self.outbox.rest();
                self.rest();
            }
            ClientFrame::Goodbye => return Err(End::Left),
            ClientFrame::Authenticate(_) => {
                let words = "Authenticate answers a Challenge, and there was none";
                return Err(End::Said(ErrorBody::not_done(ErrorCode::UnexpectedFrame, words)));
            }
            ClientFrame::Hello(_) => {
                let words = "Hello is the first frame of a connection and cannot come again";
                return Err(End::Said(ErrorBody::not_done(ErrorCode::UnexpectedFrame, words)));
            }
        }
        Ok(())
    }

    async fn take_news(&mut self, news: News) {
        if !news.outcomes.is_empty() {
            self.publisher.outcomes(Instant::now(), news.outcomes);
        }
        for (shard, input) in news.for_shards {
            self.service.shards.send(shard, input).await;
        }
        if news.caught_up {
            self.publish_parked();
        }
    }

    /// Everything this connection holds goes back.
    async fn leave(&mut self) {
        self.send_settles().await;
        let metrics = &self.service.metrics;
        metrics.publish_bytes_in_flight.subtract(self.bytes_open);
        metrics.producers.subtract(self.publisher.attached() as u64);
        metrics.producers_withheld.subtract(self.withheld);
        for outlet in self.consumers.values() {
            outlet.close();
            if let Some(queue) = outlet.queue() {
                let shard = self.service.shards.shard_of(queue);
                self.service
                    .shards
                    .send(shard, ShardInput::Detach { queue, consumer: outlet.key })
                    .await;
            }
        }
    }
}

fn silent(after: Duration) -> ErrorBody {
    let words = format!(
        "nothing was heard for {} s; send a Heartbeat when there is nothing to say",
        after.as_secs_f32()
    );
    ErrorBody::not_done(ErrorCode::HeartbeatMissed, words)
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}

async fn room(shards: &Arc<dyn crate::publish::ShardGate>, shard: Option<usize>) {
    match shard {
        Some(shard) => shards.room(shard).await,
        None => pending().await,
    }
}
