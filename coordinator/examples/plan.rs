//! How long the controller plans: `cargo run --release -p bellwether-coordinator --example plan [QUEUES]`. Five brokers, three
//! copies of each queue; at rest, after a sixth has joined, and with one that is to lead nothing.

use std::time::{Duration, Instant};

use bellwether_coordinator::balance::{BrokerView, Picture, QueueView, Standing};
use bellwether_coordinator::coordinator::Version;
use bellwether_coordinator::records::{QueueState, UnknownFields};
use bellwether_protocol::ids::{BrokerId, Epoch, Member, QueueId, StoreId};
use uuid::Uuid;

/// Of so many looks the middle one is shown.
const LOOKS: usize = 9;
/// Leaderships moved in one look, as by the controller.
const LEADERS_MAX: usize = 256;

fn main() {
    let asked = std::env::args().nth(1).map(|queues| queues.parse::<u128>());
    let queues = asked.transpose().expect("a number of queues").unwrap_or(10_000);
    let states = spread(queues);
    look("at rest", &states, &brokers(&[Standing::Serves; 5]));
    look("after a sixth has joined", &states, &brokers(&[Standing::Serves; 6]));
    let drained = [vec![Standing::LeadsNothing], vec![Standing::Serves; 4]].concat();
    look("with one that is to lead nothing", &states, &brokers(&drained));
}

fn brokers(standings: &[Standing]) -> Vec<BrokerView> {
    let views = (1..).zip(standings);
    views
        .map(|(id, standing)| BrokerView { broker: BrokerId(id), rack: None, standing: *standing })
        .collect()
}

/// Queues whose copies and leaderships are even.
fn spread(queues: u128) -> Vec<(QueueId, QueueState)> {
    (0..queues).map(state).collect()
}

fn state(number: u128) -> (QueueId, QueueState) {
    let id = QueueId(Uuid::from_u128(number));
    let first = u32::try_from(number % 5).expect("below five");
    let replicas: Vec<BrokerId> = (0..3).map(|next| BrokerId((first + next) % 5 + 1)).collect();
    let member = |broker: &BrokerId| Member { broker: *broker, store: StoreId(Uuid::nil()) };
    let state = QueueState {
        epoch: Epoch(1),
        leader: None,
        isr: replicas.iter().map(member).collect(),
        min_isr: 2,
        replicas,
        given_up: Vec::new(),
        past: Box::default(),
        unknown: UnknownFields::new(),
    };
    (id, state)
}

fn views(states: &[(QueueId, QueueState)]) -> Vec<QueueView<'_>> {
    states
        .iter()
        .map(|(queue, state)| QueueView {
            queue: *queue,
            wanted: 3,
            min_isr: 2,
            state,
            version: Version(0),
        })
        .collect()
}

fn look(when: &str, states: &[(QueueId, QueueState)], brokers: &[BrokerView]) {
    let mut took: Vec<Duration> = Vec::with_capacity(LOOKS);
    let mut changes = 0;
    for _ in 0..LOOKS {
        let begun = Instant::now();
        let picture = Picture::new(brokers.to_vec(), views(states));
        changes = picture.min_isr_to_raise().len()
            + usize::from(picture.next_copy().is_some())
            + picture.next_leaders(LEADERS_MAX).len();
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    println!("{} queues, {when}: {changes} changes, {:?}", states.len(), took[LOOKS / 2]);
}
