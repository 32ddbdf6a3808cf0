//! A session with an embedded coordinator in another process, over TCP.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;

use super::frames::{self, ANSWER_BYTES_MAX, Answer, REQUEST_BYTES_MAX, Request, WireWrite};
use crate::coordinator::{Document, Path, ReadError, SessionInfo, Version, Write, WriteError};
use crate::session::{Attached, CHANGES_MAX, DialError, Dialer, Link};

/// Requests on their way to the writer of a connection: more than a session has outstanding, pings included.
const REQUESTS_MAX: usize = 1024;

/// Shortest patience with one attempt to connect, however short the time-out.
const PATIENCE_MIN: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct RemoteDialer {
    address: String,
    asked: Duration,
    /// Number and secret.
    session: Mutex<Option<(i64, u128)>>,
}

impl RemoteDialer {
    pub(crate) fn new(address: String, asked: Duration) -> Self {
        Self { address, asked, session: Mutex::new(None) }
    }

    async fn attach(&self) -> Result<Attached, DialError> {
        let unreachable =
            |error: io::Error| DialError::Unreachable(format!("{}: {error}", self.address));
        let stream = TcpStream::connect(&self.address).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let (reader, writer) = stream.into_split();
        let mut answers = FramedRead::new(reader, frames::codec(ANSWER_BYTES_MAX));
        let mut requests = FramedWrite::new(writer, frames::codec(REQUEST_BYTES_MAX));
        let session = *lock(&self.session);
        let timeout_ms = self.asked.as_millis().try_into().unwrap_or(u64::MAX);
        send(&mut requests, &Request::Hello { session, timeout_ms }).await.map_err(unreachable)?;
        let Some(first) = answers.next().await else {
            return Err(DialError::Unreachable(format!(
                "{}: it closed the connection",
                self.address
            )));
        };
        match parse(&first.map_err(unreachable)?).map_err(unreachable)? {
            Answer::Welcome { session: id, secret, timeout_ms } => {
                *lock(&self.session) = Some((id, secret));
                let timeout = Duration::from_millis(timeout_ms);
                let info = SessionInfo { id, timeout, timeout_asked: self.asked };
                let (link, changes) = RemoteLink::start(requests, answers, timeout);
                Ok(Attached { link, info, changes })
            }
            Answer::Over => Err(DialError::Expired),
            other => {
                Err(DialError::Invalid(format!("{} answers hello with {other:?}", self.address)))
            }
        }
    }
}

#[async_trait]
impl Dialer for RemoteDialer {
    async fn dial(&self) -> Result<Attached, DialError> {
        let patience = (self.asked / 4).max(PATIENCE_MIN);
        match tokio::time::timeout(patience, self.attach()).await {
            Ok(attached) => attached,
            Err(_) => Err(DialError::Unreachable(format!("{} does not answer", self.address))),
        }
    }

    fn servers(&self) -> String {
        self.address.clone()
    }
}

type Requests = FramedWrite<OwnedWriteHalf, LengthDelimitedCodec>;
type Answers = FramedRead<OwnedReadHalf, LengthDelimitedCodec>;
type Asked = (Request, Option<oneshot::Sender<Answer>>);

#[derive(Debug)]
struct RemoteLink {
    requests: mpsc::Sender<Asked>,
    line: Arc<Line>,
}

/// What the writer, the reader and the link share.
#[derive(Debug)]
struct Line {
    /// Who waits for the next answers, in order; nobody for pings. Bounded by what a session has outstanding.
    waiting: Mutex<VecDeque<Option<oneshot::Sender<Answer>>>>,
    cut: CancellationToken,
    reason: Mutex<Option<String>>,
}

impl RemoteLink {
    fn start(
        requests: Requests,
        answers: Answers,
        timeout: Duration,
    ) -> (Arc<RemoteLink>, mpsc::Receiver<Path>) {
        let line = Arc::new(Line {
            waiting: Mutex::default(),
            cut: CancellationToken::new(),
            reason: Mutex::default(),
        });
        let (sender, asked) = mpsc::channel(REQUESTS_MAX);
        let (changed, changes) = mpsc::channel(CHANGES_MAX);
        tokio::spawn(run(
            Arc::clone(&line),
            write_all(Arc::clone(&line), requests, asked, timeout / 6),
        ));
        tokio::spawn(run(
            Arc::clone(&line),
            read_all(Arc::clone(&line), answers, changed, timeout * 2 / 5),
        ));
        (Arc::new(RemoteLink { requests: sender, line }), changes)
    }

    async fn ask(&self, request: Request) -> Result<Answer, ReadError> {
        let lost = || ReadError::Unavailable("the connection was lost".to_owned());
        let (answer, answered) = oneshot::channel();
        self.requests.try_send((request, Some(answer))).map_err(|_| lost())?;
        answered.await.map_err(|_| lost())
    }

    async fn ask_done(&self, request: Request) -> Result<(), ReadError> {
        match self.ask(request).await? {
            Answer::Done => Ok(()),
            Answer::Over => Err(ReadError::SessionOver),
            other => Err(self.out_of_step(&other)),
        }
    }

    /// The two ends disagree on what was asked: nothing on this connection can be believed.
    fn out_of_step(&self, answer: &Answer) -> ReadError {
        self.line.lose(&format!("an answer to another question: {answer:?}"));
        ReadError::Unavailable("the connection was out of step".to_owned())
    }
}

impl Drop for RemoteLink {
    fn drop(&mut self) {
        self.line.lose("given up");
    }
}

impl Line {
    fn lose(&self, reason: &str) {
        lock(&self.reason).get_or_insert_with(|| reason.to_owned());
        self.cut.cancel();
        lock(&self.waiting).clear();
    }
}

/// Runs one half of a connection; its end is the end of both.
async fn run(line: Arc<Line>, half: impl Future<Output = io::Result<()>>) {
    let end = tokio::select! {
        end = half => end,
        () = line.cut.cancelled() => Ok(()),
    };
    line.lose(
        &end.err().map_or_else(|| "closed by the server".to_owned(), |error| error.to_string()),
    );
}

async fn write_all(
    line: Arc<Line>,
    mut requests: Requests,
    mut asked: mpsc::Receiver<Asked>,
    ping_every: Duration,
) -> io::Result<()> {
    let mut pings = tokio::time::interval(ping_every);
    loop {
        let (request, answer) = tokio::select! {
            request = asked.recv() => match request {
                Some(request) => request,
                None => return Ok(()),
            },
            _ = pings.tick() => (Request::Ping, None),
        };
        // Before it is sent: the answer may be there before the send returns.
        lock(&line.waiting).push_back(answer);
        if line.cut.is_cancelled() {
            lock(&line.waiting).clear();
            return Ok(());
        }
        send(&mut requests, &request).await?;
    }
}

async fn read_all(
    line: Arc<Line>,
    mut answers: Answers,
    changed: mpsc::Sender<Path>,
    patience: Duration,
) -> io::Result<()> {
    loop {
        let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "the server has fallen silent");
        let Some(answer) = tokio::time::timeout(patience, answers.next()).await.map_err(silent)?
        else {
            return Ok(());
        };
        match parse(&answer?)? {
            Answer::Changed(path) => changed
                .try_send(Path(path))
                .map_err(|_| io::Error::other("changes came faster than they were taken"))?,
            answer => {
                let asked = lock(&line.waiting)
                    .pop_front()
                    .ok_or_else(|| io::Error::other("an answer unasked"))?;
                // Whoever asked may have stopped waiting.
                if let Some(asked) = asked
                    && let Err(unwanted) = asked.send(answer)
                {
                    drop(unwanted);
                }
            }
        }
    }
}

#[async_trait]
impl Link for RemoteLink {
    async fn read_many(&self, paths: Vec<Path>) -> Result<Vec<Option<Document>>, ReadError> {
        let asked = paths.len();
        match self.ask(Request::ReadMany(paths.into_iter().map(|path| path.0).collect())).await? {
            Answer::Documents(documents) if documents.len() == asked => {
                Ok(documents.into_iter().map(|document| document.map(Document::from)).collect())
            }
            Answer::Over => Err(ReadError::SessionOver),
            other => Err(self.out_of_step(&other)),
        }
    }

    async fn children(&self, path: Path) -> Result<Vec<String>, ReadError> {
        match self.ask(Request::Children(path.0)).await? {
            Answer::Children(children) => Ok(children),
            Answer::Over => Err(ReadError::SessionOver),
            other => Err(self.out_of_step(&other)),
        }
    }

    async fn sync(&self) -> Result<(), ReadError> {
        self.ask_done(Request::Sync).await
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Option<Version>>, WriteError> {
        let undecided = |error: ReadError| WriteError::Undecided(error.to_string());
        match self
            .ask(Request::Write(writes.into_iter().map(WireWrite::from).collect()))
            .await
            .map_err(undecided)?
        {
            Answer::Written(versions) => {
                Ok(versions.into_iter().map(|version| version.map(Version)).collect())
            }
            Answer::Refused { index, conflict } => {
                let index = usize::try_from(index).unwrap_or(usize::MAX);
                Err(WriteError::Refused { index, conflict: conflict.into() })
            }
            Answer::Over => Err(WriteError::SessionOver),
            other => Err(undecided(self.out_of_step(&other))),
        }
    }

    async fn watch(&self, prefix: Path) -> Result<(), ReadError> {
        self.ask_done(Request::Watch(prefix.0)).await
    }

    async fn lost(&self) -> String {
        self.line.cut.cancelled().await;
        lock(&self.line.reason).clone().unwrap_or_default()
    }

    async fn close(&self) -> Result<(), ReadError> {
        self.ask_done(Request::Close).await
    }

    fn cut(&self) {
        self.line.lose("given up");
    }
}

async fn send(requests: &mut Requests, request: &Request) -> io::Result<()> {
    let frame = frames::encode(request).map_err(io::Error::other)?;
    requests.send(frame).await
}

fn parse(bytes: &[u8]) -> io::Result<Answer> {
    frames::decode(bytes).map_err(io::Error::other)
}

/// A panic elsewhere leaves these plain values whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
