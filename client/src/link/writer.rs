//! The writing task of a connection: collects everything that is waiting and writes it at once. What comes
//! while a write is under way goes into the next one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bellwether_protocol::client::ClientFrame;
use bellwether_protocol::frame::Frame;
use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Link;
use super::outbox::Collected;

/// A write buffer that has grown beyond this for a large message is given back.
const BUFFER_BYTES_KEPT: usize = 1024 * 1024;

/// How long a goodbye may take when the client is dropped.
const GOODBYE_PATIENCE: Duration = Duration::from_millis(500);

/// Writes until the connection ends or the client is dropped.
pub(super) async fn run<W: AsyncWrite + Unpin>(
    link: Arc<Link>,
    mut socket: W,
    closing: CancellationToken,
) {
    let writing = write(&link, &mut socket);
    tokio::pin!(writing);
    let done = tokio::select! {
        done = &mut writing => done,
        () = link.closed() => return,
        () = closing.cancelled() => {
            link.close();
            // The write under way goes on: a goodbye in the middle of a frame would be garbage.
            match tokio::time::timeout(GOODBYE_PATIENCE, writing).await {
                Ok(done) => done,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            }
        }
    };
    match done {
        Ok(()) => link.fail("this client said goodbye"),
        Err(error) => link.fail(error.to_string()),
    }
}

async fn write<W: AsyncWrite + Unpin>(link: &Link, socket: &mut W) -> io::Result<()> {
    // Half of what the broker expects, so that one late tick is no missed heartbeat.
    let heartbeat = Duration::from_millis(u64::from(link.welcome.heartbeat_ms.max(2)) / 2);
    let mut out = BytesMut::new();
    let mut written = Instant::now();
    loop {
        let collected = link.outbox.collect(link.id, |frame| link.requests.taken(frame), &mut out);
        if out.is_empty() {
            tokio::select! {
                () = link.outbox.filled() => continue,
                () = tokio::time::sleep_until(written + heartbeat), if link.welcome.heartbeat_ms > 0 => {
                    ClientFrame::Heartbeat.encode(&mut out);
                }
            }
        }
        socket.write_all(&out).await?;
        // TLS may hold on to the end of what was written.
        socket.flush().await?;
        written = Instant::now();
        if collected == Collected::Last {
            return socket.shutdown().await;
        }
        out.clear();
        if out.capacity() > BUFFER_BYTES_KEPT {
            out = BytesMut::new();
        }
    }
}
