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
        Response::Cluster(cluster) => (cluster.brokers.len() + cluster.absent.len()) * ENTRY,
        Response::Users(list) => list.len() * ENTRY,
        Response::Credentials(list) => list.len() * ENTRY,
        Response::Browsed(browsed) => {
            let messages: usize = browsed.runs.iter().map(|run| run.messages.len()).sum();
            browsed.runs.len() * ENTRY + messages
        }
        _ => ENTRY,
    }
}

fn words(error: &ErrorBody) -> usize {
    error.message.len()
}
