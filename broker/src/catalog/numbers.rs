//! How many queues, exchanges and bindings there may be, held against how many there are when one more is declared.
//!
//! Nobody counts for all: each broker looks at its copy. As long as that is far below the limit, it just goes ahead. Near the limit it makes
//! one declaration after the other, each after it has taken in everything that was declared anywhere before. So brokers that declare in the
//! same moment may come to one too many for each of them but the first, and not to more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bellwether_protocol::client::{Number, NumberOf};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Catalog;
use super::tree::Tree;
use super::writes::unavailable;
use crate::config::Numbers;

/// Limits up to this are always counted exactly: a tenth of so little would be gone in one burst of declarations.
const ALWAYS_NEAR: usize = 1_000;

/// Brokers that a refusal names, of those that are waited for.
const NAMED_MAX: usize = 5;

/// What is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Declared {
    Queue,
    Exchange,
    Binding,
}

/// Declarations of one kind that are under way on this broker.
#[derive(Debug)]
struct UnderWay {
    count: AtomicUsize,
    /// Held by the one that is made near the limit.
    one: Arc<Semaphore>,
}

impl Default for UnderWay {
    fn default() -> UnderWay {
        UnderWay { count: AtomicUsize::new(0), one: Arc::new(Semaphore::new(1)) }
    }
}

/// Those of every kind.
#[derive(Debug, Default)]
pub(super) struct AllUnderWay {
    queues: Arc<UnderWay>,
    exchanges: Arc<UnderWay>,
    bindings: Arc<UnderWay>,
}

impl AllUnderWay {
    fn of(&self, what: Declared) -> &Arc<UnderWay> {
        match what {
            Declared::Queue => &self.queues,
            Declared::Exchange => &self.exchanges,
            Declared::Binding => &self.bindings,
        }
    }
}

/// There was room for one more. To be held until it is in the copy.
#[derive(Debug)]
pub(super) struct Room {
    under_way: Arc<UnderWay>,
    _one: Option<OwnedSemaphorePermit>,
}

impl Room {
    fn new(under_way: &Arc<UnderWay>, one: Option<OwnedSemaphorePermit>) -> Room {
        under_way.count.fetch_add(1, Ordering::AcqRel);
        Room { under_way: Arc::clone(under_way), _one: one }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.under_way.count.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Catalog {
    /// Room for one more of `what`.
    ///
    /// # Errors
    /// There are as many as are allowed, or the coordinator is away, so that nobody can tell.
    pub(super) async fn room_for(
        &self,
        what: Declared,
        deadline: Instant,
    ) -> Result<Room, ErrorBody> {
        let under_way = self.shared.under_way.of(what);
        let count = under_way.count.load(Ordering::Acquire);
        if self.held_against(what).iter().all(|number| is_far(number, count)) {
            return Ok(Room::new(under_way, None));
        }
        let queued = tokio::time::timeout_at(deadline, Arc::clone(&under_way.one).acquire_owned());
        let Ok(Ok(one)) = queued.await else {
            let words = "too many declarations were made at once; nothing was declared: try again";
            return Err(ErrorBody::not_done(ErrorCode::CoordinatorUnavailable, words));
        };
        if self.shared.connected().is_none() {
            return Err(unavailable());
        }
        self.catch_up(deadline).await?;
        for number in self.held_against(what) {
            if number.used >= number.most {
                return Err(self.refused(&number));
            }
        }
        Ok(Room::new(under_way, Some(one)))
    }

    /// Room for one more binding of a queue that has so many.
    pub(super) fn room_in_queue(&self, bindings: usize) -> Result<(), ErrorBody> {
        let most = self.numbers().bindings_per_queue_max;
        let (used, most) = (bindings as u64, most as u64);
        if used < most {
            return Ok(());
        }
        Err(self.refused(&Number { of: NumberOf::BindingsOfQueue, used, most }))
    }

    /// What there is of everything that is limited, as this broker sees it. What is limited for each queue is not among it.
    #[must_use]
    pub fn counted(&self) -> Vec<Number> {
        let mut all = self.held_against(Declared::Queue);
        all.extend(self.held_against(Declared::Exchange));
        all.extend(self.held_against(Declared::Binding));
        all
    }

    fn numbers(&self) -> Numbers {
        self.shared.settings.borrow().limits.numbers.clone()
    }

    /// What a declaration needs room in.
    fn held_against(&self, what: Declared) -> Vec<Number> {
        let (numbers, tree) = (self.numbers(), self.shared.tree());
        let number =
            |of, used: usize, most: usize| Number { of, used: used as u64, most: most as u64 };
        match what {
            Declared::Queue => vec![
                number(NumberOf::Queues, tree.queues.len(), numbers.queues_max),
                // Each queue leaves a tombstone in the end: who may make no more of these may make no more queues.
                number(NumberOf::DeletedQueues, tree.tombstones.len(), numbers.deleted_queues_max),
            ],
            Declared::Exchange => {
                vec![number(NumberOf::Exchanges, tree.exchanges.len(), numbers.exchanges_max)]
            }
            Declared::Binding => {
                vec![number(NumberOf::Bindings, tree.bindings_count(), numbers.bindings_max)]
            }
        }
    }

    fn refused(&self, number: &Number) -> ErrorBody {
        self.shared.refused_for_number.increment();
        let Number { of, used, most } = number;
        let words = match of {
            NumberOf::DeletedQueues => format!(
                "{used} deleted queues are remembered because {}; deleted-queues-max allows {most}. Bring those brokers back, or retire the ones that are gone for good (`bellwether cluster retire ID`); or raise it: `bellwether cluster config set deleted-queues-max N`",
                waited_for(&self.shared.tree())
            ),
            NumberOf::BindingsOfQueue => format!(
                "the queue has {used} bindings; bindings-per-queue-max allows {most}. Unbind some, use a fanout exchange, or raise it: `bellwether cluster config set bindings-per-queue-max N`"
            ),
            of => format!(
                "there are {used} {} in the cluster; {} allows {most}. Delete those that nobody uses, or raise it: `bellwether cluster config set {} N`",
                of.what(),
                of.setting(),
                of.setting()
            ),
        };
        ErrorBody::not_done(ErrorCode::LimitReached, words)
    }
}

/// Whether so many more, which are under way here, leave a tenth of the limit for those of others.
fn is_far(number: &Number, under_way: usize) -> bool {
    let most = usize::try_from(number.most).unwrap_or(usize::MAX);
    let used = usize::try_from(number.used).unwrap_or(usize::MAX);
    most > ALWAYS_NEAR && used.saturating_add(under_way) < most / 10 * 9
}

fn waited_for(tree: &Tree) -> String {
    let waited = tree.waited_for();
    let away = waited.iter().filter(|(broker, _)| tree.broker_by_id(*broker).is_none());
    let mut named: Vec<String> = away.map(|(broker, _)| broker.to_string()).collect();
    match named.len() {
        0 => "live brokers have not dropped them yet".to_owned(),
        1 => format!("the disk of broker {}, which is away, may hold them", named[0]),
        more => {
            named.truncate(NAMED_MAX);
            let rest = match more - named.len() {
                0 => String::new(),
                rest => format!(" and {rest} more"),
            };
            format!(
                "the disks of brokers {}{rest}, which are away, may hold them",
                named.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests;
