//! A TCP proxy between a session and its server, which does to the connection what networks do.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What is done to the bytes that come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Pass,
    /// Requests reach the server, its answers get no further.
    SwallowAnswers,
    /// Nothing gets anywhere; no connection is closed.
    Freeze,
    /// Connections are closed, and new ones at once again.
    Refuse,
}

/// Lives until it is dropped.
pub struct Proxy {
    address: SocketAddr,
    mood: Arc<watch::Sender<Mood>>,
    /// Moved on to cut all connections there are.
    cuts: Arc<watch::Sender<u64>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub async fn start(server: String) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mood = Arc::new(watch::Sender::new(Mood::Pass));
        let cuts = Arc::new(watch::Sender::new(0));
        let accepting = tokio::spawn({
            let (mood, cuts) = (Arc::clone(&mood), Arc::clone(&cuts));
            async move {
                loop {
                    let (client, _) = listener.accept().await.unwrap();
                    let (server, mood, cut) = (server.clone(), mood.subscribe(), cuts.subscribe());
                    tokio::spawn(relay(client, server, mood, cut));
                }
            }
        });
        Proxy { address, mood, cuts, accepting }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn pass(&self) {
        self.mood.send_replace(Mood::Pass);
    }

    pub fn swallow_answers(&self) {
        self.mood.send_replace(Mood::SwallowAnswers);
    }

    pub fn freeze(&self) {
        self.mood.send_replace(Mood::Freeze);
    }

    /// Closes the connections there are and refuses new ones.
    pub fn refuse(&self) {
        self.mood.send_replace(Mood::Refuse);
        self.cut();
    }

    /// Closes the connections there are.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn relay(
    client: TcpStream,
    server: String,
    mood: watch::Receiver<Mood>,
    mut cut: watch::Receiver<u64>,
) {
    if *mood.borrow() == Mood::Refuse {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::select! {
        () = copy(&mut from_client, &mut to_server, mood.clone(), &[Mood::Freeze], &[]) => {}
        () = copy(&mut from_server, &mut to_client, mood, &[Mood::Freeze], &[Mood::SwallowAnswers]) => {}
        _ = cut.changed() => {}
    }
}

/// Copies while the mood allows it, waits in a mood of `held`, throws away in a mood of `swallowed`.
async fn copy(
    from: &mut tokio::net::tcp::OwnedReadHalf,
    to: &mut tokio::net::tcp::OwnedWriteHalf,
    mut mood: watch::Receiver<Mood>,
    held: &[Mood],
    swallowed: &[Mood],
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(length) = from.read(&mut buffer).await else { return };
        if length == 0 {
            return;
        }
        let Ok(now) = mood.wait_for(|mood| !held.contains(mood)).await.map(|mood| *mood) else {
            return;
        };
        if !swallowed.contains(&now) && to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
