//! Carries the bytes of one connection in both directions, as late and as slowly as the weather is.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use super::link::{Ended, Lane, Weather};

/// Bytes that are carried at once.
const PIECE_BYTES: usize = 16 * 1024;
/// Pieces under way: 4 MiB, about what the buffers of two sockets hold. Then the sender has to wait.
const PIECES_MAX: usize = 256;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

enum Piece {
    Bytes(Instant, Bytes),
    End(End),
}

pub(super) async fn relay(
    client: TcpStream,
    server: TcpStream,
    weather: watch::Receiver<Weather>,
    ends: mpsc::Sender<Ended>,
) {
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let (from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let end = {
        let there =
            carry(from_client, &mut to_server, weather.clone(), |weather| weather.there, None);
        let back = carry(from_server, &mut to_client, weather, |weather| weather.back, Some(ends));
        tokio::pin!(there, back);
        tokio::select! {
            end = &mut there => if end == End::Reset { end } else { back.await },
            end = &mut back => if end == End::Reset { end } else { there.await },
        }
    };
    if end == End::Reset {
        to_client.as_ref().set_zero_linger().ok();
        to_server.as_ref().set_zero_linger().ok();
    }
}

/// One direction, to its end. `ends` is asked before the end is passed on.
async fn carry(
    from: OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    lane: fn(&Weather) -> Lane,
    ends: Option<mpsc::Sender<Ended>>,
) -> End {
    let (pieces, mut arriving) = mpsc::channel(PIECES_MAX);
    let reading = take(from, pieces);
    let writing = async {
        while let Some(piece) = arriving.recv().await {
            let Ok(now) =
                weather.wait_for(|weather| !lane(weather).held).await.map(|now| lane(&now))
            else {
                return End::Reset;
            };
            let bytes = match piece {
                Piece::Bytes(sent, bytes) => {
                    tokio::time::sleep_until((sent + now.delay).into()).await;
                    bytes
                }
                Piece::End(end) => {
                    passed_on(ends.as_ref()).await;
                    if end == End::Closed && to.shutdown().await.is_err() {
                        return End::Reset;
                    }
                    return end;
                }
            };
            if let Some(per_second) = now.bytes_per_second {
                let takes =
                    Duration::from_secs(1).mul_f64(bytes.len() as f64 / f64::from(per_second));
                tokio::time::sleep(takes).await;
            }
            if to.write_all(&bytes).await.is_err() {
                return End::Reset;
            }
        }
        End::Reset
    };
    tokio::pin!(reading, writing);
    tokio::select! {
        end = &mut writing => end,
        () = &mut reading => writing.await,
    }
}

async fn take(mut from: OwnedReadHalf, pieces: mpsc::Sender<Piece>) {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let piece = match from.read(&mut buffer).await {
            Ok(0) => Piece::End(End::Closed),
            Ok(length) => Piece::Bytes(Instant::now(), Bytes::copy_from_slice(&buffer[..length])),
            Err(_) => Piece::End(End::Reset),
        };
        let is_last = matches!(piece, Piece::End(_));
        if pieces.send(piece).await.is_err() || is_last {
            return;
        }
    }
}

async fn passed_on(ends: Option<&mpsc::Sender<Ended>>) {
    let Some(ends) = ends else { return };
    let (told, may) = oneshot::channel();
    if ends.send(told).await.is_ok() {
        // An error says that the proxy is gone: nobody is left to wait for.
        may.await.ok();
    }
}
