//! One way from a process to another, through a TCP proxy that does to it what networks do: bytes are held back, late or slow, connects
//! hang, and nothing is ever closed that the two ends have not closed. Who is not there refuses, as without the proxy.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::relay::relay;
use crate::ports::Port;

/// Connections that wait to be accepted. Small, so that it is soon filled when connects are to hang.
const BACKLOG: u32 = 8;
/// A connect on loopback that takes longer found no room to wait.
const HANGS_AFTER: Duration = Duration::from_millis(30);
/// How often a process that is not there is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Ends of connections that wait to be passed on.
const ENDS_MAX: usize = 64;

/// One direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lane {
    /// Nothing arrives.
    pub held: bool,
    /// Everything arrives so much later.
    pub delay: Duration,
    /// No more a second than this.
    pub bytes_per_second: Option<u32>,
}

/// Both of them: from who connects, and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    pub there: Lane,
    pub back: Lane,
}

impl Weather {
    /// A connection cannot be made when either direction is cut.
    fn connects_hang(self) -> bool {
        self.there.held || self.back.held
    }
}

/// The proxy. Lives until it is dropped.
#[derive(Debug)]
pub struct Link {
    port: Port,
    weather: watch::Sender<Weather>,
    proxy: JoinHandle<()>,
}

impl Link {
    /// To whoever listens on `port` of loopback.
    pub fn to(server: u16) -> Result<Link> {
        let port = Port::take()?;
        let weather = watch::Sender::new(Weather::default());
        let proxy = Proxy {
            port: port.number(),
            server: SocketAddr::from(([127, 0, 0, 1], server)),
            weather: weather.subscribe(),
        };
        let proxy = tokio::spawn(proxy.run());
        Ok(Link { port, weather, proxy })
    }

    /// Where it is entered.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Changes the weather.
    pub fn change(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.proxy.abort();
    }
}

/// A connection's far end has closed it: answered when it may be passed on.
pub(super) type Ended = oneshot::Sender<()>;

struct Proxy {
    port: u16,
    server: SocketAddr,
    weather: watch::Receiver<Weather>,
}

impl Proxy {
    async fn run(mut self) {
        let (ends, mut ended) = mpsc::channel::<Ended>(ENDS_MAX);
        // None while the process behind it is not there: then connects are refused.
        let mut listener = None;
        // They take all the room there is to wait in, while connects are to hang.
        let mut fillers: Vec<TcpStream> = Vec::new();
        let mut is_full = false;
        loop {
            let hang = self.weather.borrow_and_update().connects_hang();
            is_full &= hang && listener.is_some();
            if hang && listener.is_none() {
                listener = listen(self.port).await;
            }
            if hang && !is_full {
                // Those of the last time are kept until now, to be known when they are accepted.
                fillers = fill(self.port).await;
                is_full = true;
            }
            tokio::select! {
                changed = self.weather.changed() => if changed.is_err() { return },
                client = accept(listener.as_ref()), if !hang => {
                    let is_filler = |client: &TcpStream| fillers.iter().any(|filler| filler.local_addr().ok() == client.peer_addr().ok());
                    if is_filler(&client) {
                        continue;
                    }
                    match TcpStream::connect(self.server).await {
                        Ok(server) => {
                            tokio::spawn(relay(client, server, self.weather.clone(), ends.clone()));
                        }
                        Err(_) => {
                            listener = None;
                            client.set_zero_linger().ok();
                        }
                    }
                }
                // A process that dies closes its connections. Who hears that must find its address closed, too.
                Some(told) = ended.recv(), if !hang => {
                    if TcpStream::connect(self.server).await.is_err() {
                        listener = None;
                    }
                    told.send(()).ok();
                }
                () = there(self.server), if !hang && listener.is_none() => {
                    listener = listen(self.port).await;
                }
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    match listener {
        Some(listener) => loop {
            if let Ok((client, _)) = listener.accept().await {
                return client;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        },
        None => std::future::pending().await,
    }
}

async fn there(server: SocketAddr) {
    while TcpStream::connect(server).await.is_err() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn listen(port: u16) -> Option<TcpListener> {
    let listening = || -> std::io::Result<TcpListener> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
        socket.listen(BACKLOG)
    };
    match listening() {
        Ok(listener) => Some(listener),
        Err(error) => {
            // Tried again at once: the process behind it is there.
            tracing::warn!(%error, port, "a proxy cannot listen");
            tokio::time::sleep(LOOK_EVERY).await;
            None
        }
    }
}

/// Connections that nobody accepts, until there is no room for one more: then the system answers no connect any more.
async fn fill(port: u16) -> Vec<TcpStream> {
    let mut fillers = Vec::new();
    for _ in 0..=2 * BACKLOG {
        let connect = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)));
        match tokio::time::timeout(HANGS_AFTER, connect).await {
            Ok(Ok(filler)) => fillers.push(filler),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    fillers
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::eventually::eventually;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn linked() -> (Link, Port, TcpListener) {
        let port = Port::take().unwrap();
        let server = listen(port.number()).await.unwrap();
        (Link::to(port.number()).unwrap(), port, server)
    }

    async fn connect(link: &Link) -> Result<TcpStream> {
        Ok(TcpStream::connect(("127.0.0.1", link.port())).await?)
    }

    #[tokio::test]
    async fn what_is_cut_in_one_direction_passes_in_the_other_and_arrives_when_it_is_healed() {
        let (link, _port, server) = linked().await;
        let mut client =
            eventually("a way", PATIENCE, async || connect(&link).await).await.unwrap();
        client.write_all(b"a").await.unwrap();
        // The proxy looks whether the process is there before it lets anyone in.
        let mut far = loop {
            let (mut far, _) = server.accept().await.unwrap();
            if far.read_u8().await.is_ok() {
                break far;
            }
        };
        link.change(|weather| weather.there.held = true);
        client.write_all(b"b").await.unwrap();
        far.write_all(b"c").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'c');
        eventually("connects to hang", PATIENCE, async || {
            let hangs =
                tokio::time::timeout(Duration::from_millis(100), connect(&link)).await.is_err();
            anyhow::ensure!(hangs, "connected");
            Ok(())
        })
        .await
        .unwrap();
        let healed = Instant::now();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            link.change(|weather| weather.there.held = false);
            std::future::pending::<()>().await;
        });
        assert_eq!(far.read_u8().await.unwrap(), b'b');
        assert!(healed.elapsed() >= Duration::from_millis(50));
    }

    #[tokio::test]
    async fn who_is_gone_closes_its_connections_and_then_refuses() {
        let (link, port, server) = linked().await;
        let mut client =
            eventually("a way", PATIENCE, async || connect(&link).await).await.unwrap();
        client.write_all(b"a").await.unwrap();
        let far = loop {
            let (mut far, _) = server.accept().await.unwrap();
            if far.read_u8().await.is_ok() {
                break far;
            }
        };
        drop(server);
        drop(far);
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
        assert!(connect(&link).await.is_err(), "its address is closed before its connections are");
        let _server = listen(port.number()).await.unwrap();
        eventually("a way", PATIENCE, async || connect(&link).await).await.unwrap();
    }
}
