//! The reading task of a connection: cuts frames, hands them on, and gives a silent broker up.

use std::sync::Arc;
use std::time::Duration;

use bellwether_protocol::FrameCodec;
use bellwether_protocol::client::BrokerFrame;
use bellwether_protocol::frame::Limits;
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::codec::Decoder;

use super::Link;

/// Room made for each read, in bytes. Bodies share it, so it is also what a small body that the application keeps
/// can hold on to.
const READ_BYTES: usize = 64 * 1024;

/// Reads until the connection ends. Always read: a client that stopped reading would stop its own confirms.
pub(super) async fn run<R: AsyncRead + Unpin>(
    link: Arc<Link>,
    mut socket: R,
    mut arrived: BytesMut,
    heartbeat: Duration,
) {
    let limits = Limits { frame_bytes_max: link.welcome.frame_bytes_max as usize };
    let mut codec = FrameCodec::<BrokerFrame>::new(limits);
    loop {
        if let Err(why) = hand_on(&link, &mut codec, &mut arrived) {
            return link.fail(why);
        }
        if arrived.capacity() - arrived.len() < READ_BYTES / 4 {
            arrived.reserve(READ_BYTES);
        }
        tokio::select! {
            // Twice the heartbeat: one may be late, two are not.
            read = tokio::time::timeout(2 * heartbeat, socket.read_buf(&mut arrived)) => match read {
                Ok(Ok(0)) => return link.fail("the broker closed it"),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return link.fail(error.to_string()),
                Err(_) => return link.fail(format!("nothing was heard for {:?}", 2 * heartbeat)),
            },
            () = link.closed() => return,
        }
    }
}

fn hand_on(
    link: &Link,
    codec: &mut FrameCodec<BrokerFrame>,
    arrived: &mut BytesMut,
) -> Result<(), String> {
    while let Some(frame) = codec.decode(arrived).map_err(|error| error.to_string())? {
        link.dispatch(frame)?;
    }
    Ok(())
}
