//! Serves the embedded coordinator to other processes on loopback: one task a connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::codec::{FramedRead, FramedWrite};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use super::core::{Over, Secret};
use super::frames::{self, Answer, REQUEST_BYTES_MAX, Request, WireDocument};
use super::hub::{Connection, Hub, Refusal};
use super::tree::SessionId;
use crate::coordinator::{Document, Path, Version, Write, WriteError};

/// Connections served at once: far more brokers than one machine runs.
const CONNECTIONS_MAX: usize = 1024;

/// Time for a client to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// Serves until it is dropped. Sessions outlive it, until their time-out.
#[derive(Debug)]
pub struct EmbeddedServer {
    address: SocketAddr,
    _serving: DropGuard,
}

impl EmbeddedServer {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn start(hub: Arc<Hub>, listener: TcpListener) -> io::Result<EmbeddedServer> {
        let address = listener.local_addr()?;
        let serving = CancellationToken::new();
        tokio::spawn(accept(hub, listener, serving.clone()));
        Ok(EmbeddedServer { address, _serving: serving.drop_guard() })
    }
}

async fn accept(hub: Arc<Hub>, listener: TcpListener, serving: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = serving.cancelled() => return,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of file descriptors, most likely: let some go before trying again.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let (hub, serving) = (Arc::clone(&hub), serving.clone());
        tokio::spawn(async move {
            tokio::select! {
                end = serve(&hub, stream) => debug!(%peer, ?end, "embedded coordinator connection ended"),
                () = serving.cancelled() => {}
            }
            drop(place);
        });
    }
}

/// One connection, from hello to its end.
async fn serve(hub: &Arc<Hub>, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    let mut requests = FramedRead::new(reader, frames::codec(REQUEST_BYTES_MAX));
    let mut answers = FramedWrite::new(writer, frames::codec(usize::MAX));
    let hello = tokio::time::timeout(HELLO_WITHIN, requests.next()).await;
    let Ok(Some(hello)) = hello else { return Ok(()) };
    let Request::Hello { session, timeout_ms } = parse(&hello?)? else {
        return Err(unexpected("no hello"));
    };
    let session = session.map(|(session, secret)| (SessionId(session), Secret(secret)));
    let (connection, mut changes) =
        match hub.connect(session, Duration::from_millis(timeout_ms), false) {
            Ok(connected) => connected,
            Err(Refusal::Away) => return Ok(()),
            Err(Refusal::Over) => return send(&mut answers, &Answer::Over).await,
        };
    debug!(
        session.id = format!("{:#x}", connection.session.0),
        "embedded coordinator session attached"
    );
    let timeout_ms = connection.timeout.as_millis().try_into().unwrap_or(u64::MAX);
    let welcome =
        Answer::Welcome { session: connection.session.0, secret: connection.secret.0, timeout_ms };
    send(&mut answers, &welcome).await?;
    loop {
        let request = tokio::select! {
            // Cut before anything else: a lost reply must not be sent after all.
            biased;
            () = connection.cut.cancelled() => return Ok(()),
            Some(path) = changes.recv() => {
                tell(&mut answers, path, &mut changes).await?;
                continue;
            }
            request = requests.next() => request,
        };
        let Some(request) = request else { return Ok(()) };
        let answer = answer(&connection, parse(&request?)?)?;
        // A change is told before the answer to a request that could show it, as ZooKeeper does.
        while let Ok(path) = changes.try_recv() {
            answers.feed(encode(&Answer::Changed(path.0))?).await?;
        }
        match answer {
            Some(answer) => send(&mut answers, &answer).await?,
            None => return Ok(()),
        }
    }
}

type Answers =
    FramedWrite<tokio::net::tcp::OwnedWriteHalf, tokio_util::codec::LengthDelimitedCodec>;

async fn tell(
    answers: &mut Answers,
    first: Path,
    changes: &mut mpsc::Receiver<Path>,
) -> io::Result<()> {
    answers.feed(encode(&Answer::Changed(first.0))?).await?;
    while let Ok(path) = changes.try_recv() {
        answers.feed(encode(&Answer::Changed(path.0))?).await?;
    }
    SinkExt::<bytes::Bytes>::flush(answers).await
}

/// The answer; none when the connection is lost instead.
fn answer(connection: &Connection, request: Request) -> io::Result<Option<Answer>> {
    let done = |outcome: Result<(), Over>| outcome.map_or(Answer::Over, |()| Answer::Done);
    if let Err(Over) = connection.heard() {
        return Ok(None);
    }
    Ok(Some(match request {
        Request::Hello { .. } => return Err(unexpected("a second hello")),
        Request::Ping => Answer::Done,
        Request::ReadMany(paths) => {
            let paths: Vec<Path> = paths.into_iter().map(Path).collect();
            connection.read_many(&paths).map_or(Answer::Over, documents)
        }
        Request::Children(path) => {
            connection.children(&Path(path)).map_or(Answer::Over, Answer::Children)
        }
        Request::Sync => done(connection.sync()),
        Request::Watch(prefix) => done(connection.watch(Path(prefix))),
        Request::Close => done(connection.close()),
        Request::Write(writes) => {
            let writes: Vec<Write> = writes.into_iter().map(Write::from).collect();
            return Ok(written(connection.write(&writes)));
        }
    }))
}

fn documents(documents: Vec<Option<Document>>) -> Answer {
    Answer::Documents(
        documents.into_iter().map(|document| document.map(WireDocument::from)).collect(),
    )
}

fn written(outcome: Result<Vec<Option<Version>>, WriteError>) -> Option<Answer> {
    match outcome {
        Ok(versions) => Some(Answer::Written(
            versions.into_iter().map(|version| version.map(|version| version.0)).collect(),
        )),
        Err(WriteError::Refused { index, conflict }) => {
            Some(Answer::Refused { index: index as u64, conflict: conflict.into() })
        }
        Err(WriteError::SessionOver) => Some(Answer::Over),
        Err(WriteError::Undecided(_) | WriteError::Invalid(_)) => None,
    }
}

async fn send(answers: &mut Answers, answer: &Answer) -> io::Result<()> {
    answers.send(encode(answer)?).await
}

fn encode(answer: &Answer) -> io::Result<bytes::Bytes> {
    frames::encode(answer).map_err(|error| unexpected(&error.to_string()))
}

fn parse(bytes: &[u8]) -> io::Result<Request> {
    frames::decode(bytes).map_err(|error| unexpected(&error.to_string()))
}

fn unexpected(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
