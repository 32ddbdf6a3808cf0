//! Brokers have no names of their own: worlds that differ by who is called what count as one.

use std::cmp::Ordering;

use crate::world::{BROKERS, Cas, Id, Isr, Life, Promises, State, World};

/// All ways to rename three brokers: the one at index `i` becomes `renaming[i]`.
const RENAMINGS: [[Id; BROKERS]; 6] =
    [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// The one of all worlds that differ by names alone.
#[must_use]
pub fn representative(world: &World) -> World {
    // In the order of what they hold and do; where two are alike in that, all orders are tried.
    let rank = |id: Id| {
        let broker = &world.brokers[id];
        (broker.log, broker.disk, broker.role, broker.life, broker.store, broker.high_watermark)
    };
    let ranks = [rank(0), rank(1), rank(2)];
    let in_order = |to: &&[Id; BROKERS]| {
        [(0, 1), (0, 2), (1, 2)].into_iter().all(|(one, other)| {
            match ranks[one].cmp(&ranks[other]) {
                Ordering::Less => to[one] < to[other],
                Ordering::Equal => true,
                Ordering::Greater => to[one] > to[other],
            }
        })
    };
    RENAMINGS.iter().filter(in_order).map(|to| renamed(world, to)).min().unwrap_or(*world)
}

fn renamed(world: &World, to: &[Id; BROKERS]) -> World {
    let mut next = *world;
    next.state = state(&world.state, to);
    next.late = world.late.map(|(id, said)| (to[usize::from(id)] as u8, state(&said, to)));
    next.promises = promises(world.promises, to);
    for (from, name) in to.iter().copied().enumerate() {
        next.under_way[name] = world.under_way[from].map(|asked| cas(&asked, to));
        let broker = &mut next.brokers[name];
        *broker = world.brokers[from];
        broker.seen = state(&broker.seen, to);
        broker.pending = broker.pending.map(|asked| cas(&asked, to));
        broker.waits = promises(broker.waits, to);
        for (other, report) in world.brokers[from].reports.into_iter().enumerate() {
            broker.reports[to[other]] = report;
        }
    }
    for leader in &mut next.past.leaders {
        *leader = leader.checked_sub(1).map_or(0, |id| to[usize::from(id)] as u8 + 1);
    }
    next
}

fn state(state: &State, to: &[Id; BROKERS]) -> State {
    let mut next = *state;
    next.leader =
        state.leader.map(|life| Life { broker: to[usize::from(life.broker)] as u8, ..life });
    let mut isr = Isr::default();
    for (member, store) in state.isr.members() {
        isr = isr.with(to[member], store);
    }
    next.isr = isr;
    next.deleted = state.deleted.map(|listed| {
        (0..BROKERS).filter(|id| listed & (1 << id) != 0).map(|id| 1 << to[id]).sum()
    });
    next
}

fn cas(asked: &Cas, to: &[Id; BROKERS]) -> Cas {
    Cas { proposal: state(&asked.proposal, to), ..*asked }
}

fn promises(promises: Promises, to: &[Id; BROKERS]) -> Promises {
    let mut next = Promises::default();
    if promises == next {
        return next;
    }
    for (from, name) in to.iter().enumerate() {
        for (other, others_name) in to.iter().enumerate() {
            if promises.has(Promises::one(from, other)) {
                next = next.and(Promises::one(*name, *others_name));
            }
        }
    }
    next
}
