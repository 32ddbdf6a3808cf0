//! A socket that takes bytes and keeps them to itself until it is flushed, as TLS does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;

use super::*;

/// Bytes that it keeps at most.
const KEPT_MAX: usize = 64 * 1024;

struct Keeping {
    pipe: DuplexStream,
    kept: BytesMut,
}

impl AsyncRead for Keeping {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Keeping {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.kept.len() >= KEPT_MAX {
            ready!(self.as_mut().poll_flush(cx))?;
        }
        let taken = bytes.len().min(KEPT_MAX - self.kept.len());
        self.kept.extend_from_slice(&bytes[..taken]);
        // As much of it goes on at once as can.
        let _some_stays = self.poll_flush(cx)?;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while !this.kept.is_empty() {
            let written = ready!(Pin::new(&mut this.pipe).poll_write(cx, &this.kept))?;
            let _gone = this.kept.split_to(written);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

async fn world() -> World {
    world_with(Limits::default()).await
}

async fn world_with(limits: Limits) -> World {
    let keeping = |pipe| Keeping { pipe, kept: BytesMut::new() };
    let mut world = World::over(timing(), limits, false, Origin::default(), keeping).await;
    world.send(ClientFrame::Hello(hello())).await;
    assert!(matches!(world.next().await, BrokerFrame::Welcome(_)));
    world
}

/// Everything the broker sends from now to its end.
async fn rest(world: &mut World) -> Vec<u8> {
    let mut rest = Vec::new();
    timeout(PATIENCE, world.client.get_mut().read_to_end(&mut rest)).await.unwrap().unwrap();
    rest
}

/// The socket has taken all of the delivery, of which its client has read nothing. The leader is deposed; its successor delivers the
/// messages to somebody else, who settles them. Neither the client's next read nor the connection's end may bring the rest.
#[tokio::test]
async fn what_the_socket_keeps_to_itself_is_not_sent_when_the_lease_is_over() {
    let mut world = world().await;
    let consumer = world.attach_consumer().await;
    // The pipe takes 256 KiB, the socket keeps what is beyond.
    let ends = lease();
    let whole = 256 * 1024 + KEPT_MAX / 2;
    consumer.sink.deliver(Epoch(1), ends.clone(), vec![run(0, big(whole))]);
    let mut first = [0];
    world.client.get_mut().read_exact(&mut first).await.unwrap();
    ends.end();
    let rest = rest(&mut world).await;
    assert!(rest.len() < whole, "{} of {whole} bytes", rest.len());
}

#[tokio::test]
async fn what_the_socket_keeps_to_itself_is_sent_while_the_lease_holds() {
    let mut world = world().await;
    let consumer = world.attach_consumer().await;
    for offset in 0..3 {
        consumer.sink.deliver(Epoch(1), lease(), vec![run(offset, big(300_000))]);
    }
    for offset in 0..3 {
        assert_eq!(world.delivered().await, Offset(offset));
    }
}

/// A client reads nothing, until it is given up while the lease holds. Were the end of the connection to push on what the socket
/// keeps to itself, nobody would look at the lease meanwhile: the leader is deposed, the successor delivers the messages to somebody
/// else, who settles them, and then the client reads on (promise G3).
#[tokio::test(start_paused = true)]
async fn what_the_socket_keeps_to_itself_is_not_sent_with_the_connections_end() {
    let write_timeout = Duration::from_secs(4);
    let bounds = crate::config::Bounds { write_timeout, ..Default::default() };
    let mut world = world_with(Limits { bounds, ..Limits::default() }).await;
    let consumer = world.attach_consumer().await;
    let ends = lease();
    let whole = 256 * 1024 + KEPT_MAX / 2;
    consumer.sink.deliver(Epoch(1), ends.clone(), vec![run(0, big(whole))]);
    let mut first = [0];
    world.client.get_mut().read_exact(&mut first).await.unwrap();
    // Given up for not reading; the end might take as long again.
    tokio::time::sleep(write_timeout + write_timeout / 2).await;
    ends.end();
    let rest = rest(&mut world).await;
    assert!(rest.len() < whole, "{} of {whole} bytes", rest.len());
}
