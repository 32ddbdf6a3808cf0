//! What a connection's reader hears from elsewhere: outcomes of publishes, outboxes that have room, deliveries that
//! could not be written. Bounded by publish credit and by the number of consumers and their deliveries.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bellwether_protocol::error::ErrorBody;
use tokio::sync::Notify;

use crate::shard::input::{PublishOrigin, ShardInput};

/// What has come in since it was last looked at.
#[derive(Default)]
pub(super) struct News {
    pub outcomes: Vec<(u64, Result<(), ErrorBody>)>,
    /// To be handed on to shards: `Drained`.
    pub for_shards: Vec<(usize, ShardInput)>,
    /// The catalog has caught up with what publishes were parked for.
    pub caught_up: bool,
    /// The writer has stopped: the connection is over.
    pub writer_gone: bool,
}

/// See the module. Never blocks.
#[derive(Default)]
pub(super) struct Inbox {
    news: Mutex<News>,
    arrived: Notify,
}

impl Inbox {
    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, add: impl FnOnce(&mut News)) {
        add(&mut self.news());
        self.arrived.notify_one();
    }

    /// Has the reader look again, though nothing has come in.
    pub fn wake(&self) {
        self.arrived.notify_one();
    }

    /// Waits until something has come in. Only the reader does.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    pub fn take(&self) -> News {
        std::mem::take(&mut *self.news())
    }
}

impl PublishOrigin for Inbox {
    fn outcomes(&self, outcomes: Vec<(u64, Result<(), ErrorBody>)>) {
        self.add(|news| {
            if news.outcomes.is_empty() {
                news.outcomes = outcomes
            } else {
                news.outcomes.extend(outcomes)
            }
        });
    }
}
