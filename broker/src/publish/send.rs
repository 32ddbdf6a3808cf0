//! Hands dispatches over: to this broker's shards in batches, to other brokers one by one.

use std::sync::Arc;
use std::time::Instant;

use bellwether_protocol::ids::{BrokerId, BrokerLife};

use super::gates::{PeerGate, ShardGate};
use super::lane::Dispatch;
use super::publisher::Publisher;
use crate::shard::input::{PublishOrigin, QueuePublish, ShardInput};

/// Shards whose mailbox was full: their publishes wait in the publisher, which withholds credit meanwhile.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stalled {
    pub shards: Vec<usize>,
}

/// The way from one connection's publisher to the leaders.
pub struct Dispatcher {
    me: BrokerId,
    shards: Arc<dyn ShardGate>,
    peers: Arc<dyn PeerGate>,
    origin: Arc<dyn PublishOrigin>,
    batches: Vec<Vec<QueuePublish>>,
    /// Links found down in this round, so that nothing overtakes what could not be sent.
    down: Vec<BrokerLife>,
}

impl Dispatcher {
    pub fn new(
        me: BrokerId,
        shards: Arc<dyn ShardGate>,
        peers: Arc<dyn PeerGate>,
        origin: Arc<dyn PublishOrigin>,
    ) -> Dispatcher {
        let batches = (0..shards.shards()).map(|_| Vec::new()).collect();
        Dispatcher { me, shards, peers, origin, batches, down: Vec::new() }
    }

    /// Sends all of `dispatches`, and tells `publisher` of those that did not go. Answers how many messages were forwarded.
    pub fn send(
        &mut self,
        now: Instant,
        dispatches: &mut Vec<Dispatch>,
        publisher: &mut Publisher,
        stalled: &mut Stalled,
    ) -> u64 {
        let mut forwarded = 0;
        self.down.clear();
        for dispatch in dispatches.drain(..) {
            let to = dispatch.to.life;
            let messages = u64::from(dispatch.messages.count());
            let publish = self.publish(dispatch);
            if to.broker == self.me {
                self.batches[self.shards.shard_of(publish.queue)].push(publish);
            } else if self.down.contains(&to) {
                publisher.undelivered(now, publish.token, true);
            } else if let Err(publish) = self.peers.forward(to, publish) {
                self.down.push(to);
                publisher.undelivered(now, publish.token, true);
            } else {
                forwarded += messages;
            }
        }
        self.send_batches(now, publisher, stalled);
        forwarded
    }

    fn send_batches(&mut self, now: Instant, publisher: &mut Publisher, stalled: &mut Stalled) {
        stalled.shards.clear();
        for (shard, batch) in self.batches.iter_mut().enumerate() {
            if batch.is_empty() {
                continue;
            }
            let input = ShardInput::Publish(std::mem::take(batch));
            let Err(input) = self.shards.try_send(shard, input) else { continue };
            stalled.shards.push(shard);
            if let ShardInput::Publish(batch) = *input {
                for publish in batch {
                    publisher.undelivered(now, publish.token, false);
                }
            }
        }
    }

    fn publish(&self, dispatch: Dispatch) -> QueuePublish {
        QueuePublish {
            queue: dispatch.queue,
            token: dispatch.token,
            origin: Arc::clone(&self.origin),
            producer: dispatch.producer,
            previous: dispatch.previous,
            chained: dispatch.chained,
            first: dispatch.first,
            resent: dispatch.resent,
            exchange: dispatch.exchange,
            routing_key: dispatch.routing_key,
            messages: dispatch.messages,
        }
    }
}
