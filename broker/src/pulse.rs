//! Whether the broker is alive: not that the process exists, but that every shard answers. For watchdogs: a process whose shards hang
//! holds its coordinator session, and so its leaderships, and serves nobody.

use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::shard::Shards;
use crate::shard::input::ShardInput;

/// How often the shards are asked.
const ASK: Duration = Duration::from_secs(1);

/// Asks every shard, again and again, and moves `beats` whenever all of them have answered. A shard that does not answer stops
/// the pulse; one that is only busy answers when it comes to it.
pub(crate) async fn beat(shards: Shards, beats: watch::Sender<u64>, stop: CancellationToken) {
    let asking = async {
        loop {
            if all_answer(&shards).await {
                beats.send_modify(|beats| *beats += 1);
            }
            tokio::time::sleep(ASK).await;
        }
    };
    tokio::select! {
        () = asking => {}
        () = stop.cancelled() => {}
    }
}

async fn all_answer(shards: &Shards) -> bool {
    for shard in shards.all() {
        let (reply, answer) = oneshot::channel();
        shard.send(ShardInput::Ping { reply }).await;
        if answer.await.is_err() {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of two shards hangs: it has a mailbox, and nobody reads it.
    #[tokio::test(start_paused = true)]
    async fn one_shard_that_does_not_answer_stops_the_pulse() {
        let (shards, mailboxes) = Shards::new(2);
        let mut mailboxes = mailboxes.for_tests().into_iter();
        let (mut lively, mut hung) = (mailboxes.next().unwrap(), mailboxes.next().unwrap());
        let (beats, mut pulse) = watch::channel(0);
        let stop = CancellationToken::new();
        let beating = tokio::spawn(beat(shards, beats, stop.clone()));
        let answering = tokio::spawn(async move {
            while let Some(input) = lively.recv().await {
                if let ShardInput::Ping { reply } = input {
                    reply.send(()).expect("it is waited for");
                }
            }
        });
        let Some(ShardInput::Ping { reply }) = hung.recv().await else { panic!("it is asked") };
        reply.send(()).unwrap();
        pulse.changed().await.unwrap();
        assert_eq!(*pulse.borrow_and_update(), 1);
        // From here on the second one hangs. The clock is a test's: an hour passes at once.
        let beaten = tokio::time::timeout(Duration::from_secs(3600), pulse.changed()).await;
        assert!(beaten.is_err(), "the pulse went on without it");
        stop.cancel();
        beating.await.unwrap();
        answering.await.unwrap();
    }
}
