//! Settles of a connection: checked, gathered for a turn, and handed to the shards.

use bellwether_protocol::client::{BrokerFrame, Settle};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::ids::ConsumerHandle;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Session;
use crate::shard::input::{ConsumerSettle, ShardInput};

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Session<S> {
    pub(super) fn settle(&mut self, settle: Settle) {
        let Settle { consumer, number, epoch, settlement, ranges } = settle;
        let outlet = self.consumers.get(&consumer).filter(|outlet| !outlet.is_closed());
        let refused = match outlet.and_then(|outlet| Some((outlet, outlet.queue()?))) {
            Some((outlet, _)) if !outlet.takes_number(number) => {
                let words = format!("settle number {number} is not higher than the one before it");
                ErrorBody::not_done(ErrorCode::InvalidOption, words)
            }
            Some((outlet, queue)) => {
                let settle = ConsumerSettle {
                    queue,
                    consumer: outlet.key,
                    number,
                    epoch,
                    settlement,
                    ranges,
                };
                self.settles[self.service.shards.shard_of(queue)].push(settle);
                return;
            }
            None if self.consumers.contains_key(&consumer) => {
                let words = "the consumer was closed; what it held goes back to the queue";
                ErrorBody::not_done(ErrorCode::Stale, words)
            }
            None => no_such_consumer(consumer),
        };
        self.outbox.push(BrokerFrame::SettleFailed { consumer, number, error: refused });
    }

    pub(in super::super) async fn send_settles(&mut self) {
        for (shard, settles) in self.settles.iter_mut().enumerate() {
            if !settles.is_empty() {
                self.service.shards.send(shard, ShardInput::Settle(std::mem::take(settles))).await;
            }
        }
    }
}

pub(in super::super) fn no_such_consumer(handle: ConsumerHandle) -> ErrorBody {
    let words = format!("no consumer with handle {} is attached on this connection", handle.0);
    ErrorBody::not_done(ErrorCode::NoSuchConsumer, words)
}
