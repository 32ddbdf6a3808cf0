//! The promises, as properties of a world.

use stateright::Property;

use crate::calm;
use crate::checked::Checked;
use crate::log::{Log, What};
use crate::world::{BROKERS, Id, World};

/// G1: everything that was ever committed is on the disk of every member of the present ISR whose disk survives.
pub const ON_EVERY_DISK: &str = "G1: what was confirmed is on the disk of every in-sync replica";
/// G1: as long as fewer than `min_isr` disks were lost, a member of the ISR is left.
pub const A_COPY_IS_LEFT: &str =
    "G1: while fewer than min_isr disks are lost, an in-sync copy is left";
/// G2: the first half.
pub const ONE_LEADER: &str = "G2: at most one broker leads an epoch";
/// G2: the second half. That its successor has what it confirms is G1's: the successor is in the ISR.
pub const DEPOSED: &str =
    "G2: a deposed leader confirms nothing that it appended after its deposition";
/// G3: neither a leader of the same or a later epoch, nor one that was deposed.
pub const SETTLED: &str = "G3: nobody may deliver a message whose settle is confirmed";
/// G4: the first half.
pub const ONLY_COMMITTED: &str = "G4: only committed messages may be delivered";
/// G4: the second half.
pub const NEVER_REFUSED: &str = "G4: what was refused is never confirmed";
/// G5: every leader delivers in the order of its log, so the order of what is committed must never change.
pub const IN_ORDER: &str = "G5: what is committed only grows, at its end";
/// G8: the leader's half. What was appended before may well be confirmed late, by a deposed leader: it was deleted with the queue.
pub const NOT_INTO_DELETED: &str = "G8: nothing is confirmed that was appended to a deleted queue";
/// G8: the disks' half.
pub const NO_COPY_LEFT: &str = "G8: no disk holds a copy when nobody is left on the tombstone";
/// G10: see [`calm`].
pub const LEADER_FOUND: &str = "G10: when faults end, a leader is found that can confirm";
/// What docs/replication.md says of the high watermark.
pub const NEVER_CUT: &str = "G12: nobody is asked to cut what it knows to be committed";
/// Not a promise: shows that a search has got somewhere.
pub const LAST_EPOCH_CONFIRMS: &str = "reached: a message confirmed in the last epoch";

pub(crate) fn all(checked: &Checked) -> Vec<Property<Checked>> {
    let mut properties = vec![
        Property::always(ON_EVERY_DISK, |_, world: &World| on_every_disk(world)),
        Property::always(A_COPY_IS_LEFT, a_copy_is_left),
        Property::always(ONE_LEADER, |_, world: &World| !world.past.broken.two_leaders),
        Property::always(DEPOSED, |_, world: &World| !world.past.broken.confirmed_after_deposition),
        Property::always(NEVER_REFUSED, |_, world: &World| !world.past.broken.confirmed_refused),
        Property::always(IN_ORDER, |_, world: &World| !world.past.broken.reordered),
        Property::always(NEVER_CUT, |_, world: &World| !world.past.broken.cut_committed),
        Property::sometimes(LAST_EPOCH_CONFIRMS, last_epoch_confirms),
    ];
    if checked.protocol.bounds.deliveries {
        properties.push(Property::always(SETTLED, settled_are_not_delivered));
        properties.push(Property::always(ONLY_COMMITTED, only_committed_are_delivered));
    }
    if checked.protocol.bounds.deletes {
        properties.push(Property::always(NOT_INTO_DELETED, |_, world: &World| {
            !world.past.broken.confirmed_after_delete
        }));
        properties.push(Property::always(NO_COPY_LEFT, |_, world: &World| no_copy_is_left(world)));
    }
    if checked.protocol.bounds.calm {
        properties.push(Property::always(LEADER_FOUND, |checked: &Checked, world: &World| {
            calm::finds_a_leader(&checked.protocol, world)
        }));
    }
    properties
}

fn on_every_disk(world: &World) -> bool {
    // The start of an epoch is nobody's message: what matters is all up to the last message or settle.
    let starts = world.past.committed.trailing_epoch_starts();
    let confirmed = world.past.committed.cut(world.past.committed.len() - starts);
    world.state.deleted.is_some()
        || world.state.isr.members().all(|(member, store)| {
            let broker = &world.brokers[member];
            broker.store != store || broker.disk.starts_with(confirmed)
        })
}

fn a_copy_is_left(checked: &Checked, world: &World) -> bool {
    let left = |(member, store): (Id, u8)| world.brokers[member].store == store;
    world.spent.wipes >= checked.protocol.bounds.min_isr || world.state.isr.members().any(left)
}

/// Whether all is well with every leader that may deliver.
fn deliveries_are_well(checked: &Checked, world: &World, well: impl Fn(Id, Log) -> bool) -> bool {
    let protocol = &checked.protocol;
    (0..BROKERS)
        .filter(|id| protocol.may_deliver(world, *id))
        .all(|id| well(id, protocol.delivers_from(world, id)))
}

/// A leader keeps a message back whose settle it has appended, committed or not.
fn settled_are_not_delivered(checked: &Checked, world: &World) -> bool {
    deliveries_are_well(checked, world, |leader, log| {
        log.records().all(|record| match record.what {
            What::Message(number) => {
                let settle = What::Settle(number);
                world.brokers[leader].log.holds(settle) || !world.past.committed.holds(settle)
            }
            What::EpochStart | What::Settle(_) => true,
        })
    })
}

fn only_committed_are_delivered(checked: &Checked, world: &World) -> bool {
    deliveries_are_well(checked, world, |_, log| world.past.committed.starts_with(log))
}

fn no_copy_is_left(world: &World) -> bool {
    world.state.deleted != Some(0)
        || world.brokers.iter().all(|broker| broker.disk.is_empty() && broker.log.is_empty())
}

fn last_epoch_confirms(checked: &Checked, world: &World) -> bool {
    let epoch = checked.protocol.bounds.epochs;
    world
        .past
        .committed
        .records()
        .any(|record| record.epoch == epoch && matches!(record.what, What::Message(_)))
}
