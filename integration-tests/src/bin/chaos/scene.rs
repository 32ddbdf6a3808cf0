//! What is under load: four queues, a fanout exchange over three of them, producers and consumers of different habits, large
//! messages among small ones, and a fifth queue whose messages wait until the end.

use anyhow::Result;
use bellwether_integration_tests::driver::Driver;
use bellwether_integration_tests::load::{ConsumerSpec, ProducerSpec, QueueSpec};

/// More than one chunk of the replication stream.
const LARGE_BYTES: usize = 400_000;
/// Messages a second of the slowest producers: of gaps shorter than between two of them nothing is seen.
const SLOW_PER_SECOND: u32 = 20;

/// Names and sizes of what a run puts under load.
#[derive(Clone, Debug)]
pub struct Scene {
    /// What all its names begin with.
    pub prefix: String,
    /// For the choices of consumers.
    pub seed: u64,
    /// Copies of each queue.
    pub replicas: u8,
}

impl Scene {
    /// The queues' names.
    pub fn queue_names(&self) -> Vec<String> {
        ["steady", "shared", "restless", "alone", "resting"]
            .map(|name| format!("{}-{name}", self.prefix))
            .to_vec()
    }

    /// The exchange that copies to the first three queues.
    fn fanout(&self) -> String {
        format!("{}-fanout", self.prefix)
    }

    /// Declares queues, exchange and bindings.
    pub async fn declare(&self, driver: &Driver) -> Result<()> {
        let names = self.queue_names();
        for name in &names {
            driver.declare_queue(name, self.replicas, None).await?;
        }
        driver.declare_fanout(&self.fanout()).await?;
        for name in &names[..3] {
            driver.bind(&self.fanout(), name, "").await?;
        }
        Ok(())
    }

    /// Deletes them.
    pub async fn delete(&self, driver: &Driver) -> Result<()> {
        driver.client().delete_exchange(self.fanout()).await?;
        for name in self.queue_names() {
            driver.client().delete(&name).await?;
        }
        Ok(())
    }

    /// Who consumes from them.
    pub fn queues(&self) -> Vec<QueueSpec> {
        let with_seed = |add: u64| ConsumerSpec {
            seed: self.seed.wrapping_add(add),
            ..ConsumerSpec::default()
        };
        let sloppy =
            |add| ConsumerSpec { returns_per_mille: 20, rejects_per_mille: 5, ..with_seed(add) };
        let restless = |add| ConsumerSpec { leaves_after: 2_000, prefetch: 100, ..sloppy(add) };
        let consumers = [
            vec![with_seed(1)],
            vec![sloppy(2), sloppy(3)],
            vec![restless(4), restless(5), with_seed(6)],
            vec![ConsumerSpec { prefetch: 20, ..sloppy(7) }],
            vec![with_seed(8)],
        ];
        let of = |(name, consumers): (&String, Vec<ConsumerSpec>)| QueueSpec::new(name, consumers);
        let mut queues: Vec<QueueSpec> = self.queue_names().iter().zip(consumers).map(of).collect();
        queues[4].rests = true;
        queues
    }

    /// Who publishes, and to which of the queues.
    pub fn producers(&self, per_second: u32, bytes: usize) -> Vec<(ProducerSpec, Vec<usize>)> {
        let spec = |spec: ProducerSpec| ProducerSpec { per_second, bytes, ..spec };
        let name = |of: &str| format!("chaos-{}-{of}", self.seed);
        let queues = self.queue_names();
        let mut producers: Vec<(ProducerSpec, Vec<usize>)> = queues
            .iter()
            .enumerate()
            .map(|(at, queue)| {
                (spec(ProducerSpec::to_queue(&name(&at.to_string()), queue)), vec![at])
            })
            .collect();
        let mut to_all = spec(ProducerSpec::to_queue(&name("fanout"), ""));
        to_all.exchange = self.fanout();
        producers.push((to_all, vec![0, 1, 2]));
        let large = ProducerSpec {
            per_second: SLOW_PER_SECOND,
            bytes: LARGE_BYTES,
            ..ProducerSpec::to_queue(&name("large"), &queues[3])
        };
        producers.push((large, vec![3]));
        // What waits pins segments: few are enough.
        producers[4].0.per_second = SLOW_PER_SECOND;
        producers
    }
}
