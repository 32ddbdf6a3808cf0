//! Tails of older epochs: what a copy appended, or was streamed, in an epoch that ended before it was confirmed is not in the queue. Counted
//! against what a later leader confirmed it would make a loss look smaller than it is.

use bellwether_client::{BrokerId, Client, CopyStatus, Epoch, Offset};

use crate::commands::explain::facts::{Facts, count_apart};

/// From where on a copy may hold messages that were never confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Nowhere: all of it is of the last epoch there is known to be, or known to be committed.
    None,
    /// From this offset on, where an epoch begins that this copy knows nothing of. With epochs in between, of which nothing is known,
    /// perhaps sooner: then it is not `exact`.
    From { at: Offset, exact: bool },
    /// Perhaps somewhere: what is known of later epochs does not say where they begin.
    Unknown,
}

/// What the copy holds that may be held against what is known to be confirmed, and whether that is all that is known.
pub fn held(facts: &Facts, copy: &CopyStatus) -> (u64, bool) {
    match (tail(facts, copy), copy.enqueued_below) {
        (Tail::None, _) => (copy.enqueued, true),
        (Tail::From { at, exact }, _) if at >= copy.log_end => (copy.enqueued, exact),
        (Tail::From { exact, .. }, Some(below)) => (below, exact),
        // It holds at most all of it: the loss is no smaller than that says.
        (Tail::From { .. }, None) | (Tail::Unknown, _) => (copy.enqueued, false),
    }
}

/// See the module.
pub fn tail(facts: &Facts, copy: &CopyStatus) -> Tail {
    if copy.high_watermark >= copy.log_end {
        return Tail::None;
    }
    let last = copy.last_epoch.unwrap_or(Epoch(0));
    let note = facts.condition.committed;
    let noted = note.and_then(|note| note.term);
    let others = facts.holders.iter().filter_map(|holder| holder.copy());
    let later = others.filter(|other| is_known(other)).filter_map(|other| {
        let epoch = other.last_epoch.filter(|epoch| *epoch > last)?;
        Some((epoch, other.epoch_start))
    });
    let noted = noted.filter(|(epoch, _)| *epoch > last).map(|(epoch, at)| (epoch, Some(at)));
    // The first of them begins where this copy's last epoch ended.
    match later.chain(noted).min() {
        Some((epoch, Some(at))) => Tail::From { at, exact: epoch == last.next() },
        // Written by brokers of older versions, which did not say.
        Some((_, None)) => Tail::Unknown,
        None if note.is_some_and(|note| note.term.is_none()) => Tail::Unknown,
        None => Tail::None,
    }
}

/// Of another copy just those messages count that it knows to be committed.
pub fn is_known(copy: &CopyStatus) -> bool {
    copy.counted && copy.high_watermark == copy.log_end
}

/// Has each copy with such a tail count what lies before it.
pub async fn count(client: &Client, facts: &mut Facts) {
    let tails: Vec<(BrokerId, Offset)> = facts
        .holders
        .iter()
        .filter_map(|holder| match tail(facts, holder.copy()?) {
            Tail::From { at, .. } if at < holder.copy()?.log_end => Some((holder.broker, at)),
            Tail::From { .. } | Tail::None | Tail::Unknown => None,
        })
        .collect();
    for (broker, at) in tails {
        count_apart(client, facts, broker, at).await;
    }
}
