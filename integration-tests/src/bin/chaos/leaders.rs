//! Watches who leads, for the page that a run ends with.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bellwether_integration_tests::driver::{Driver, Reach};
use bellwether_integration_tests::recorder::Recorder;
use tokio::task::JoinHandle;

/// How often each queue is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Who leads is not known while nobody says so within this.
const ANSWER_WITHIN: Duration = Duration::from_millis(800);
/// Reigns kept in all; a page with more could not be read.
const REIGNS_MAX: usize = 20_000;

/// From when on a queue had this leader, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reign {
    pub from: Duration,
    pub queue: usize,
    pub leader: Option<u32>,
}

/// Looks until it is dropped.
pub struct Leaders {
    reigns: Arc<Mutex<Vec<Reign>>>,
    looking: JoinHandle<()>,
}

impl Leaders {
    pub fn watch(reach: Reach, queues: Vec<String>, recorder: Arc<Recorder>) -> Leaders {
        let reigns = Arc::new(Mutex::new(Vec::new()));
        let looking = tokio::spawn(look(reach, queues, recorder, Arc::clone(&reigns)));
        Leaders { reigns, looking }
    }

    pub fn reigns(&self) -> Vec<Reign> {
        self.reigns.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Leaders {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

async fn look(
    reach: Reach,
    queues: Vec<String>,
    recorder: Arc<Recorder>,
    reigns: Arc<Mutex<Vec<Reign>>>,
) {
    let driver = loop {
        match Driver::connect(&reach, "leaders").await {
            Ok(driver) => break driver,
            Err(error) => tracing::warn!(%error, "nobody says who leads"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let mut last: Vec<Option<Option<u32>>> = vec![None; queues.len()];
    loop {
        for (queue, name) in queues.iter().enumerate() {
            let from = recorder.elapsed();
            let seen = tokio::time::timeout(ANSWER_WITHIN, driver.describe(name)).await;
            let leader = seen.ok().and_then(Result::ok).and_then(|seen| seen.leader);
            let mut reigns = reigns.lock().unwrap_or_else(PoisonError::into_inner);
            if last[queue] != Some(leader) && reigns.len() < REIGNS_MAX {
                last[queue] = Some(leader);
                reigns.push(Reign { from, queue, leader });
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
