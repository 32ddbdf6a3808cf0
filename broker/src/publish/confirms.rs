//! Confirmed numbers of a producer: gathered as ranges, sent as one frame.

use bellwether_protocol::client::BrokerFrame;
use bellwether_protocol::ids::{ProducerHandle, SeqRange};

/// Adds a range; neighbours become one.
pub(super) fn gather(confirmed: &mut Vec<SeqRange>, range: SeqRange) {
    match confirmed.last_mut() {
        Some(last) if last.last.0.checked_add(1) == Some(range.first.0) => last.last = range.last,
        _ => confirmed.push(range),
    }
}

/// The frame for what was gathered, sorted and without overlaps; none for nothing.
pub(super) fn frame(
    producer: ProducerHandle,
    mut confirmed: Vec<SeqRange>,
    out: &mut Vec<BrokerFrame>,
) {
    if confirmed.is_empty() {
        return;
    }
    confirmed.sort_unstable();
    let mut ranges: Vec<SeqRange> = Vec::with_capacity(confirmed.len());
    for range in confirmed {
        match ranges.last_mut() {
            // A number sent twice may be confirmed twice.
            Some(last) if range.first.0 <= last.last.0.saturating_add(1) => {
                last.last = last.last.max(range.last)
            }
            _ => ranges.push(range),
        }
    }
    out.push(BrokerFrame::Confirmed { producer, ranges });
}
