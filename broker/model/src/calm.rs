//! When faults end: one fair way on from any world, in which everything that can be done is done in turn.
//!
//! The checker's own `eventually` cannot be used: it takes a state that was met before for one that ends well, and this protocol has cycles
//! (a candidate that stands in vain is back where it was). So the promise is held against every world on its own: from there,
//! without another fault, requests are answered, brokers come back and read, and a leader has to be found that can confirm.

use crate::protocol::{Protocol, Step};
use crate::world::{BROKERS, Id, Isr, Role, World};

/// Steps within which it has to settle: some ten for each broker, a few times over.
const STEPS_MAX: usize = 120;

/// Whether the queue gets a leader whose in-sync members all follow it, that has everything in its log confirmed. True where no member of the
/// present ISR has its disk: nothing is promised there.
#[must_use]
pub fn finds_a_leader(protocol: &Protocol, world: &World) -> bool {
    let survives = |(member, store): (Id, u8)| world.brokers[member].store == store;
    if world.state.deleted.is_some() || !world.state.isr.members().any(survives) {
        return true;
    }
    let mut world = *world;
    for _ in 0..STEPS_MAX {
        if is_settled(protocol, &world) {
            return true;
        }
        match next(protocol, &world) {
            Some(step) => world = protocol.take(&world, step),
            None => return false,
        }
    }
    false
}

fn leader(world: &World) -> Option<Id> {
    let life = world.state.leader?;
    let broker = &world.brokers[Id::from(life.broker)];
    let leads = matches!(broker.role, Role::Leads { .. })
        && broker.life == life.number
        && !broker.expired
        && broker.seen.epoch == world.state.epoch;
    leads.then_some(Id::from(life.broker))
}

/// Those of a set that do not follow, with the store that is counted on.
fn missing(protocol: &Protocol, world: &World, leader: Id, isr: Isr) -> usize {
    isr.members()
        .filter(|(member, store)| {
            let follows = protocol.agreed_leader_of(world, *member) == Some(leader);
            *member != leader && (!follows || world.brokers[*member].store != *store)
        })
        .count()
}

fn is_settled(protocol: &Protocol, world: &World) -> bool {
    let Some(leader) = leader(world) else { return false };
    let broker = &world.brokers[leader];
    broker.pending.is_none()
        && broker.serves().is_some()
        && broker.high_watermark == broker.log.len()
        && broker.seen.isr.len() >= protocol.bounds.min_isr
        && missing(protocol, world, leader, broker.seen.isr) == 0
}

fn next(protocol: &Protocol, world: &World) -> Option<Step> {
    let ids = 0..BROKERS;
    let everybody = |step: &dyn Fn(Id) -> Option<Step>| ids.clone().find_map(step);
    everybody(&|broker| {
        (world.brokers[broker].role == Role::Down).then_some(Step::Restart { broker })
    })
    .or_else(|| {
        everybody(&|broker| world.brokers[broker].expired.then_some(Step::BeginLife { broker }))
    })
    .or_else(|| everybody(&|asked_by| world.under_way[asked_by].map(|_| Step::Decide { asked_by })))
    .or_else(|| {
        everybody(&|broker| protocol.may_read(world, broker).then_some(Step::Read { broker }))
    })
    .or_else(|| match leader(world) {
        Some(leader) => replicate(protocol, world).or_else(|| change(protocol, world, leader)),
        None => stand(protocol, world),
    })
}

fn replicate(protocol: &Protocol, world: &World) -> Option<Step> {
    (0..BROKERS).find_map(|id| {
        let step = |may: bool, step: Step| may.then_some(step);
        step(protocol.may_sync(world, id), Step::Sync { broker: id })
            .or_else(|| step(protocol.may_agree(world, id), Step::Agree { follower: id }))
            .or_else(|| step(protocol.may_fetch(world, id), Step::Fetch { follower: id }))
            .or_else(|| {
                step(protocol.may_confirm(world, id).is_some(), Step::Confirm { leader: id })
            })
    })
}

/// Whoever does not follow leaves the set, or is swapped.
fn change(protocol: &Protocol, world: &World, leader: Id) -> Option<Step> {
    let mut best = (missing(protocol, world, leader, world.brokers[leader].seen.isr), None);
    protocol.changes(world, leader, |isr| {
        let left = missing(protocol, world, leader, isr);
        if left < best.0 {
            best = (left, Some(Step::Change { leader, isr }));
        }
    });
    best.1
}

fn stand(protocol: &Protocol, world: &World) -> Option<Step> {
    let place = |id: &Id| (world.brokers[*id].log.last_epoch(), world.brokers[*id].log.len());
    let candidate = (0..BROKERS).filter(|id| protocol.may_stand(world, *id)).max_by_key(place)?;
    Some(Step::Stand { candidate })
}
