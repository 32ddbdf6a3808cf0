//! One connection to ZooKeeper: a client of the library that is given up at its first disconnect. Left to itself the library
//! would reconnect, run what had queued up meanwhile without bound, forget the watches, and after a while declare the session
//! expired by its own clock. The session itself goes on in the next connection.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::future::join_all;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use zookeeper_client as zk;

use super::errors::{read_error, write_error};
use crate::coordinator::{Document, Path, ReadError, Version, Write, WriteError};
use crate::session::{CHANGES_MAX, Link};

/// Syncs that wait for one watcher to pass on what it has; more wait to ask.
const FLUSHES_MAX: usize = 16;

/// Documents in one request. Each request costs a server some hand-overs between its threads, whatever is in it; and each answer has to
/// fit in memory on both sides: a document may have 1 MB, though hardly any does.
const READS_TOGETHER: usize = 32;

/// A thread of its own for the library's tasks: the only way to end them for certain, with all they have queued. Ended, it
/// closes the socket without ending the session.
#[derive(Debug)]
pub(crate) struct Worker {
    runtime: Mutex<Option<Runtime>>,
}

impl Worker {
    pub(crate) fn start() -> io::Result<Worker> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("zookeeper")
            .enable_all()
            .build()?;
        Ok(Worker { runtime: Mutex::new(Some(runtime)) })
    }

    /// Runs `work` there; `None` when it was ended before.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let running = lock(&self.runtime).as_ref()?.spawn(work);
        running.await.ok()
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = lock(&self.runtime).as_ref() {
            drop(runtime.spawn(work));
        }
    }

    fn end(&self) {
        if let Some(runtime) = lock(&self.runtime).take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}

#[derive(Debug)]
pub(crate) struct ZooKeeperLink {
    worker: Worker,
    /// Gone once the session is being closed: the library closes it when the last clone is dropped.
    client: Mutex<Option<zk::Client>>,
    states: zk::StateWatcher,
    acls: zk::Acls<'static>,
    /// What is watched, and how to ask each watcher to pass on what it has.
    watched: Mutex<HashMap<Path, mpsc::Sender<oneshot::Sender<()>>>>,
    changes: mpsc::Sender<Path>,
    cut: CancellationToken,
}

impl ZooKeeperLink {
    pub(crate) fn new(
        worker: Worker,
        client: zk::Client,
        acls: zk::Acls<'static>,
    ) -> (Self, mpsc::Receiver<Path>) {
        let (changes, changed) = mpsc::channel(CHANGES_MAX);
        let states = client.state_watcher();
        let (client, watched, cut) =
            (Mutex::new(Some(client)), Mutex::default(), CancellationToken::new());
        (Self { worker, client, states, acls, watched, changes, cut }, changed)
    }

    fn client(&self) -> Result<zk::Client, ReadError> {
        let lost = || ReadError::Unavailable("the connection was lost".to_owned());
        if self.cut.is_cancelled() {
            return Err(lost());
        }
        lock(&self.client).clone().ok_or_else(lost)
    }

    /// Waits for an answer, but not beyond the end of the connection.
    async fn answer<T>(&self, answer: impl Future<Output = T>) -> Result<T, ReadError> {
        tokio::select! {
            answer = answer => Ok(answer),
            () = self.cut.cancelled() => Err(ReadError::Unavailable("the connection was lost".to_owned())),
        }
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<Vec<zk::MultiWriteResult>, WriteError> {
        let undecided = |error: ReadError| WriteError::Undecided(error.to_string());
        let client = self.client().map_err(undecided)?;
        let committed = async {
            let mut multi = client.new_multi_writer();
            for (index, write) in writes.iter().enumerate() {
                add(&mut multi, write, self.acls).map_err(|error| {
                    write_error(zk::MultiWriteError::OperationFailed { index, source: error })
                })?;
            }
            multi.commit().await.map_err(write_error)
        };
        self.answer(committed).await.map_err(undecided)?
    }
}

fn add(
    multi: &mut zk::MultiWriter<'_>,
    write: &Write,
    acls: zk::Acls<'static>,
) -> Result<(), zk::Error> {
    match write {
        Write::Create { path, bytes, ephemeral } => {
            let mode =
                if *ephemeral { zk::CreateMode::Ephemeral } else { zk::CreateMode::Persistent };
            multi.add_create(&path.0, bytes, &mode.with_acls(acls))
        }
        Write::Set { path, bytes, version } => multi.add_set_data(&path.0, bytes, Some(version.0)),
        Write::Delete { path, version } => {
            multi.add_delete(&path.0, version.map(|version| version.0))
        }
        Write::Check { path, version } => multi.add_check_version(&path.0, version.0),
    }
}

/// Sent at once, whenever the answer is waited for.
fn read<'a>(
    client: &'a zk::Client,
    paths: &[Path],
) -> impl Future<Output = Result<Vec<zk::MultiReadResult>, zk::Error>> + use<'a> {
    let mut reads = client.new_multi_reader();
    let named = paths.iter().try_for_each(|path| reads.add_get_data(&path.0));
    let answer = named.map(|()| reads.commit());
    async move { answer?.await }
}

fn version(result: &zk::MultiWriteResult) -> Option<Version> {
    match result {
        // ZooKeeper leaves the version out of what a multi created; a document is created as version zero.
        zk::MultiWriteResult::Create { .. } => Some(Version(0)),
        zk::MultiWriteResult::SetData { stat } => Some(Version(stat.version)),
        // Deletes and checks; the library may add kinds, which nothing here sends.
        _ => None,
    }
}

#[async_trait]
impl Link for ZooKeeperLink {
    async fn read_many(&self, paths: Vec<Path>) -> Result<Vec<Option<Document>>, ReadError> {
        let client = self.client()?;
        let session = client.session_id().0;
        // Made in order, hence sent in order, all before the first answer.
        let reads: Vec<_> =
            paths.chunks(READS_TOGETHER).map(|paths| read(&client, paths)).collect();
        let answers = self.answer(join_all(reads)).await?;
        let document = |bytes: Vec<u8>, stat: zk::Stat| Document {
            bytes: bytes.into(),
            version: Version(stat.version),
            own_ephemeral: stat.ephemeral_owner == session,
        };
        let mut documents = Vec::with_capacity(paths.len());
        for answer in answers {
            for result in answer.map_err(read_error)? {
                documents.push(match result {
                    zk::MultiReadResult::Data { data, stat } => Some(document(data, stat)),
                    zk::MultiReadResult::Error { err: zk::Error::NoNode } => None,
                    zk::MultiReadResult::Error { err } => return Err(read_error(err)),
                    other => {
                        let what = format!("a read was answered with {other:?}");
                        return Err(ReadError::Unavailable(what));
                    }
                });
            }
        }
        if documents.len() != paths.len() {
            let what = format!("{} reads had {} answers", paths.len(), documents.len());
            return Err(ReadError::Unavailable(what));
        }
        Ok(documents)
    }

    async fn children(&self, path: Path) -> Result<Vec<String>, ReadError> {
        let client = self.client()?;
        match self.answer(client.list_children(&path.0)).await? {
            Ok(children) => Ok(children),
            Err(zk::Error::NoNode) => Ok(Vec::new()),
            Err(error) => Err(read_error(error)),
        }
    }

    async fn sync(&self) -> Result<(), ReadError> {
        let client = self.client()?;
        self.answer(client.sync("/")).await?.map_err(read_error)?;
        // What changed before was told on this connection before the answer, but another task may still hold it.
        let watchers: Vec<_> = lock(&self.watched).values().cloned().collect();
        for watcher in watchers {
            let (told, done) = oneshot::channel();
            if watcher.send(told).await.is_ok() {
                drop(self.answer(done).await?);
            }
        }
        Ok(())
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Option<Version>>, WriteError> {
        Ok(self.commit(writes).await?.iter().map(version).collect())
    }

    async fn watch(&self, prefix: Path) -> Result<(), ReadError> {
        if lock(&self.watched).contains_key(&prefix) {
            return Ok(());
        }
        let client = self.client()?;
        let watching = client.watch(&prefix.0, zk::AddWatchMode::PersistentRecursive);
        let watcher = self.answer(watching).await?.map_err(read_error)?;
        let (flush, flushes) = mpsc::channel(FLUSHES_MAX);
        lock(&self.watched).insert(prefix, flush);
        self.worker.spawn(pass_on(watcher, self.changes.clone(), flushes));
        Ok(())
    }

    async fn lost(&self) -> String {
        let mut states = self.states.clone();
        // It may have changed before anyone looked. Every change is a loss, also one back to connected: what was in
        // between is unknown.
        if states.peek_state() != zk::SessionState::SyncConnected {
            return format!("the connection is {}", states.peek_state());
        }
        tokio::select! {
            state = states.changed() => format!("the connection became {state}"),
            () = self.cut.cancelled() => "given up".to_owned(),
        }
    }

    async fn close(&self) -> Result<(), ReadError> {
        let mut states = self.states.clone();
        drop(lock(&self.client).take());
        // When the process ends before this, the session is not closed and its ephemerals stay until its time-out.
        loop {
            match states.peek_state() {
                zk::SessionState::Closed | zk::SessionState::Expired => break,
                zk::SessionState::SyncConnected => {}
                other => return Err(ReadError::Unavailable(format!("the connection is {other}"))),
            }
            self.answer(states.changed()).await?;
        }
        self.cut();
        Ok(())
    }

    fn cut(&self) {
        self.cut.cancel();
        self.worker.end();
    }
}

/// Passes changes on until the connection ends, and says on request when it has none left.
async fn pass_on(
    mut watcher: zk::PersistentWatcher,
    changes: mpsc::Sender<Path>,
    mut flushes: mpsc::Receiver<oneshot::Sender<()>>,
) {
    loop {
        let event = tokio::select! {
            // In this order: a flush is answered only when no change is left.
            biased;
            event = watcher.changed() => event,
            Some(told) = flushes.recv() => {
                drop(told);
                continue;
            }
        };
        match event.event_type {
            // The library panics when it is asked for more after the end.
            zk::EventType::Session if event.session_state.is_terminated() => return,
            zk::EventType::Session => {}
            zk::EventType::NodeCreated
            | zk::EventType::NodeDeleted
            | zk::EventType::NodeDataChanged
            | zk::EventType::NodeChildrenChanged => {
                let path = if event.path.is_empty() { "/".to_owned() } else { event.path };
                if changes.send(Path(path)).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A panic elsewhere leaves these plain values whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
