//! The attacks: each a task that connects, does its worst, and comes again when it is thrown out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use bellwether_client::Client;
use bellwether_protocol::Frame;
use bellwether_protocol::client::{ClientFrame, Hello, Request, VERSIONS};
use bellwether_protocol::ids::{ConsumerHandle, RequestId};
use bellwether_protocol::names::{QueueName, VirtualHost};
use bytes::BytesMut;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How soon an attacker that was thrown out comes again.
const AGAIN: Duration = Duration::from_millis(20);
/// How slowly a slow one is.
const SLOW: Duration = Duration::from_millis(500);

/// The queue that those who consume consume from.
const FEED: &str = "siege-feed";
/// Messages in it: more than all sockets and the broker's outboxes are to hold.
const FEED_MESSAGES: usize = 4_000;
/// Bytes of each.
const FEED_BYTES: usize = 16 * 1024;

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
    /// Says hello, announces frames of 60 KiB and sends half of each.
    SmallHalves,
    /// Says hello, asks without end and reads nothing.
    NeverReads,
    /// Asks without end and reads all of it.
    AsksAndReads,
    /// Says hello, consumes from a full queue and reads nothing.
    NeverConsumes,
}

/// All of them.
pub const ALL: [Attack; 8] = [
    Attack::Silent,
    Attack::SlowLoris,
    Attack::Bomb,
    Attack::HalfFrames,
    Attack::SmallHalves,
    Attack::NeverReads,
    Attack::AsksAndReads,
    Attack::NeverConsumes,
];

/// How little the attackers get of the processors: they have machines of their own where they are real. What is measured is what
/// the broker does for them, and not what it costs to be them.
const NICE: i32 = 10;

/// Attackers at work, on a thread of their own.
pub struct Attackers {
    called_off: CancellationToken,
    thread: std::thread::JoinHandle<()>,
    count: Arc<Count>,
}

/// How often they came, and how often they were thrown out.
#[derive(Debug, Default)]
struct Count {
    came: AtomicU64,
    thrown_out: AtomicU64,
}

impl Attackers {
    /// Calls them off; says how often they came and how often they were thrown out.
    pub async fn end(self) -> Result<(u64, u64)> {
        let Attackers { called_off, thread, count } = self;
        called_off.cancel();
        let ended = tokio::task::spawn_blocking(move || thread.join()).await?;
        ensure!(ended.is_ok(), "the attackers broke off");
        Ok((count.came.load(Ordering::Relaxed), count.thrown_out.load(Ordering::Relaxed)))
    }
}

impl Attack {
    pub fn name(self) -> &'static str {
        match self {
            Attack::Silent => "silent strangers",
            Attack::SlowLoris => "a byte at a time",
            Attack::Bomb => "announced bombs",
            Attack::HalfFrames => "half frames",
            Attack::SmallHalves => "small half frames",
            Attack::NeverReads => "asks and never reads",
            Attack::AsksAndReads => "asks and reads without end",
            Attack::NeverConsumes => "consumes and never reads",
        }
    }

    pub async fn begin(self, address: &str, attackers: usize) -> Result<Attackers> {
        if let Attack::NeverConsumes = self {
            feed(address).await?;
        }
        let (count, called_off) = (Arc::new(Count::default()), CancellationToken::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (address, counted, until) =
            (address.to_owned(), Arc::clone(&count), called_off.clone());
        let thread = std::thread::spawn(move || {
            if let Err(error) = rustix::process::nice(NICE) {
                tracing::warn!(%error, "attackers take as much of the processors as they can");
            }
            runtime.block_on(self.all(address, attackers, counted, until));
        });
        Ok(Attackers { called_off, thread, count })
    }

    async fn all(self, address: String, many: usize, count: Arc<Count>, until: CancellationToken) {
        let mut tasks = JoinSet::new();
        for _ in 0..many {
            let (address, count) = (address.clone(), Arc::clone(&count));
            tasks.spawn(async move {
                loop {
                    count.came.fetch_add(1, Ordering::Relaxed);
                    // Being thrown out is what an attacker expects.
                    if let Err(error) = self.once(&address).await {
                        tracing::debug!(%error, "thrown out");
                    }
                    count.thrown_out.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(AGAIN).await;
                }
            });
        }
        until.cancelled().await;
        tasks.shutdown().await;
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
            Attack::SmallHalves => {
                socket.write_all(&hello()).await?;
                socket.write_all(&[0, 0, 0xf0, 0, 3]).await?;
                socket.write_all(&[0; 30 * 1024]).await?;
                tokio::io::copy(&mut socket, &mut tokio::io::sink()).await?;
            }
            Attack::NeverReads => {
                socket.write_all(&hello()).await?;
                ask(&mut socket).await?;
            }
            Attack::AsksAndReads => {
                let (mut read, mut write) = socket.split();
                write.write_all(&hello()).await?;
                tokio::try_join!(ask(&mut write), async {
                    Ok(tokio::io::copy(&mut read, &mut tokio::io::sink()).await?)
                })?;
            }
            Attack::NeverConsumes => {
                socket.write_all(&hello()).await?;
                let mut attach = BytesMut::new();
                let request = Request::AttachConsumer {
                    consumer: ConsumerHandle(1),
                    queue: QueueName::new(FEED)?,
                    prefetch: 65_535,
                    prefetch_bytes: 0,
                    claim: None,
                };
                ClientFrame::Request { id: RequestId(1), request }.encode(&mut attach);
                socket.write_all(&attach).await?;
                let mut heartbeat = BytesMut::new();
                ClientFrame::Heartbeat.encode(&mut heartbeat);
                loop {
                    tokio::time::sleep(SLOW).await;
                    socket.write_all(&heartbeat).await?;
                }
            }
        }
        Ok(())
    }
}

/// Asks without end.
async fn ask(socket: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
    let mut asks = BytesMut::new();
    for id in 0..100 {
        let request = Request::ListExchanges;
        ClientFrame::Request { id: RequestId(id), request }.encode(&mut asks);
    }
    loop {
        socket.write_all(&asks).await?;
    }
}

/// Fills the queue of those who consume.
async fn feed(address: &str) -> Result<()> {
    let client = Client::connect([address]).await?;
    client.declare(FEED).await?;
    let producer = client.producer().to_queue(FEED).window(100).start().await?;
    for _ in 0..FEED_MESSAGES {
        // Whether all are stored is said at the end.
        let _receipt = producer.send(vec![0; FEED_BYTES]).await?;
    }
    producer.close().await?;
    client.close().await?;
    Ok(())
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
