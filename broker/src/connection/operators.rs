//! What operators ask: how a queue is and why, what the copy here holds, the last elections, what needs a person; and the order to
//! lead without the in-sync set.

use bellwether_log::{Batch, Record, RecordKind};
use bellwether_protocol::client::{
    Attention, CopyRole, CopyStatus, ReplicaStatus, Request, Response,
};
use bellwether_protocol::error::{ErrorBody, ErrorCode, Outcome};
use bellwether_protocol::ids::{Offset, OffsetRange, QueueId};
use bellwether_protocol::names::{QueueName, VirtualHost};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Service;
use super::requests::{SHARD_ANSWERS_WITHIN, late};
use super::session::CATCH_UP_FOR;
use crate::seams::SnapshotMore;
use crate::shard::input::ShardInput;

/// Copies that have stopped, by name, in one answer: each comes with some hundred bytes of words.
const STOPPED_MAX: u32 = 1_000;

pub(super) async fn carry_out(
    service: &Service,
    host: &VirtualHost,
    request: Request,
) -> Result<Response, ErrorBody> {
    let catalog = &service.catalog;
    match request {
        Request::QueueCondition { queue } => {
            look_for(service, host, &queue).await;
            let condition = catalog.condition(host, &queue).await?;
            Ok(Response::Condition(Box::new(condition)))
        }
        Request::ReplicaStatus { queue, count, below } => {
            look_for(service, host, &queue).await;
            let copy = copy_status(service, host, &queue, count, below).await?;
            Ok(Response::Replica(Box::new(ReplicaStatus { broker: catalog.me(), copy })))
        }
        Request::Elections { queue, limit } => {
            let elections = catalog.elections(host, queue.as_ref(), limit)?;
            Ok(Response::Elections(elections))
        }
        Request::Recover(recover) => catalog.recover(host, recover).await.map(Response::Recovered),
        Request::Attention { limit } => {
            let attention = attention(service, limit.min(STOPPED_MAX)).await?;
            Ok(Response::Attention(Box::new(attention)))
        }
        _ => {
            let words =
                "a request that is not an operator's came to be answered as one; please report it";
            Err(ErrorBody::not_done(ErrorCode::Internal, words))
        }
    }
}

/// It may have been declared a moment ago.
async fn look_for(service: &Service, host: &VirtualHost, queue: &QueueName) {
    if service.catalog.queue_named(host, queue).is_none() {
        service.catalog.look_closer(CATCH_UP_FOR).await;
    }
}

async fn copy_status(
    service: &Service,
    host: &VirtualHost,
    name: &QueueName,
    count: bool,
    below: Option<Offset>,
) -> Result<Option<CopyStatus>, ErrorBody> {
    let Some(queue) = service.catalog.queue_named(host, name) else {
        // The catalog says whether that is certain.
        service.catalog.condition(host, name).await?;
        return Ok(None);
    };
    let deadline = Instant::now() + SHARD_ANSWERS_WITHIN;
    let ask = |reply| ShardInput::CopyStatus { queue, reply };
    let Some((mut status, applied)) = ask_shard(service, name, queue, deadline, ask).await? else {
        return Ok(None);
    };
    let is_read = !matches!(status.role, CopyRole::Stopped | CopyRole::Fetches);
    // What is applied is not counted apart: an offset in the middle of it is one that should not have been asked about.
    let below = below.filter(|below| applied <= *below);
    status.enqueued_below = below.filter(|_| count && is_read).map(|_| status.enqueued);
    if count && is_read && !status.counted {
        let part = OffsetRange::new(applied, status.log_end);
        let tail = count_tail(service, name, queue, part, below, deadline).await?;
        status.enqueued += tail.messages;
        status.enqueued_below = status.enqueued_below.map(|counted| counted + tail.below);
        status.counted = true;
        status.last_message_ms = tail.last_ms.or(status.last_message_ms);
    }
    Ok(Some(status))
}

/// Messages in a part of a log that is not known to be committed, and so was not applied.
#[derive(Default)]
struct Tail {
    messages: u64,
    /// Of these those below the offset that was asked for.
    below: u64,
    last_ms: Option<u64>,
}

impl Tail {
    fn add(&mut self, batch: &Batch, below: Option<Offset>) {
        if batch.kind() != RecordKind::Enqueue {
            return;
        }
        self.messages += u64::from(batch.count());
        let cut = below.unwrap_or_default().clamp(batch.base(), batch.end());
        self.below += OffsetRange::new(batch.base(), cut).count();
        if let Ok(Record::Enqueue(enqueue)) = batch.record() {
            self.last_ms = Some(enqueue.time_ms);
        }
    }
}

async fn count_tail(
    service: &Service,
    name: &QueueName,
    queue: QueueId,
    part: OffsetRange,
    below: Option<Offset>,
    deadline: Instant,
) -> Result<Tail, ErrorBody> {
    let mut tail = Tail::default();
    let (mut next, end) = (part.first, part.end);
    while next < end {
        let ranges = vec![OffsetRange::new(next, end)];
        let ask = |reply| ShardInput::SnapshotMore { queue, ranges, reply };
        let batches = match ask_shard(service, name, queue, deadline, ask).await?? {
            SnapshotMore::Ready(batches) => batches,
            SnapshotMore::OnDisk(request) => {
                let read = tokio::task::spawn_blocking(move || request.run()).await;
                let broken = |error: String| ErrorBody::not_done(ErrorCode::CopyUnusable, error);
                read.map_err(|error| broken(error.to_string()))?
                    .map_err(|error| broken(error.to_string()))?
            }
        };
        let Some(last) = batches.last() else { break };
        next = last.end();
        batches.iter().for_each(|batch| tail.add(batch, below));
    }
    Ok(tail)
}

async fn attention(service: &Service, limit: u32) -> Result<Attention, ErrorBody> {
    let mut attention = service.catalog.attention(limit);
    attention.store_failed = service.metrics.journal_failed.get() > 0;
    attention.disk_full = service.metrics.disk_full.get() > 0;
    attention.disk_low = service.metrics.disk_low.get() > 0;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    for shard in 0..service.shards.shards() {
        let (reply, answered) = oneshot::channel();
        service.shards.send(shard, ShardInput::StoppedCopies { limit, reply }).await;
        let answer = tokio::time::timeout(SHARD_ANSWERS_WITHIN, answered).await;
        let (count, stopped) = answer
            .map_err(|_| {
                ErrorBody::not_done(ErrorCode::TimedOut, "a part of this broker does not answer")
            })?
            .map_err(|_| super::shutting_down())?;
        attention.stopped_count += count;
        attention.stopped.extend(stopped);
    }
    attention.stopped.truncate(limit);
    Ok(attention)
}

async fn ask_shard<T>(
    service: &Service,
    name: &QueueName,
    queue: QueueId,
    deadline: Instant,
    ask: impl FnOnce(oneshot::Sender<T>) -> ShardInput,
) -> Result<T, ErrorBody> {
    let (reply, answered) = oneshot::channel();
    service.shards.send(service.shards.shard_of(queue), ask(reply)).await;
    match tokio::time::timeout_at(deadline, answered).await {
        Ok(answer) => answer.map_err(|_stopped| super::shutting_down()),
        Err(_elapsed) => Err(late(name, Outcome::NotDone)),
    }
}

#[cfg(test)]
mod tests {
    use bellwether_log::Enqueue;
    use bellwether_protocol::ids::Epoch;
    use bellwether_protocol::message::MessageBlock;
    use bellwether_protocol::names::ExchangeName;
    use bytes::Bytes;

    use super::*;

    /// Three messages take offsets 5 to 8, an epoch start 8 to 9, two more 9 to 11.
    #[test]
    fn messages_below_an_offset_are_counted_apart_also_within_a_batch() {
        let queue = QueueId(uuid::Uuid::from_u128(7));
        let enqueue = |base, count: u32| {
            let message = [0x92, 0xc0, 0xc4, 0x01, b'x'];
            let messages = Bytes::from(message.repeat(count as usize));
            let record = Record::Enqueue(Enqueue {
                time_ms: 40 + u64::from(count),
                producer: None,
                exchange: ExchangeName::new("").unwrap(),
                routing_key: "q".parse().unwrap(),
                messages: MessageBlock::validate(messages, count).unwrap(),
            });
            Batch::encode(queue, Epoch(1), Offset(base), &record)
        };
        let leader = bellwether_protocol::ids::BrokerLife {
            broker: bellwether_protocol::ids::BrokerId(1),
            incarnation: bellwether_protocol::ids::Incarnation(1),
        };
        let start = Record::EpochStart { leader, time_ms: 1 };
        let start = Batch::encode(queue, Epoch(1), Offset(8), &start);
        let log = [enqueue(5, 3), start, enqueue(9, 2)];
        let counted = |below: Option<u64>| {
            let mut tail = Tail::default();
            log.iter().for_each(|batch| tail.add(batch, below.map(Offset)));
            (tail.messages, tail.below, tail.last_ms)
        };
        let below: Vec<_> = [4, 5, 7, 8, 9, 10, 20].map(|at| counted(Some(at)).1).to_vec();
        assert_eq!(below, [0, 0, 2, 3, 3, 4, 5]);
        assert_eq!(counted(None), (5, 0, Some(42)));
    }
}
