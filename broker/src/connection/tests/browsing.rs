//! Looking at a queue: an answer holds what there is room for, and only under the lease.

use bellwether_log::{Batch, Enqueue, Record};
use bellwether_protocol::client::{BROWSE_BYTES_MAX, Browse, Browsed};
use bellwether_queue::Shown;

use super::*;
use crate::memory::PoolLimits;
use crate::shard::browse::{BrowseReply, Browsing, Look};

fn browse(messages_max: u32, bytes_max: u32) -> Request {
    let (from, until) = (Offset(3), Some(Offset(30)));
    Request::Browse(Browse { queue: queue("orders"), from, until, messages_max, bytes_max })
}

fn batch(world: &World, base: u64, messages: MessageBlock) -> Batch {
    let record = Record::Enqueue(Enqueue {
        producer: None,
        time_ms: 0,
        exchange: ExchangeName::default(),
        routing_key: RoutingKey::new("orders").unwrap(),
        messages,
    });
    Batch::encode(world.orders, Epoch(1), Offset(base), &record)
}

fn shown(first: u64, end: u64) -> Shown {
    let run = OffsetRange::new(Offset(first), Offset(end));
    Shown { run, redelivered: false, returns: 0 }
}

async fn look(world: &World) -> (Look, BrowseReply) {
    let look = world.around.shard.next(|input| match input {
        ShardInput::Browse { look, reply, .. } => Some((look, reply)),
        _ => None,
    });
    look.await
}

impl World {
    /// The answer to a browse of these messages, of which so much was read.
    async fn browses(&mut self, asked: Request, shown: Vec<Shown>, batches: Vec<Batch>) -> Browsed {
        let id = self.ask(asked).await;
        let (_, reply) = look(self).await;
        let browsing = browsing(shown, batches, lease());
        assert!(reply.send(Ok(Box::new(browsing))).is_ok());
        match self.answer().await {
            BrokerFrame::Response { id: of, response: Response::Browsed(browsed) } if of == id => {
                browsed
            }
            other => panic!("{other:?}"),
        }
    }
}

fn browsing(shown: Vec<Shown>, batches: Vec<Batch>, lease: Lease) -> Browsing {
    let (next, high_watermark) = (Offset(30), Offset(40));
    Browsing { epoch: Epoch(1), lease, shown, next, high_watermark, batches, held: None }
}

fn offsets(browsed: &Browsed) -> Vec<(u64, u64)> {
    let range = |run: &DeliveredRun| (run.first.0, run.first.0 + u64::from(run.messages.count()));
    browsed.runs.iter().map(range).collect()
}

#[tokio::test]
async fn what_was_read_is_shown_and_where_to_go_on() {
    let mut world = World::new().await;
    let batches = vec![batch(&world, 0, block(10)), batch(&world, 10, block(10))];
    let all = vec![shown(3, 5), shown(7, 15)];
    let browsed = world.browses(browse(100, 10_000), all, batches).await;
    assert_eq!(offsets(&browsed), [(3, 5), (7, 10), (10, 15)]);
    assert_eq!((browsed.next, browsed.high_watermark), (Offset(30), Offset(40)));
    assert_eq!((browsed.queue, browsed.epoch), (world.orders, Epoch(1)));
}

/// Each answer may take a mebibyte: clients that browse and read nothing filled the memory, as nothing was counted before it was made.
#[tokio::test(start_paused = true)]
async fn nothing_is_read_for_a_browse_while_answers_have_no_room() {
    let mut world = World::new().await;
    world.metrics.memory.limit(PoolLimits::split(100 << 20, 1 << 20, 1 << 20));
    let full = world.metrics.memory.limit_of(Pool::Answers).unwrap();
    world.metrics.memory.held(Pool::Answers).add(full);
    world.ask(browse(100, 10_000)).await;
    assert!(timeout(Duration::from_secs(5), look(&world)).await.is_err(), "no shard was asked");
    world.metrics.memory.held(Pool::Answers).subtract(full);
    world.metrics.memory.answers_read.notify_one();
    look(&world).await;
}

#[tokio::test]
async fn what_was_not_read_or_has_no_room_comes_with_the_next_ask() {
    let mut world = World::new().await;
    let all = vec![shown(3, 5), shown(7, 15)];
    let batches = vec![batch(&world, 0, block(10))];
    let browsed = world.browses(browse(100, 10_000), all.clone(), batches.clone()).await;
    assert_eq!((offsets(&browsed), browsed.next), (vec![(3, 5), (7, 10)], Offset(10)));
    let browsed = world.browses(browse(3, 10_000), all.clone(), batches.clone()).await;
    assert_eq!((offsets(&browsed), browsed.next), (vec![(3, 5), (7, 8)], Offset(8)));
    let browsed = world.browses(browse(100, 1), all, batches).await;
    assert_eq!((offsets(&browsed), browsed.next), (vec![(3, 4)], Offset(4)), "one at least");
}

#[tokio::test]
async fn nobody_gets_more_than_an_answer_may_hold_by_asking_for_it() {
    let mut world = World::new().await;
    world.ask(browse(u32::MAX, u32::MAX)).await;
    let (look, reply) = look(&world).await;
    assert_eq!((look.messages_max, look.bytes_max), (10_000, BROWSE_BYTES_MAX as usize));
    let half = MessageBlock::from_messages(
        (0..4).map(|_| (None, Bytes::from(vec![7; BROWSE_BYTES_MAX as usize / 2]))),
    );
    let batches = vec![batch(&world, 3, half)];
    assert!(reply.send(Ok(Box::new(browsing(vec![shown(3, 7)], batches, lease())))).is_ok());
    let BrokerFrame::Response { response: Response::Browsed(browsed), .. } = world.answer().await
    else {
        panic!("no answer");
    };
    assert_eq!((offsets(&browsed), browsed.next), (vec![(3, 4)], Offset(4)));
}

/// A read that took long: meanwhile a successor was elected, and what is shown here was settled there.
#[tokio::test]
async fn what_was_read_under_a_lease_that_is_over_is_not_shown() {
    let mut world = World::new().await;
    let asked = world.ask(browse(100, 10_000)).await;
    let (_, reply) = look(&world).await;
    let (batches, lost) = (vec![batch(&world, 0, block(10))], lease());
    lost.end();
    assert!(reply.send(Ok(Box::new(browsing(vec![shown(3, 5)], batches, lost)))).is_ok());
    match world.answer().await {
        BrokerFrame::Failure { id, error } => {
            assert_eq!(
                (id, error.code, error.outcome),
                (asked, ErrorCode::NotLeader, Outcome::NotDone)
            );
            assert!(error.message.contains("promises"), "{}", error.message);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_ask_for_nothing_and_one_that_ends_before_it_begins_are_refused() {
    let mut world = World::new().await;
    assert_eq!(world.refused(browse(0, 1)).await.code, ErrorCode::InvalidOption);
    let backwards = Request::Browse(Browse {
        queue: queue("orders"),
        from: Offset(3),
        until: Some(Offset(2)),
        messages_max: 1,
        bytes_max: 1,
    });
    assert_eq!(world.refused(backwards).await.code, ErrorCode::InvalidOption);
}
