//! The controller: one broker at a time sees to it that every queue has its copies where they should be, and that leaderships are
//! spread evenly. Never needed for failover: with nobody doing it, queues lose and win leaders all the same.
//!
//! It plans from the catalog's copy and changes nothing but replica sets, each by a compare-and-set on the state that it planned
//! from. So two controllers at once, which there can be for the moment of a lost session, do no harm.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_coordinator::balance::{Change, Why};
use bellwether_coordinator::coordinator::{Conflict, Write, WriteError};
use bellwether_coordinator::paths;
use bellwether_coordinator::records::{ControllerRecord, UnknownFields};
use bellwether_protocol::ids::{BrokerId, QueueId};
use bellwether_replication::CasOutcome;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::catalog::{Catalog, ReplacedStores};
use crate::config::BrokerConfig;
use crate::metrics::Metrics;
use crate::seams::StateKeeper as _;
use crate::session::Life;

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);
/// The same while a copy is being made, so that the next one follows at once.
const LOOK_AT_COPY: Duration = Duration::from_millis(200);
/// When nothing seems to have changed it looks all the same, every so many times: a change of an ISR alone wakes nobody.
const LOOK_ANYWAY: u32 = 5;
/// A copy that is not in sync after so long is not waited for any more: others shall be made.
const COPY_PATIENCE: Duration = Duration::from_secs(600);

/// Stands for controller, and does the duties while this broker is it.
pub async fn attend(
    config: watch::Receiver<Arc<BrokerConfig>>,
    catalog: Catalog,
    metrics: Arc<Metrics>,
    lives: watch::Receiver<Option<Life>>,
    stop: CancellationToken,
) {
    let mut changes = catalog.changes();
    let mut duties = Duties::new(&metrics);
    let mut looks = 0_u32;
    loop {
        tokio::select! {
            () = tokio::time::sleep(duties.pause()) => {}
            () = stop.cancelled() => return,
        }
        let life = lives.borrow().clone().filter(|life| life.connected);
        let Some(life) = life.filter(|_| catalog.is_complete()) else {
            duties = Duties::new(&metrics);
            continue;
        };
        match catalog.controller() {
            Some(controller) if controller == life.life => metrics.controller.set(1),
            Some(_) => {
                duties = Duties::new(&metrics);
                continue;
            }
            None => {
                stand(&life).await;
                continue;
            }
        }
        looks = looks.wrapping_add(1);
        let changed = changes.has_changed().unwrap_or(false);
        changes.mark_unchanged();
        // Planning walks over all queues: only when there may be something to do.
        if duties.is_copied(&catalog) || changed || looks.is_multiple_of(LOOK_ANYWAY) {
            let replace_after = config.borrow().timing.replace_after;
            duties.look(&catalog, &life, replace_after).await;
        }
    }
}

async fn stand(life: &Life) {
    let record = ControllerRecord { life: life.life, unknown: UnknownFields::new() };
    let create =
        Write::Create { path: paths::controller(), bytes: record.to_bytes(), ephemeral: true };
    match life.coordinator.write(vec![create]).await {
        Ok(_) => info!(life = %life.life, "this broker is the controller"),
        Err(WriteError::Refused { conflict: Conflict::Exists, .. }) => {}
        Err(error) => debug!(%error, "could not stand for controller"),
    }
}

/// What the controller remembers between two looks.
#[derive(Default)]
struct Duties {
    /// Since when brokers are missed. Counted from the first look: one who has just begun waits the whole time.
    absent_since: HashMap<BrokerId, Instant>,
    /// The copy that is being made: one at a time.
    copying: Option<(QueueId, Instant)>,
    /// Data folders that tombstones wait for and that brokers do not have any more.
    replaced: ReplacedStores,
    metrics: Arc<Metrics>,
}

impl Duties {
    /// Of one who is not the controller yet, or not any more.
    fn new(metrics: &Arc<Metrics>) -> Duties {
        metrics.controller.set(0);
        metrics.controller_copying.set(0);
        Duties { metrics: metrics.clone(), ..Duties::default() }
    }

    /// How long until the next look.
    fn pause(&self) -> Duration {
        if self.copying.is_some() { LOOK_AT_COPY } else { LOOK }
    }

    async fn look(&mut self, catalog: &Catalog, life: &Life, replace_after: Option<Duration>) {
        let now = Instant::now();
        self.note_absent(catalog, now);
        // Where most brokers are missed something else is wrong, and whoever is left could not hold everything.
        let may_replace = catalog.live() > self.absent_since.len();
        let given_up = |broker: BrokerId| {
            let since = self.absent_since.get(&broker);
            let gone_for = since.map(|since| now.saturating_duration_since(*since));
            may_replace && gone_for.zip(replace_after).is_some_and(|(gone, after)| gone >= after)
        };
        let plan = catalog.balance(given_up, self.copying.is_none());
        for change in plan {
            self.carry_out(catalog, life, change, now).await;
        }
        if let Err(error) = catalog.attend_tombstones(&mut self.replaced, now).await {
            debug!(%error, "tombstones are looked after another time");
        }
    }

    fn note_absent(&mut self, catalog: &Catalog, now: Instant) {
        let absent = catalog.absent();
        self.absent_since.retain(|broker, _| absent.contains(broker));
        for broker in absent {
            self.absent_since.entry(broker).or_insert(now);
        }
    }

    /// Whether the copy that was being made has come to its end just now.
    fn is_copied(&mut self, catalog: &Catalog) -> bool {
        let Some((queue, since)) = self.copying else { return false };
        let took = since.elapsed();
        match catalog.is_whole(queue) {
            Some(false) if took < COPY_PATIENCE => return false,
            Some(false) => {
                warn!(queue.id = %queue, took_s = took.as_secs(), "a copy is still not in sync: going on with others. `bellwether queue describe` says who is missing");
            }
            Some(true) => {
                info!(queue.id = %queue, took_ms = took.as_millis() as u64, "the copies of a queue are where they should be")
            }
            None => {}
        }
        self.copying = None;
        self.metrics.controller_copying.set(0);
        true
    }

    async fn carry_out(&mut self, catalog: &Catalog, life: &Life, change: Change, now: Instant) {
        let Change { queue, version, state, why } = change;
        let outcome = catalog.cas(life.life, queue, version, state).await;
        if !matches!(outcome, CasOutcome::Done { .. }) {
            // Planned anew at the next look, from what stands then.
            self.metrics.controller_refused.increment();
            debug!(queue.id = %queue, ?why, ?outcome, "a change was not made");
            return;
        }
        self.count(&why);
        match why {
            Why::Replaces { from, to }
            | Why::EvensCopies { from, to }
            | Why::SpreadsRacks { from, to } => {
                info!(queue.id = %queue, from = from.0, to = to.0, "a copy of a queue moves");
                self.copying = Some((queue, now));
            }
            Why::Adds { to } => {
                info!(queue.id = %queue, to = to.0, "a missing copy of a queue is made");
                self.copying = Some((queue, now));
            }
            Why::Leads { from, to } => {
                debug!(queue.id = %queue, from = from.0, to = to.0, "another broker is to lead a queue");
            }
            Why::RaisesMinIsr { to } => {
                info!(queue.id = %queue, min_isr = to, "a queue has all its copies: its confirms wait for more of them");
            }
        }
    }

    fn count(&self, why: &Why) {
        let metrics = &self.metrics;
        let (counter, copies) = match why {
            Why::Replaces { .. } => (&metrics.controller_replaces, true),
            Why::EvensCopies { .. } => (&metrics.controller_evens_copies, true),
            Why::SpreadsRacks { .. } => (&metrics.controller_spreads_racks, true),
            Why::Adds { .. } => (&metrics.controller_adds, true),
            Why::Leads { .. } => (&metrics.controller_leads, false),
            Why::RaisesMinIsr { .. } => (&metrics.controller_raises_min_isr, false),
        };
        counter.increment();
        if copies {
            metrics.controller_copying.set(1);
        }
    }
}
