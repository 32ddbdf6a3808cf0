//! Stories of a publisher: order through failovers, fan-out, credit.

mod history;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bellwether_protocol::client::{BrokerFrame, Publish};
use bellwether_protocol::error::{ErrorBody, ErrorCode, Outcome};
use bellwether_protocol::ids::{
    BrokerId, BrokerLife, Epoch, Incarnation, ProducerHandle, QueueId, Seq, SeqRange,
};
use bellwether_protocol::message::MessageBlock;
use bellwether_protocol::names::{ExchangeName, ProducerName, RoutingKey};
use bytes::Bytes;

use super::*;

const P: ProducerHandle = ProducerHandle(7);
const ORDERS: QueueId = QueueId(uuid::Uuid::from_u128(1));
const AUDIT: QueueId = QueueId(uuid::Uuid::from_u128(2));

#[derive(Default)]
struct Led(HashMap<QueueId, Leadership>);

impl Leaders for Led {
    fn leader(&self, queue: QueueId) -> Leadership {
        self.0.get(&queue).copied().unwrap_or(Leadership::Gone)
    }
}

fn led_by(broker: u32, epoch: u64) -> Leadership {
    let life = BrokerLife { broker: BrokerId(broker), incarnation: Incarnation(u64::from(broker)) };
    Leadership::Led(Lead { life, epoch: Epoch(epoch) })
}

/// A publisher with one producer, and the world around it.
struct World {
    publisher: Publisher,
    leaders: Led,
    now: Instant,
    sent: Vec<Dispatch>,
}

/// What a leader sees of a dispatch.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    broker: u32,
    first: u64,
    /// The number it says it follows.
    follows: Option<u64>,
    resent: bool,
}

fn seen(broker: u32, first: u64, follows: Option<u64>, resent: bool) -> Seen {
    Seen { broker, first, follows, resent }
}

impl World {
    fn new(name: Option<&str>) -> World {
        World::with_credit(name, 1_000)
    }

    fn with_credit(name: Option<&str>, credit_messages: u64) -> World {
        let limits = PublishLimits {
            producers_max: 4,
            credit_messages,
            credit_bytes: 100 * credit_messages,
            message_bytes_max: 1_000,
        };
        let mut publisher = Publisher::new(limits);
        publisher.attach(P, name.map(|name| ProducerName::new(name).unwrap())).unwrap();
        let leaders = Led([(ORDERS, led_by(1, 1)), (AUDIT, led_by(1, 1))].into());
        let mut world = World { publisher, leaders, now: Instant::now(), sent: Vec::new() };
        world.frames();
        world
    }

    fn named() -> World {
        World::new(Some("shop"))
    }

    /// Publishes `count` messages from number `first` on.
    fn publish(&mut self, first: u64, count: usize, queues: &[QueueId]) {
        self.publish_routed(first, count, Ok(queues));
    }

    fn publish_routed(&mut self, first: u64, count: usize, queues: Result<&[QueueId], ErrorBody>) {
        let messages =
            MessageBlock::from_messages((0..count).map(|_| (None, Bytes::from_static(b"body"))));
        let frame = Publish {
            producer: P,
            first: Seq(first),
            resent: false,
            exchange: ExchangeName::default(),
            routing_key: RoutingKey::new("orders").unwrap(),
            messages,
        };
        self.publisher.publish(self.now, frame, queues);
    }

    /// What goes to leaders now.
    fn dispatch(&mut self) -> Vec<Seen> {
        let mut out = Vec::new();
        self.publisher.dispatch(self.now, &self.leaders, &mut out);
        let shown = out.iter().map(|dispatch| Seen {
            broker: dispatch.to.life.broker.0,
            first: dispatch.first.0,
            follows: dispatch.chained.then_some(dispatch.previous.0),
            resent: dispatch.resent,
        });
        let shown = shown.collect();
        self.sent.extend(out);
        shown
    }

    /// The leader answers the latest attempt at the batch beginning at `first` for `queue`.
    fn answer(&mut self, queue: QueueId, first: u64, result: Result<(), ErrorBody>) {
        let is_it = |dispatch: &&Dispatch| dispatch.queue == queue && dispatch.first == Seq(first);
        let token = self.sent.iter().rev().find(is_it).expect("it was sent").token;
        self.publisher.outcomes(self.now, [(token, result)]);
    }

    fn leader_changes(&mut self, queue: QueueId, leadership: Leadership) {
        self.leaders.0.insert(queue, leadership);
        self.publisher.look_again();
    }

    fn passes(&mut self, time: Duration) {
        self.now += time;
        self.publisher.tick();
    }

    fn frames(&mut self) -> Vec<BrokerFrame> {
        let mut frames = Vec::new();
        self.publisher.frames(Grants::Free, &mut frames);
        frames
    }

    fn confirmed(&mut self) -> Vec<(u64, u64)> {
        let ranges = self.frames().into_iter().flat_map(|frame| match frame {
            BrokerFrame::Confirmed { ranges, .. } => ranges,
            _ => Vec::new(),
        });
        ranges.map(|SeqRange { first, last }| (first.0, last.0)).collect()
    }

    fn failed(&mut self) -> Vec<(u64, ErrorCode, Outcome)> {
        let failed = self.frames().into_iter().filter_map(|frame| match frame {
            BrokerFrame::PublishFailed { range, error, .. } => {
                Some((range.first.0, error.code, error.outcome))
            }
            _ => None,
        });
        failed.collect()
    }
}

fn refused(code: ErrorCode) -> Result<(), ErrorBody> {
    Err(ErrorBody::not_done(code, "no"))
}

fn unconfirmed() -> Result<(), ErrorBody> {
    Err(ErrorBody::unknown(ErrorCode::Unconfirmed, "who knows"))
}

#[test]
fn a_message_is_confirmed_only_when_every_queue_it_was_routed_to_has_it() {
    let mut world = World::named();
    world.publish(1, 10, &[ORDERS, AUDIT]);
    assert_eq!(world.dispatch().len(), 2);
    world.answer(ORDERS, 1, Ok(()));
    assert_eq!(world.confirmed(), []);
    world.answer(AUDIT, 1, Ok(()));
    assert_eq!(world.confirmed(), [(1, 10)]);
}

#[test]
fn a_message_that_no_binding_takes_is_confirmed_at_once() {
    let mut world = World::named();
    world.publish(1, 1, &[]);
    assert_eq!(world.dispatch(), []);
    assert_eq!(world.confirmed(), [(1, 1)]);
}

#[test]
fn what_part_of_the_fanout_stored_is_not_called_not_done() {
    let mut world = World::named();
    world.publish(1, 1, &[ORDERS, AUDIT]);
    world.dispatch();
    world.answer(ORDERS, 1, Ok(()));
    world.answer(AUDIT, 1, refused(ErrorCode::DiskFull));
    assert_eq!(world.failed(), [(1, ErrorCode::DiskFull, Outcome::Unknown)]);
}

#[test]
fn batches_under_way_say_what_they_follow_and_confirmed_ones_are_not_named() {
    let mut world = World::named();
    world.publish(1, 5, &[ORDERS]);
    world.publish(6, 5, &[ORDERS]);
    assert_eq!(world.dispatch(), [seen(1, 1, None, false), seen(1, 6, Some(5), false)]);
    world.answer(ORDERS, 1, Ok(()));
    world.answer(ORDERS, 6, Ok(()));
    world.publish(11, 1, &[ORDERS]);
    assert_eq!(world.dispatch(), [seen(1, 11, None, false)]);
}

#[test]
fn when_another_broker_leads_everything_unconfirmed_goes_there_again_in_order() {
    let mut world = World::named();
    for first in [1, 2, 3] {
        world.publish(first, 1, &[ORDERS]);
    }
    world.dispatch();
    world.answer(ORDERS, 1, Ok(()));
    world.leader_changes(ORDERS, led_by(2, 2));
    world.publish(4, 1, &[ORDERS]);
    assert_eq!(
        world.dispatch(),
        [seen(2, 2, None, true), seen(2, 3, Some(2), true), seen(2, 4, Some(3), false)]
    );
    for first in [2, 3, 4] {
        world.answer(ORDERS, first, Ok(()));
    }
    assert_eq!(world.confirmed(), [(1, 4)]);
}

#[test]
fn a_late_answer_of_the_former_leader_decides_nothing() {
    let mut world = World::named();
    world.publish(1, 1, &[ORDERS]);
    world.dispatch();
    let former = world.sent[0].token;
    world.leader_changes(ORDERS, led_by(2, 2));
    world.dispatch();
    world.publisher.outcomes(world.now, [(former, refused(ErrorCode::DiskFull))]);
    assert_eq!(world.failed(), []);
    world.answer(ORDERS, 1, Ok(()));
    assert_eq!(world.confirmed(), [(1, 1)]);
}

#[test]
fn a_leader_that_does_not_serve_yet_is_asked_again_soon_and_order_is_kept() {
    let mut world = World::named();
    world.publish(1, 1, &[ORDERS]);
    world.publish(2, 1, &[ORDERS]);
    world.dispatch();
    world.answer(ORDERS, 1, refused(ErrorCode::NotLeader));
    world.answer(ORDERS, 2, refused(ErrorCode::OutOfSequence));
    assert_eq!(world.dispatch(), [], "not at once: the leader needs a moment");
    assert!(world.publisher.wake_at().is_some_and(|at| at <= world.now + RETRY_PAUSE_MIN));
    world.passes(RETRY_PAUSE_MIN);
    assert_eq!(world.dispatch(), [seen(1, 1, None, false), seen(1, 2, Some(1), false)]);
}

#[test]
fn the_answer_is_not_awaited_for_ever() {
    let mut world = World::named();
    world.leader_changes(ORDERS, Leadership::Vacant);
    world.publish(1, 1, &[ORDERS]);
    assert_eq!(world.dispatch(), []);
    world.leader_changes(AUDIT, led_by(2, 1));
    world.publish(2, 1, &[AUDIT]);
    world.dispatch();
    world.passes(RETRY_FOR);
    world.dispatch();
    let mut failed = world.failed();
    failed.sort_unstable_by_key(|failed| failed.0);
    assert_eq!(
        failed,
        [(1, ErrorCode::NotLeader, Outcome::NotDone), (2, ErrorCode::TimedOut, Outcome::Unknown)],
        "the first was never sent; the second may have been stored"
    );
}

/// Were the third batch stored while the second was refused, a retry of the second would look like a duplicate, and be
/// confirmed without having been stored.
#[test]
fn nothing_is_accepted_behind_a_refused_batch_until_the_client_goes_back() {
    let mut world = World::named();
    for first in [1, 2, 3] {
        world.publish(first, 1, &[ORDERS]);
    }
    world.dispatch();
    world.answer(ORDERS, 1, Ok(()));
    world.answer(ORDERS, 2, refused(ErrorCode::DiskFull));
    world.answer(ORDERS, 3, refused(ErrorCode::OutOfSequence));
    // Sent before the client has heard of it.
    world.publish(4, 1, &[ORDERS]);
    assert_eq!(world.dispatch(), []);
    assert_eq!(
        world.failed(),
        [
            (2, ErrorCode::DiskFull, Outcome::NotDone),
            (3, ErrorCode::OutOfSequence, Outcome::NotDone),
            (4, ErrorCode::OutOfSequence, Outcome::NotDone)
        ]
    );
    world.publish(2, 1, &[ORDERS]);
    world.publish(3, 1, &[ORDERS]);
    assert_eq!(world.dispatch(), [seen(1, 2, None, false), seen(1, 3, Some(2), false)]);
}

#[test]
fn a_client_that_gives_a_message_up_goes_on_after_one_refusal() {
    let mut world = World::named();
    world.publish(1, 1, &[ORDERS]);
    world.dispatch();
    world.answer(ORDERS, 1, refused(ErrorCode::DiskFull));
    world.publish(2, 1, &[ORDERS]);
    assert_eq!(world.failed()[1], (2, ErrorCode::OutOfSequence, Outcome::NotDone));
    world.publish(2, 1, &[ORDERS]);
    assert_eq!(world.dispatch(), [seen(1, 2, None, false)]);
}

/// Told of the third before the second, the client might send the third again, and have it stored.
#[test]
fn the_consequence_is_told_after_its_cause() {
    let mut world = World::named();
    world.publish(2, 1, &[ORDERS, AUDIT]);
    world.publish(3, 1, &[ORDERS]);
    world.dispatch();
    world.answer(ORDERS, 2, refused(ErrorCode::DiskFull));
    world.answer(ORDERS, 3, refused(ErrorCode::OutOfSequence));
    assert_eq!(world.failed(), [], "the other queue has not answered for the second");
    world.answer(AUDIT, 2, refused(ErrorCode::DiskFull));
    let failed: Vec<u64> = world.failed().into_iter().map(|failed| failed.0).collect();
    assert_eq!(failed, [2, 3]);
}

#[test]
fn what_was_under_way_when_a_batch_failed_is_not_sent_to_another_leader() {
    let mut world = World::named();
    world.publish(1, 1, &[ORDERS]);
    world.publish(2, 1, &[ORDERS]);
    world.dispatch();
    world.answer(ORDERS, 1, refused(ErrorCode::DiskFull));
    world.leader_changes(ORDERS, led_by(2, 2));
    assert_eq!(world.dispatch(), []);
    assert_eq!(world.failed()[1], (2, ErrorCode::Unconfirmed, Outcome::Unknown));
}

#[test]
fn other_queues_of_the_producer_are_not_held_up_by_a_refusal_of_one() {
    let mut world = World::named();
    world.publish(1, 1, &[ORDERS]);
    world.dispatch();
    world.answer(ORDERS, 1, refused(ErrorCode::DiskFull));
    world.publish(2, 1, &[AUDIT]);
    assert_eq!(world.dispatch(), [seen(1, 2, None, false)]);
}

/// The exchange may be declared, and the batch be sent again, after higher numbers have reached a queue.
#[test]
fn nothing_is_accepted_behind_a_batch_without_an_exchange_until_the_client_goes_back() {
    let mut world = World::named();
    let unknown = ErrorBody::not_done(ErrorCode::NoSuchExchange, "no such exchange");
    world.publish_routed(1, 1, Err(unknown));
    world.publish(2, 1, &[ORDERS]);
    assert_eq!(world.dispatch(), []);
    let codes: Vec<ErrorCode> = world.failed().into_iter().map(|failed| failed.1).collect();
    assert_eq!(codes, [ErrorCode::NoSuchExchange, ErrorCode::OutOfSequence]);
    world.publish(1, 1, &[ORDERS]);
    world.publish(2, 1, &[ORDERS]);
    assert_eq!(world.dispatch().len(), 2);
}

#[test]
fn without_a_name_a_refused_batch_is_not_overtaken() {
    let mut world = World::new(None);
    for first in [1, 2, 3] {
        world.publish(first, 1, &[ORDERS]);
    }
    assert_eq!(world.dispatch(), [seen(1, 1, None, false)], "until the leader has taken one");
    world.answer(ORDERS, 1, refused(ErrorCode::NotLeader));
    world.passes(RETRY_PAUSE_MIN);
    assert_eq!(world.dispatch(), [seen(1, 1, None, false)]);
    world.answer(ORDERS, 1, Ok(()));
    world.publisher.tick();
    assert_eq!(world.dispatch(), [seen(1, 2, None, false), seen(1, 3, None, false)]);
}

#[test]
fn without_a_name_answers_of_the_former_leader_are_awaited_for_a_while() {
    let mut world = World::new(None);
    world.publish(1, 1, &[ORDERS]);
    world.dispatch();
    world.leader_changes(ORDERS, led_by(2, 2));
    assert_eq!(world.dispatch(), [], "it may be confirmed yet: sent again it would be there twice");
    world.passes(FORMER_LEADER_GRACE);
    assert_eq!(world.dispatch(), [seen(2, 1, None, true)]);
}

#[test]
fn a_lost_link_makes_the_outcome_unknown_unless_another_attempt_is_confirmed() {
    let mut world = World::named();
    world.publish(1, 1, &[ORDERS]);
    world.dispatch();
    world.answer(ORDERS, 1, unconfirmed());
    world.passes(RETRY_PAUSE_MIN);
    assert_eq!(world.dispatch(), [seen(1, 1, None, true)]);
    world.answer(ORDERS, 1, refused(ErrorCode::DiskFull));
    assert_eq!(
        world.failed(),
        [(1, ErrorCode::Unconfirmed, Outcome::Unknown)],
        "the first attempt may have been stored"
    );
}

#[test]
fn a_full_mailbox_delays_and_does_not_reorder() {
    let mut world = World::named();
    world.publish(1, 1, &[ORDERS]);
    world.publish(2, 1, &[ORDERS]);
    world.dispatch();
    let tokens: Vec<u64> = world.sent.iter().map(|dispatch| dispatch.token).collect();
    for token in tokens {
        world.publisher.undelivered(world.now, token, false);
    }
    world.publish(3, 1, &[ORDERS]);
    assert_eq!(
        world.dispatch(),
        [seen(1, 1, None, false), seen(1, 2, Some(1), false), seen(1, 3, Some(2), false)]
    );
}

#[test]
fn messages_of_a_deleted_queue_are_refused() {
    let mut world = World::named();
    world.leader_changes(ORDERS, Leadership::Vacant);
    world.publish(1, 1, &[ORDERS]);
    world.dispatch();
    world.leader_changes(ORDERS, Leadership::Gone);
    world.dispatch();
    assert_eq!(world.failed(), [(1, ErrorCode::NoSuchQueue, Outcome::NotDone)]);
}

#[test]
fn neighbouring_confirms_are_told_in_one_range() {
    let mut world = World::named();
    for first in [1, 11, 21] {
        world.publish(first, 10, &[ORDERS]);
    }
    world.dispatch();
    for first in [11, 1, 21] {
        world.answer(ORDERS, first, Ok(()));
    }
    assert_eq!(world.confirmed(), [(1, 30)]);
}

#[test]
fn who_ignores_the_credit_is_refused_and_costs_nothing() {
    let mut world = World::named();
    world.publish(1, 1_000, &[ORDERS]);
    world.publish(1_001, 1, &[ORDERS]);
    assert_eq!(world.failed(), [(1_001, ErrorCode::CreditExceeded, Outcome::NotDone)]);
    assert_eq!(world.dispatch().len(), 1);
}

#[test]
fn a_message_over_the_limit_is_refused_by_its_size() {
    let mut world = World::named();
    let messages = MessageBlock::from_messages([(None, Bytes::from(vec![0; 1_001]))]);
    let frame = Publish {
        producer: P,
        first: Seq(1),
        resent: false,
        exchange: ExchangeName::default(),
        routing_key: RoutingKey::new("orders").unwrap(),
        messages,
    };
    world.publisher.publish(world.now, frame, Ok(&[ORDERS]));
    assert_eq!(world.failed(), [(1, ErrorCode::MessageTooLarge, Outcome::NotDone)]);
}

#[test]
fn a_producer_that_leaves_still_hears_of_what_is_open() {
    let mut world = World::named();
    world.publish(1, 1, &[ORDERS]);
    world.dispatch();
    world.publisher.detach(P).unwrap();
    world.answer(ORDERS, 1, Ok(()));
    assert_eq!(world.confirmed(), [(1, 1)]);
    assert_eq!(world.publisher.attached(), 0);
    world.publish(2, 1, &[ORDERS]);
    assert_eq!(world.failed(), [(2, ErrorCode::NoSuchProducer, Outcome::NotDone)]);
}

/// Histories drawn from a fixed seed, against leaders that behave as real ones do: the copy of each queue holds every
/// confirmed message once, in order, whatever fails when.
#[test]
fn no_history_of_failovers_and_refusals_loses_or_reorders_what_was_confirmed() {
    for seed in 0..60 {
        history::run(seed);
    }
}
