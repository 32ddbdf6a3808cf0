//! Showing messages without taking them: what the shard read, cut to what one answer holds.

use std::time::Instant;

use bellwether_log::Batch;
use bellwether_protocol::client::{
    BROWSE_BYTES_MAX, BROWSE_MESSAGES_MAX, Browse, Browsed, DeliveredRun, Response,
};
use bellwether_protocol::error::{ErrorBody, ErrorCode, Outcome};
use bellwether_protocol::ids::{Offset, QueueId};
use bellwether_protocol::message::MessageBlock;
use bellwether_protocol::names::VirtualHost;
use bellwether_queue::Shown;
use bytes::Bytes;

use super::Service;
use super::requests::ask_shard;
use crate::shard::browse::{Browsing, Look, lease_is_not_there};
use crate::shard::deliver::part_of;
use crate::shard::input::ShardInput;

/// What a run takes in a frame besides its messages and the names of its address, in bytes.
const RUN_OVERHEAD_BYTES: usize = 64;

pub(super) async fn browse(
    service: &Service,
    host: &VirtualHost,
    asked: Browse,
) -> Result<Response, ErrorBody> {
    let Browse { queue, from, until, messages_max, bytes_max } = asked;
    if messages_max == 0 || until.is_some_and(|until| until < from) {
        let words = "an ask to browse is for at least one message, and `until` is not below `from`";
        return Err(ErrorBody::not_done(ErrorCode::InvalidOption, words));
    }
    let messages_max = u64::from(messages_max.min(BROWSE_MESSAGES_MAX));
    let bytes_max = bytes_max.min(BROWSE_BYTES_MAX) as usize;
    let look = Look { from, until, messages_max, bytes_max };
    let ask = |queue, reply| ShardInput::Browse { queue, look, reply };
    let (id, browsing) = ask_shard(service, host, &queue, Outcome::NotDone, ask).await?;
    let lease = browsing.lease.clone();
    let room = Room { messages: messages_max, bytes: bytes_max, is_empty: true };
    let browsed = cut(id, *browsing, room)
        .map_err(|why| ErrorBody::not_done(ErrorCode::QueueStopped, why))?;
    // The read may have taken its time: what a successor has settled meanwhile is not for a deposed leader to show.
    if !lease.holds(Instant::now()) {
        return Err(lease_is_not_there(queue.as_str()));
    }
    Ok(Response::Browsed(browsed))
}

/// What an answer may still hold.
struct Room {
    messages: u64,
    bytes: usize,
    is_empty: bool,
}

impl Room {
    /// How many of the first messages of a run there is room for, in their order.
    fn take(&mut self, run: &DeliveredRun) -> u32 {
        let names = run.exchange.as_str().len() + run.routing_key.as_str().len();
        let mut overhead = RUN_OVERHEAD_BYTES + names;
        let mut count = 0;
        for message in run.messages.iter() {
            // Its own array and lengths beside headers and body.
            let bytes = message.size() + 16 + overhead;
            if self.messages == 0 || (bytes > self.bytes && !self.is_empty) {
                break;
            }
            self.bytes = self.bytes.saturating_sub(bytes);
            (self.is_empty, overhead) = (false, 0);
            self.messages -= 1;
            count += 1;
        }
        count
    }
}

/// As many of the messages as were read and there is room for, and where to go on behind them.
fn cut(queue: QueueId, browsing: Browsing, mut room: Room) -> Result<Browsed, String> {
    let Browsing { epoch, shown, next, high_watermark, batches, held, lease: _ } = browsing;
    let (mut runs, mut at) = (Vec::new(), None);
    let mut whole = true;
    'shown: for Shown { run: range, redelivered, returns } in shown {
        let mut behind = range.first;
        for batch in overlapping(&batches, range.first, range.end) {
            let Some(mut run) = part_of(batch, range, redelivered, returns)? else { continue };
            if run.first != behind {
                break;
            }
            let count = room.take(&run);
            let all = run.messages.count();
            let end = Offset(run.first.0 + u64::from(count));
            if count > 0 {
                run.messages = part(&run.messages, count);
                runs.push(run);
                (behind, at) = (end, Some(end));
            }
            if count < all {
                whole = false;
                break 'shown;
            }
        }
        if behind < range.end {
            // Nothing further was read.
            whole = false;
            break;
        }
    }
    drop(held);
    match (whole, at) {
        (true, _) => Ok(Browsed { queue, epoch, runs, next, high_watermark }),
        (false, Some(at)) => Ok(Browsed { queue, epoch, runs, next: at, high_watermark }),
        (false, None) => Err("unsettled messages are not where the log says".to_owned()),
    }
}

/// The batches, which ascend, that reach into a range.
fn overlapping(batches: &[Batch], first: Offset, end: Offset) -> impl Iterator<Item = &Batch> {
    let from = batches.partition_point(|batch| batch.end() <= first);
    batches[from..].iter().take_while(move |batch| batch.base() < end)
}

/// A copy: an answer that waits for its client would else keep all that was read for it in memory, a mebibyte for a few bytes.
fn part(messages: &MessageBlock, count: u32) -> MessageBlock {
    let part = messages.slice(0, count);
    MessageBlock::from_trusted(count, Bytes::copy_from_slice(part.bytes()))
}
