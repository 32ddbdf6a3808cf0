//! Frames, promises, forwards and snapshots between two brokers.

use super::*;

#[tokio::test]
async fn two_brokers_find_each_other_and_talk() {
    let (follower, mut leader, _) = follower_and_leader().await;
    let subscribe = PeerFrame::Subscribe(vec![subscription(queue(1), Epoch(4))]);
    assert!(follower.peers.to_leader(life(1, 1), subscribe.clone()));
    let heard =
        leader.hears_frame(|frame| matches!(frame, PeerFrame::Subscribe(_)).then_some(frame)).await;
    assert_eq!(heard, subscribe);
    assert_eq!(
        leader.peers.to_follower(life(2, 9), PeerFrame::Heartbeat),
        SendOutcome::Down,
        "another life"
    );
    assert!(leader.peers.to_broker(BrokerId(2), PeerFrame::PositionAsk(vec![queue(1)])));
}

#[tokio::test]
async fn a_frame_about_many_queues_is_split_by_shard() {
    let mut leader = Broker::with(1, 2, CLUSTER, 1 << 20).await;
    let mut follower = Broker::start(2).await;
    follower.dials(1, leader.address);
    follower.hears_up(Side::Dialed).await;
    let ends = (1..=4).map(|number| (queue(number), Epoch(1), Offset(9))).collect();
    assert!(follower.peers.to_leader(life(1, 1), PeerFrame::Durable(ends)));
    let mut heard = [0, 0];
    while heard != [2, 2] {
        let (shard, ends) = leader
            .hears(|shard, input| match input {
                ShardInput::Peer(PeerNews::Frames { frames, .. }) => match &frames[..] {
                    [PeerFrame::Durable(ends)] => Some((shard, ends.clone())),
                    _ => None,
                },
                _ => None,
            })
            .await;
        assert!(ends.iter().all(|(queue, _, _)| queue.0.as_u128() % 2 == shard as u128));
        heard[shard] += ends.len();
    }
}

#[tokio::test]
async fn a_promise_prolongs_the_lease_and_a_lost_connection_ends_it() {
    let (follower, mut leader, promises) = follower_and_leader().await;
    eventually("a promise", || promises.holds(Instant::now())).await;
    let in_the_far_future = Instant::now() + PROMISE;
    assert!(
        !promises.holds(in_the_far_future),
        "the lease is two thirds of T from the ask at most"
    );
    eventually("a later promise", || promises.holds(in_the_far_future)).await;
    drop(follower);
    leader.hears_down(Side::Accepted).await;
    assert!(!promises.holds(Instant::now()));
}

#[tokio::test]
async fn an_unsubscribe_ends_the_lease_of_its_queue_before_any_later_promise() {
    let (follower, mut leader, _) = follower_and_leader().await;
    let lease = Lease::default();
    leader.leases.grant(queue(1), &lease, Vec::new());
    assert!(
        follower.peers.to_leader(life(1, 1), PeerFrame::Unsubscribe(vec![(queue(1), Epoch(1))]))
    );
    leader.hears_frame(|frame| matches!(frame, PeerFrame::Unsubscribe(_)).then_some(())).await;
    assert!(!lease.holds(Instant::now()));
}

/// Outcomes of publishes, as their origin hears them.
#[derive(Default)]
struct Origin(Mutex<Vec<(u64, Result<(), ErrorBody>)>>);

impl PublishOrigin for Origin {
    fn outcomes(&self, outcomes: Vec<(u64, Result<(), ErrorBody>)>) {
        self.0.lock().unwrap().extend(outcomes);
    }
}

fn publish_of(origin: &Arc<Origin>, token: u64, bytes: usize) -> QueuePublish {
    QueuePublish {
        queue: queue(1),
        token,
        origin: origin.clone(),
        producer: None,
        previous: Seq(0),
        chained: false,
        first: Seq(token),
        resent: false,
        exchange: ExchangeName::default(),
        routing_key: RoutingKey::new("orders").unwrap(),
        messages: MessageBlock::from_messages([(None, Bytes::from(vec![1; bytes]))]),
    }
}

#[tokio::test]
async fn a_forwarded_publish_brings_its_outcome_home() {
    let (follower, mut leader, _) = follower_and_leader().await;
    let origin = Arc::new(Origin::default());
    // Small, larger than a chunk, and one that the leader does not answer.
    for (token, bytes) in [(1, 100), (2, 2_000_000), (3, 100)] {
        assert!(follower.peers.forward(life(1, 1), publish_of(&origin, token, bytes)).is_ok());
    }
    let mut arrived = Vec::new();
    while arrived.len() < 3 {
        arrived.extend(
            leader
                .hears(|_, input| match input {
                    ShardInput::Publish(publishes) => Some(publishes),
                    _ => None,
                })
                .await,
        );
    }
    let sizes: Vec<usize> =
        arrived.iter().map(|publish| publish.messages.iter().next().unwrap().size()).collect();
    assert_eq!(sizes, [100, 2_000_000, 100]);
    arrived[0].origin.outcomes(vec![
        (arrived[0].token, Ok(())),
        (arrived[1].token, Err(ErrorBody::not_done(ErrorCode::NotLeader, "not here"))),
    ]);
    eventually("two outcomes", || origin.0.lock().unwrap().len() == 2).await;

    drop(leader);
    eventually("the outcome of the third", || origin.0.lock().unwrap().len() == 3).await;
    let outcomes = origin.0.lock().unwrap();
    assert_eq!(outcomes[0], (1, Ok(())));
    assert_eq!(outcomes[1].1.as_ref().unwrap_err().code, ErrorCode::NotLeader);
    let lost = outcomes[2].1.as_ref().unwrap_err();
    assert_eq!((lost.code, lost.outcome), (ErrorCode::Unconfirmed, Outcome::Unknown));
    drop(outcomes);
    assert!(
        follower.peers.forward(life(1, 1), publish_of(&origin, 4, 1)).is_err(),
        "comes back: no connection"
    );
}

#[tokio::test]
async fn a_snapshot_comes_over_a_connection_of_its_own() {
    let (mut follower, mut leader, _) = follower_and_leader().await;
    let batches =
        [batch_of(queue(1), 0, 600_000), batch_of(queue(1), 4, 10), batch_of(queue(1), 9, 10)];
    let state = Bytes::from(vec![3; 700_000]);
    follower.peers.fetch_snapshot(life(1, 1), queue(1), Epoch(1), 1);

    let reply = leader.hears(|_, input| match input {
        ShardInput::SnapshotAsked { queue: asked, epoch: Epoch(1), reply } if asked == queue(1) => {
            Some(reply)
        }
        _ => None,
    });
    let live =
        vec![OffsetRange::new(Offset(0), Offset(5)), OffsetRange::new(Offset(9), Offset(10))];
    let head = SnapshotHead {
        at: Offset(10),
        high_watermark: Offset(10),
        state: state.clone(),
        epochs: vec![(Epoch(1), Offset(0))],
        live,
    };
    assert!(reply.await.send(Ok(head)).is_ok());
    // One batch at a time, as if they were large.
    for batch in &batches {
        let (ranges, reply) = leader
            .hears(|_, input| match input {
                ShardInput::SnapshotMore { ranges, reply, .. } => Some((ranges, reply)),
                _ => None,
            })
            .await;
        assert!(ranges[0].first <= batch.base(), "{ranges:?}");
        assert!(reply.send(Ok(SnapshotMore::Ready(vec![batch.clone()]))).is_ok());
    }

    let mut arrived = Vec::new();
    loop {
        let part = follower.hears(|_, input| match input {
            ShardInput::Peer(PeerNews::Snapshot { part, .. }) => Some(part),
            _ => None,
        });
        match part.await {
            SnapshotPart::Head { at, state: arrived, .. } => {
                assert_eq!((at, arrived), (Offset(10), state.clone()))
            }
            SnapshotPart::Live(bytes) => arrived.extend(decoded(bytes)),
            SnapshotPart::End => break,
            SnapshotPart::Failed(why) => panic!("{why}"),
        }
    }
    assert_eq!(arrived, batches);
}

#[tokio::test]
async fn a_snapshot_that_is_refused_or_breaks_off_says_so() {
    let (mut follower, mut leader, _) = follower_and_leader().await;
    follower.peers.fetch_snapshot(life(1, 1), queue(1), Epoch(1), 1);
    let reply = leader.hears(|_, input| match input {
        ShardInput::SnapshotAsked { reply, .. } => Some(reply),
        _ => None,
    });
    let refusal = Err(ErrorBody::not_done(ErrorCode::NotLeader, "led elsewhere"));
    assert!(reply.await.send(refusal).is_ok());
    let why = follower.hears(|_, input| match input {
        ShardInput::Peer(PeerNews::Snapshot { part: SnapshotPart::Failed(why), .. }) => Some(why),
        _ => None,
    });
    assert!(why.await.contains("led elsewhere"));
}
