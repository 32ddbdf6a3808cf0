//! A coordinator whose answers are timed.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bellwether_coordinator::coordinator::{
    ConnectError, Connector, Coordinator, Document, Path, ReadError, SessionEvent, SessionInfo,
    Version, Write, WriteError,
};
use tokio::sync::mpsc;

use crate::metrics::{Histogram, Metrics};

/// Another coordinator, or connector to one, and where its answers are counted.
#[derive(Debug)]
pub struct Timed<T> {
    inner: T,
    metrics: Arc<Metrics>,
}

impl<T> Timed<T> {
    #[must_use]
    pub fn new(inner: T, metrics: Arc<Metrics>) -> Timed<T> {
        Timed { inner, metrics }
    }

    fn read<A>(
        &self,
        histogram: &Histogram,
        began: Instant,
        answer: Result<A, ReadError>,
    ) -> Result<A, ReadError> {
        histogram.observe(began.elapsed());
        if let Err(ReadError::Unavailable(_)) = answer {
            self.metrics.coordinator_failures.increment();
        }
        answer
    }

    fn written<A>(&self, began: Instant, answer: Result<A, WriteError>) -> Result<A, WriteError> {
        self.metrics.coordinator_writes.observe(began.elapsed());
        if let Err(WriteError::Undecided(_)) = answer {
            self.metrics.coordinator_failures.increment();
        }
        answer
    }
}

#[async_trait]
impl Connector for Timed<Arc<dyn Connector>> {
    async fn connect(&self) -> Result<Arc<dyn Coordinator>, ConnectError> {
        let inner = self.inner.connect().await?;
        Ok(Arc::new(Timed::new(inner, self.metrics.clone())))
    }
}

#[async_trait]
impl Coordinator for Timed<Arc<dyn Coordinator>> {
    fn session(&self) -> SessionInfo {
        self.inner.session()
    }

    async fn read(&self, path: &Path) -> Result<Option<Document>, ReadError> {
        let began = Instant::now();
        let answer = self.inner.read(path).await;
        Timed::read(self, &self.metrics.coordinator_reads, began, answer)
    }

    async fn read_many(&self, paths: &[Path]) -> Result<Vec<Option<Document>>, ReadError> {
        let began = Instant::now();
        let answer = self.inner.read_many(paths).await;
        Timed::read(self, &self.metrics.coordinator_reads, began, answer)
    }

    async fn children(&self, path: &Path) -> Result<Vec<String>, ReadError> {
        let began = Instant::now();
        let answer = self.inner.children(path).await;
        Timed::read(self, &self.metrics.coordinator_reads, began, answer)
    }

    async fn sync(&self) -> Result<(), ReadError> {
        let began = Instant::now();
        let answer = self.inner.sync().await;
        Timed::read(self, &self.metrics.coordinator_syncs, began, answer)
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Option<Version>>, WriteError> {
        let began = Instant::now();
        let answer = self.inner.write(writes).await;
        self.written(began, answer)
    }

    async fn make_parents(&self, path: &Path) -> Result<(), WriteError> {
        self.inner.make_parents(path).await
    }

    async fn watch(&self, watched: &[Path]) -> Result<mpsc::Receiver<SessionEvent>, ReadError> {
        self.inner.watch(watched).await
    }

    async fn close(&self) -> Result<(), ReadError> {
        self.inner.close().await
    }
}
