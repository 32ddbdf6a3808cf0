//! The attacks: each a task that connects, does its worst, and comes again when it is thrown out.

use std::time::Duration;

use anyhow::Result;
use bellwether_protocol::Frame;
use bellwether_protocol::client::{ClientFrame, Hello, Request, VERSIONS};
use bellwether_protocol::ids::RequestId;
use bellwether_protocol::names::VirtualHost;
use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How soon an attacker that was thrown out comes again.
const AGAIN: Duration = Duration::from_millis(20);
/// How slowly a slow one is.
const SLOW: Duration = Duration::from_millis(500);

/// A kind of attack.
#[derive(Clone, Copy, Debug)]
pub enum Attack {
    /// Says nothing before its hello.
    Silent,
    /// Sends its hello a byte at a time.
    SlowLoris,
    /// Announces a frame of 4 GiB before its hello.
    Bomb,
    /// Says hello, announces a frame of 16 MiB and sends half of it.
    HalfFrames,
    /// Says hello, asks without end and reads nothing.
    NeverReads,
}

/// All of them.
pub const ALL: [Attack; 5] =
    [Attack::Silent, Attack::SlowLoris, Attack::Bomb, Attack::HalfFrames, Attack::NeverReads];

/// Attackers at work.
pub struct Attackers(JoinSet<()>);

impl Attackers {
    /// Calls them off.
    pub async fn end(mut self) {
        self.0.shutdown().await;
    }
}

impl Attack {
    pub fn name(self) -> &'static str {
        match self {
            Attack::Silent => "silent strangers",
            Attack::SlowLoris => "a byte at a time",
            Attack::Bomb => "announced bombs",
            Attack::HalfFrames => "half frames",
            Attack::NeverReads => "asks and never reads",
        }
    }

    pub fn begin(self, address: &str, attackers: usize) -> Attackers {
        let mut tasks = JoinSet::new();
        for _ in 0..attackers {
            let address = address.to_owned();
            tasks.spawn(async move {
                loop {
                    // Being thrown out is what an attacker expects.
                    if let Err(error) = self.once(&address).await {
                        tracing::debug!(%error, "thrown out");
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            });
        }
        Attackers(tasks)
    }

    async fn once(self, address: &str) -> Result<()> {
        let mut socket = TcpStream::connect(address).await?;
        match self {
            Attack::Silent => socket.readable().await?,
            Attack::SlowLoris => {
                for byte in hello() {
                    socket.write_all(&[byte]).await?;
                    tokio::time::sleep(SLOW).await;
                }
            }
            Attack::Bomb => {
                socket.write_all(&[0xff; 1024]).await?;
                socket.readable().await?;
            }
            Attack::HalfFrames => {
                socket.write_all(&hello()).await?;
                socket.write_all(&[0, 0xff, 0xff, 0xff, 3]).await?;
                let piece = vec![0; 64 * 1024];
                for _ in 0..128 {
                    socket.write_all(&piece).await?;
                }
                // Until it is thrown out.
                tokio::io::copy(&mut socket, &mut tokio::io::sink()).await?;
            }
            Attack::NeverReads => {
                socket.write_all(&hello()).await?;
                let mut asks = BytesMut::new();
                for id in 0..100 {
                    let request = Request::ListExchanges;
                    ClientFrame::Request { id: RequestId(id), request }.encode(&mut asks);
                }
                loop {
                    socket.write_all(&asks).await?;
                }
            }
        }
        Ok(())
    }
}

fn hello() -> BytesMut {
    let mut bytes = BytesMut::new();
    ClientFrame::Hello(Hello {
        version_min: *VERSIONS.start(),
        version_max: *VERSIONS.end(),
        client_name: "siege".to_owned(),
        heartbeat_ms: 0,
        virtual_host: VirtualHost::default(),
        login: None,
    })
    .encode(&mut bytes);
    bytes
}
