//! About how many bytes a frame that waits for a client takes in memory.

use bellwether_protocol::client::{BrokerFrame, Response};
use bellwether_protocol::error::ErrorBody;

/// What every frame takes.
const FRAME: usize = size_of::<super::outbox::Item>();
/// What an entry of a list takes, names of a common length included.
const ENTRY: usize = 192;

/// Only lists and words count for more than themselves: nothing else grows.
pub(super) fn weight(frame: &BrokerFrame) -> usize {
    FRAME
        + match frame {
            BrokerFrame::Response { response, .. } => answer(response),
            BrokerFrame::Failure { error, .. }
            | BrokerFrame::PublishFailed { error, .. }
            | BrokerFrame::SettleFailed { error, .. }
            | BrokerFrame::ConsumerClosed { error, .. }
            | BrokerFrame::Goodbye(error) => words(error),
            BrokerFrame::Confirmed { ranges, .. } => size_of_val(ranges.as_slice()),
            _ => 0,
        }
}

fn answer(response: &Response) -> usize {
    match response {
        Response::Exchanges(list) => list.len() * ENTRY,
        Response::Queues(list) => list.len() * ENTRY,
        Response::Bindings(list) => list.len() * ENTRY,
        Response::Definitions(list) => list.len() * ENTRY,
        Response::Elections(list) => list.len() * 2 * ENTRY,
        Response::Users(list) => {
            list.iter().map(|user| ENTRY + user.permissions.len() * 2 * ENTRY).sum()
        }
        Response::Settings(list) => {
            list.iter().map(|(key, value)| ENTRY + key.len() + value.len()).sum()
        }
        Response::Plan { moves, .. } => moves.len() * ENTRY,
        Response::Cluster(cluster) => (cluster.brokers.len() + cluster.absent.len()) * ENTRY,
        Response::Condition(condition) => (4 + condition.live.len()) * ENTRY,
        Response::Attention(attention) => {
            let troubled = [
                &attention.without_leader,
                &attention.tainted,
                &attention.below_min_isr,
                &attention.under_replicated,
            ];
            let named: usize = troubled.iter().map(|queues| queues.first.len()).sum();
            (2 + named + 2 * attention.stopped.len()) * ENTRY
        }
        Response::Replica(_) => 4 * ENTRY,
        Response::Done
        | Response::Declared { .. }
        | Response::Purged { .. }
        | Response::Queue { .. }
        | Response::Recovered(_)
        | Response::ProducerAttached
        | Response::ConsumerAttached(_) => ENTRY,
    }
}

fn words(error: &ErrorBody) -> usize {
    error.message.len()
}
