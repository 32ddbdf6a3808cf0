//! What `/metrics` answers: what is counted anyway, and what the shards say of their queues when somebody asks.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, oneshot};

use super::render::render;
use crate::config::Watch;
use crate::metrics::Metrics;
use crate::metrics::queues::{QueueSelection, ShardSample};
use crate::shard::Shards;
use crate::shard::input::ShardInput;

/// What the shards said is good for so long: ten scrapers at once cost them no more than one.
const SAMPLE_KEEPS: Duration = Duration::from_secs(1);
/// How long the shards have for their answers. A scrape that comes later is of no use: Prometheus gives up after ten seconds.
const SAMPLE_PATIENCE: Duration = Duration::from_secs(5);

/// Answers scrapes. Before the shards are there it shows what is counted without them.
pub struct Scraper {
    metrics: Arc<Metrics>,
    selection: Arc<QueueSelection>,
    shards: OnceLock<Shards>,
    last: Mutex<Option<(Instant, Arc<ShardSample>)>>,
}

impl Scraper {
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, watch: &Watch) -> Scraper {
        Scraper {
            metrics,
            selection: Arc::new(QueueSelection::new(watch)),
            shards: OnceLock::new(),
            last: Mutex::new(None),
        }
    }

    /// The shards are there: from now on they are asked. Only the first ones count.
    pub fn attach(&self, shards: Shards) {
        self.shards.get_or_init(|| shards);
    }

    /// The page.
    pub async fn page(&self) -> String {
        let sample = self.sample().await;
        render(&self.metrics, sample.as_deref())
    }

    /// What all shards say; `None` when one of them does not answer in time: half of it would look like queues that are gone.
    async fn sample(&self) -> Option<Arc<ShardSample>> {
        let shards = self.shards.get()?;
        let mut last = self.last.lock().await;
        if let Some((at, sample)) = &*last
            && at.elapsed() < SAMPLE_KEEPS
        {
            return Some(sample.clone());
        }
        let asked = tokio::time::timeout(SAMPLE_PATIENCE, self.ask(shards)).await;
        let Some(sample) = asked.ok().flatten() else {
            self.metrics.scrapes_without_queues.increment();
            tracing::debug!("the queues did not answer a scrape in time");
            return None;
        };
        let sample = Arc::new(sample);
        *last = Some((Instant::now(), sample.clone()));
        Some(sample)
    }

    async fn ask(&self, shards: &Shards) -> Option<ShardSample> {
        let mut answers = Vec::with_capacity(shards.count());
        for shard in shards.all() {
            let (reply, answer) = oneshot::channel();
            shard.send(ShardInput::Sample { wanted: self.selection.clone(), reply }).await;
            answers.push(answer);
        }
        let mut all = ShardSample::default();
        for answer in answers {
            all.join(answer.await.ok()?);
        }
        all.keep_first(self.selection.most);
        Some(all)
    }
}
