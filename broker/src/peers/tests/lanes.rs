//! The two lanes of an outbox, and what is larger than a frame.

use super::*;

#[tokio::test]
async fn a_control_frame_overtakes_bodies_that_wait() {
    let outbox = outbox::Outbox::new(8 * 1024 * 1024);
    for base in 0..20 {
        let run = run_of(queue(1), &[batch_of(queue(1), base, 200_000)]);
        assert_eq!(outbox.push(PeerFrame::Append(vec![run])), Pushed::Taken);
    }
    outbox.next().await.unwrap();
    outbox.push(PeerFrame::PromiseAsk { number: 1 });
    outbox.push(PeerFrame::Committed(vec![(queue(1), Epoch(1), Offset(9))]));
    let next = outbox.next().await.unwrap().frames;
    assert_eq!(next[0], PeerFrame::PromiseAsk { number: 1 });
    assert_eq!(next[1], PeerFrame::Committed(vec![(queue(1), Epoch(1), Offset(9))]));
    assert!(matches!(next[2], PeerFrame::Append(_)));
}

#[tokio::test]
async fn reports_of_a_queue_that_wait_become_one() {
    let outbox = outbox::Outbox::new(1);
    for end in [5, 9, 7] {
        outbox.push(PeerFrame::Durable(vec![(queue(1), Epoch(2), Offset(end))]));
    }
    let next = outbox.next().await.unwrap().frames;
    assert_eq!(next, [PeerFrame::Durable(vec![(queue(1), Epoch(2), Offset(9))])]);
}

/// With a report behind its `Unsubscribe` a deposed leader could confirm what its successor lacks.
#[tokio::test]
async fn no_report_goes_out_behind_the_end_of_its_subscription() {
    let outbox = outbox::Outbox::new(1);
    outbox.push(PeerFrame::Durable(vec![
        (queue(1), Epoch(2), Offset(5)),
        (queue(2), Epoch(2), Offset(6)),
    ]));
    outbox.push(PeerFrame::Unsubscribe(vec![(queue(1), Epoch(2))]));
    let next = outbox.next().await.unwrap().frames;
    assert_eq!(
        next,
        [
            PeerFrame::Unsubscribe(vec![(queue(1), Epoch(2))]),
            PeerFrame::Durable(vec![(queue(2), Epoch(2), Offset(6))]),
        ]
    );
}

#[tokio::test]
async fn a_full_outbox_says_so_and_tells_of_room() {
    let outbox = outbox::Outbox::new(400_000);
    let append = || PeerFrame::Append(vec![run_of(queue(1), &[batch_of(queue(1), 0, 200_000)])]);
    assert_eq!(outbox.push(append()), Pushed::Taken);
    assert_eq!(outbox.push(append()), Pushed::Taken);
    assert_eq!(outbox.push(append()), Pushed::Full);
    assert_eq!(
        outbox.push(PeerFrame::PromiseAsk { number: 1 }),
        Pushed::Taken,
        "promises are never refused"
    );
    while !outbox.next().await.unwrap().room {}
    outbox.close();
    assert_eq!(outbox.push(append()), Pushed::Closed);
}

#[tokio::test]
async fn a_batch_larger_than_a_frame_arrives_whole() {
    let (mut follower, leader, _) = follower_and_leader().await;
    let batches = [
        batch_of(queue(1), 0, 100),
        batch_of(queue(1), 1, 3_000_000),
        batch_of(queue(1), 2, 100_000),
        batch_of(queue(1), 3, 200_000),
    ];
    let run = run_of(queue(1), &batches);
    assert!(run.batches.len() > bellwether_protocol::frame::PEER_FRAME_BYTES_MAX);
    assert_eq!(
        leader.peers.to_follower(life(2, 1), PeerFrame::Append(vec![run])),
        SendOutcome::Sent
    );
    let mut arrived = Vec::new();
    while arrived.len() < batches.len() {
        let runs = follower.hears_frame(|frame| match frame {
            PeerFrame::Append(runs) => Some(runs),
            _ => None,
        });
        for run in runs.await {
            assert_eq!((run.queue, run.high_watermark), (queue(1), Offset(3)));
            arrived.extend(decoded(run.batches));
        }
    }
    assert_eq!(arrived, batches);
}
