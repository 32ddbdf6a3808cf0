//! Settles on their way: gathered into ranges, sent, confirmed. Pure: no socket, no clock, no task.
//!
//! What the application settles between two writes goes into one frame for each kind of settlement: a *ticket*.
//! Receipts ask for their ticket; "resolved, and not among the failures" means confirmed.

use std::collections::{HashMap, VecDeque};
use std::task::{Poll, Waker};

use bellwether_protocol::client::Settlement;
use bellwether_protocol::ids::{Offset, OffsetRange};

use super::ranges::Ranges;
use crate::error::SettleError;

/// Ranges that one frame carries at most: far below any frame limit.
const RANGES_MAX: usize = 4096;

/// A settle was sent and not answered, and the next leader neither has it nor lets this consumer settle again.
const LOST_ON_ITS_WAY: &str = "the leader was lost before it answered, and its successor does not say that the settle is done; the message may come again";
/// The same of one that was not sent.
const TAKEN_AWAY: &str = "the leader was lost, and another consumer has the message or will get it";

/// Names a frame of settles, over the life of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(u64);

/// One frame of settles.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// Its number on this attachment.
    pub(crate) number: u64,
    pub(crate) settlement: Settlement,
    pub(crate) ranges: Vec<OffsetRange>,
}

#[derive(Debug, Default)]
pub(crate) struct Settles {
    /// Tickets handed out so far.
    issued: u64,
    /// Tickets handed out before this attachment: its own numbers begin at one.
    before: u64,
    /// At most one for each settlement; ascending by ticket.
    gathering: Vec<Gathering>,
    /// Closed: full, or to be sent again; ascending by ticket. Bounded by the prefetch.
    full: VecDeque<Gathering>,
    /// One for each ticket from the lowest unresolved on.
    open: VecDeque<Open>,
    /// Failed tickets whose receipts are still held.
    failures: HashMap<Ticket, Failed>,
}

#[derive(Debug)]
struct Gathering {
    ticket: Ticket,
    settlement: Settlement,
    ranges: Ranges,
    /// It was sent to a leader that is gone: that one may have settled it.
    sent: bool,
}

#[derive(Debug, Default)]
struct Open {
    progress: Progress,
    /// The leader did not settle it, or is gone before it knew: the next one decides.
    doubtful: bool,
    receipts: u32,
    wakers: Vec<Waker>,
}

#[derive(Debug, Default)]
enum Progress {
    #[default]
    Gathered,
    /// What of, should the answer not come.
    Sent(Settlement, Vec<OffsetRange>),
    Resolved,
}

impl Open {
    fn is_resolved(&self) -> bool {
        matches!(self.progress, Progress::Resolved)
    }
}

/// What a leader made of what a consumer had of the one before it.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// It holds these, in the leader's epoch.
    pub(crate) held: Ranges,
    /// These are settled.
    pub(crate) settled: Ranges,
}

#[derive(Debug)]
struct Failed {
    error: SettleError,
    receipts: u32,
}

impl Settles {
    /// Takes these offsets to the frame that is being gathered.
    pub(crate) fn add(&mut self, settlement: Settlement, range: OffsetRange) -> Ticket {
        let at = match self.gathering.iter().position(|frame| frame.settlement == settlement) {
            Some(at) if self.gathering[at].ranges.len() < RANGES_MAX => at,
            Some(_) => {
                // All of them, so that numbers go out in order.
                self.full.extend(self.gathering.drain(..));
                self.gather(settlement)
            }
            None => self.gather(settlement),
        };
        self.gathering[at].ranges.insert(range);
        self.gathering[at].ticket
    }

    fn gather(&mut self, settlement: Settlement) -> usize {
        self.issued += 1;
        let ticket = Ticket(self.issued);
        self.open.push_back(Open::default());
        let ranges = Ranges::default();
        self.gathering.push(Gathering { ticket, settlement, ranges, sent: false });
        self.gathering.len() - 1
    }

    /// Somebody will ask what became of this ticket.
    pub(crate) fn receipt(&mut self, ticket: Ticket) {
        if let Some(open) = self.open_mut(ticket) {
            open.receipts += 1;
        }
    }

    pub(crate) fn has_unsent(&self) -> bool {
        !self.full.is_empty() || !self.gathering.is_empty()
    }

    /// Whether everything is resolved.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The next frame to send.
    pub(crate) fn next_order(&mut self) -> Option<Order> {
        if self.full.is_empty() {
            self.full.extend(self.gathering.drain(..));
        }
        let frame = self.full.pop_front()?;
        let ranges = frame.ranges.into_vec();
        if let Some(open) = self.open_mut(frame.ticket) {
            open.progress = Progress::Sent(frame.settlement, ranges.clone());
        }
        Some(Order { number: frame.ticket.0 - self.before, settlement: frame.settlement, ranges })
    }

    /// All frames of this attachment up to this number are committed, but for those that failed.
    pub(crate) fn settled(&mut self, up_to: u64, wake: &mut Vec<Waker>) {
        let last = Ticket(self.before.saturating_add(up_to));
        let mut ticket = self.lowest();
        for open in &mut self.open {
            if ticket > last || matches!(open.progress, Progress::Gathered) {
                break;
            }
            if !open.doubtful {
                open.progress = Progress::Resolved;
                wake.append(&mut open.wakers);
            }
            ticket = Ticket(ticket.0 + 1);
        }
        self.trim();
    }

    /// One frame of this attachment was not done, or nobody knows.
    pub(crate) fn failed(&mut self, number: u64, error: SettleError, wake: &mut Vec<Waker>) {
        self.fail(Ticket(self.before.saturating_add(number)), error, wake);
        self.trim();
    }

    /// One frame of this attachment was not settled there, and the next leader may know more: nothing that this one still says is
    /// about it.
    pub(crate) fn doubted(&mut self, number: u64) {
        if let Some(open) = self.open_mut(Ticket(self.before.saturating_add(number))) {
            open.doubtful = true;
        }
    }

    fn fail(&mut self, ticket: Ticket, error: SettleError, wake: &mut Vec<Waker>) {
        let Some(open) = self.open_mut(ticket).filter(|open| !open.is_resolved()) else { return };
        open.progress = Progress::Resolved;
        wake.append(&mut open.wakers);
        let receipts = open.receipts;
        if receipts > 0 {
            self.failures.insert(ticket, Failed { error, receipts });
        }
    }

    /// What is on its way: settled by the application, and not known to be done. Returns are left out: what nobody claims goes back.
    pub(crate) fn pending(&self) -> impl Iterator<Item = OffsetRange> + '_ {
        let sent = self.open.iter().flat_map(|open| match &open.progress {
            Progress::Sent(Settlement::Ack | Settlement::Reject, ranges) => ranges.as_slice(),
            Progress::Sent(Settlement::Return, _) | Progress::Gathered | Progress::Resolved => &[],
        });
        let unsent = self.full.iter().chain(&self.gathering);
        let unsent = unsent.filter(|frame| frame.settlement != Settlement::Return);
        sent.copied().chain(unsent.flat_map(|frame| frame.ranges.iter()))
    }

    /// A leader has said what it makes of all that was pending: what this consumer holds there is sent again, what is settled is
    /// done, and what is neither comes again.
    pub(crate) fn decided(&mut self, verdict: &Verdict, wake: &mut Vec<Waker>) {
        let unsent: Vec<Gathering> = self.full.drain(..).chain(self.gathering.drain(..)).collect();
        let sent = (self.lowest().0..).map(Ticket).zip(&mut self.open);
        let sent = sent.filter_map(|(ticket, open)| {
            open.doubtful = false;
            match std::mem::take(&mut open.progress) {
                Progress::Sent(settlement, ranges) => {
                    let ranges = ranges.into_iter().collect();
                    Some(Gathering { ticket, settlement, ranges, sent: true })
                }
                progress => {
                    open.progress = progress;
                    None
                }
            }
        });
        let mut frames: Vec<Gathering> = sent.chain(unsent).collect();
        frames.sort_by_key(|frame| frame.ticket);
        let mut rest = Vec::new();
        for frame in frames {
            match frame.settlement {
                // Who does not claim a message has returned it.
                Settlement::Return => self.resolve(frame.ticket, wake),
                Settlement::Ack | Settlement::Reject => {
                    rest.extend(self.decide(verdict, frame, wake));
                }
            }
        }
        for (settlement, ranges) in rest {
            // Behind all others, so that numbers go out in order.
            let at = self.gather(settlement);
            let frame = self.gathering.remove(at);
            self.full.push_back(Gathering { ranges, ..frame });
        }
        self.trim();
        self.before = self.lowest().0 - 1;
    }

    /// What is to be settled though nobody hears of it: the rest of a frame of which a part is lost.
    fn decide(
        &mut self,
        verdict: &Verdict,
        frame: Gathering,
        wake: &mut Vec<Waker>,
    ) -> Option<(Settlement, Ranges)> {
        let Gathering { ticket, settlement, ranges, sent } = frame;
        let held: Ranges = ranges.iter().flat_map(|range| verdict.held.within(range)).collect();
        let settled: u64 = ranges
            .iter()
            .flat_map(|range| verdict.settled.within(range))
            .map(OffsetRange::count)
            .sum();
        let lost = ranges.count().saturating_sub(held.count() + settled);
        if lost > 0 {
            // The leader that it was sent to may have settled it all the same: this one need not have been asked about all of it, or
            // may have said nothing to a claim from before a forced election.
            let error = match sent {
                true => SettleError::Unsettled { message: LOST_ON_ITS_WAY.to_owned() },
                false => SettleError::Stale { stale: lost, message: TAKEN_AWAY.to_owned() },
            };
            self.fail(ticket, error, wake);
            return (held.len() > 0).then_some((settlement, held));
        }
        if held.len() > 0 {
            self.full.push_back(Gathering { ticket, settlement, ranges: held, sent });
        } else {
            self.resolve(ticket, wake);
        }
        None
    }

    fn resolve(&mut self, ticket: Ticket, wake: &mut Vec<Waker>) {
        if let Some(open) = self.open_mut(ticket) {
            open.progress = Progress::Resolved;
            wake.append(&mut open.wakers);
        }
    }

    /// There will be no other leader: what was sent may be done, what was not is stale.
    pub(crate) fn lost(&mut self, why: &str, wake: &mut Vec<Waker>) {
        let unsent = std::mem::take(&mut self.full).into_iter().chain(self.gathering.drain(..));
        let unsent: HashMap<Ticket, u64> = unsent
            .filter(|frame| !frame.sent)
            .map(|frame| (frame.ticket, frame.ranges.count()))
            .collect();
        for ticket in (self.lowest().0..=self.issued).map(Ticket) {
            let message = why.to_owned();
            let error = match unsent.get(&ticket) {
                Some(stale) => SettleError::Stale { stale: *stale, message },
                None => SettleError::Unsettled { message },
            };
            self.fail(ticket, error, wake);
        }
        self.trim();
        self.before = self.issued;
    }

    fn trim(&mut self) {
        while self.open.front().is_some_and(Open::is_resolved) {
            self.open.pop_front();
        }
    }

    /// The outcome of a ticket. `waker` is called when it comes.
    pub(crate) fn poll(&mut self, ticket: Ticket, waker: &Waker) -> Poll<Result<(), SettleError>> {
        match self.open_mut(ticket) {
            Some(open) if !open.is_resolved() => {
                if !open.wakers.iter().any(|known| known.will_wake(waker)) {
                    open.wakers.push(waker.clone());
                }
                Poll::Pending
            }
            _ => match self.failures.get(&ticket) {
                Some(failed) => Poll::Ready(Err(failed.error.clone())),
                None => Poll::Ready(Ok(())),
            },
        }
    }

    /// A receipt of this ticket is gone.
    pub(crate) fn receipt_dropped(&mut self, ticket: Ticket) {
        if let Some(open) = self.open_mut(ticket).filter(|open| !open.is_resolved()) {
            open.receipts -= 1;
            if open.receipts == 0 {
                open.wakers = Vec::new();
            }
            return;
        }
        if let Some(failed) = self.failures.get_mut(&ticket) {
            failed.receipts -= 1;
            if failed.receipts == 0 {
                self.failures.remove(&ticket);
            }
        }
    }

    fn lowest(&self) -> Ticket {
        Ticket(self.issued + 1 - self.open.len() as u64)
    }

    fn open_mut(&mut self, ticket: Ticket) -> Option<&mut Open> {
        let index = ticket.0.checked_sub(self.lowest().0)?;
        self.open.get_mut(usize::try_from(index).ok()?)
    }
}

/// The range of one offset.
pub(crate) fn one(offset: Offset) -> OffsetRange {
    OffsetRange::new(offset, offset.plus(1))
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn ack(settles: &mut Settles, offset: u64) -> Ticket {
        let ticket = settles.add(Settlement::Ack, one(Offset(offset)));
        settles.receipt(ticket);
        ticket
    }

    fn outcome(settles: &mut Settles, ticket: Ticket) -> Poll<Result<(), SettleError>> {
        settles.poll(ticket, Waker::noop())
    }

    #[test]
    fn acks_between_two_writes_go_out_as_one_range() {
        let mut settles = Settles::default();
        for offset in [3, 1, 2, 7] {
            ack(&mut settles, offset);
        }
        let order = settles.next_order().unwrap();
        assert_eq!(order.number, 1);
        assert_eq!(
            order.ranges,
            [OffsetRange::new(Offset(1), Offset(4)), OffsetRange::new(Offset(7), Offset(8))]
        );
        assert_eq!(settles.next_order(), None);
    }

    #[test]
    fn a_cumulative_confirm_spares_what_failed_before() {
        let mut settles = Settles::default();
        let mut wake = Vec::new();
        let tickets: Vec<Ticket> = (0..3)
            .map(|offset| {
                let ticket = ack(&mut settles, offset);
                settles.next_order().unwrap();
                ticket
            })
            .collect();
        let stale = SettleError::Stale { stale: 1, message: "older epoch".to_owned() };
        settles.failed(2, stale.clone(), &mut wake);
        assert_eq!(outcome(&mut settles, tickets[1]), Poll::Ready(Err(stale)));
        settles.settled(3, &mut wake);
        assert_eq!(outcome(&mut settles, tickets[0]), Poll::Ready(Ok(())));
        assert_eq!(outcome(&mut settles, tickets[2]), Poll::Ready(Ok(())));
        settles.receipt_dropped(tickets[1]);
        assert!(settles.is_empty() && settles.failures.is_empty());
    }

    fn verdict(held: &[(u64, u64)], settled: &[(u64, u64)]) -> Verdict {
        let ranges = |ranges: &[(u64, u64)]| {
            ranges
                .iter()
                .map(|(first, end)| OffsetRange::new(Offset(*first), Offset(*end)))
                .collect()
        };
        Verdict { held: ranges(held), settled: ranges(settled) }
    }

    #[test]
    fn what_nobody_will_be_asked_about_is_unknown_if_it_was_sent_and_stale_if_not() {
        let mut settles = Settles::default();
        let mut wake = Vec::new();
        let sent = ack(&mut settles, 0);
        settles.next_order().unwrap();
        let unsent = ack(&mut settles, 1);
        settles.lost("the connection was lost", &mut wake);
        assert!(matches!(
            outcome(&mut settles, sent),
            Poll::Ready(Err(SettleError::Unsettled { .. }))
        ));
        assert!(matches!(
            outcome(&mut settles, unsent),
            Poll::Ready(Err(SettleError::Stale { stale: 1, .. }))
        ));
        assert!(settles.is_empty());
    }

    #[test]
    fn what_the_next_leader_lets_it_keep_is_sent_again_in_the_same_order() {
        let mut settles = Settles::default();
        let mut wake = Vec::new();
        let done = ack(&mut settles, 0);
        settles.next_order().unwrap();
        let again = ack(&mut settles, 1);
        settles.next_order().unwrap();
        let unsent = ack(&mut settles, 2);
        assert_eq!(settles.pending().map(|range| range.first.0).collect::<Vec<_>>(), [0, 1, 2]);
        settles.decided(&verdict(&[(1, 3)], &[(0, 1)]), &mut wake);
        assert_eq!(outcome(&mut settles, done), Poll::Ready(Ok(())));
        for (number, offset) in [(1, 1), (2, 2)] {
            let order = settles.next_order().unwrap();
            assert_eq!((order.number, order.ranges[0].first.0), (number, offset));
        }
        settles.settled(2, &mut wake);
        assert_eq!(outcome(&mut settles, again), Poll::Ready(Ok(())));
        assert_eq!(outcome(&mut settles, unsent), Poll::Ready(Ok(())));
    }

    #[test]
    fn of_a_frame_of_which_a_part_is_lost_the_rest_is_settled_and_the_answer_says_so() {
        let mut settles = Settles::default();
        let mut wake = Vec::new();
        let ticket = ack(&mut settles, 0);
        ack(&mut settles, 1);
        settles.next_order().unwrap();
        let later = ack(&mut settles, 9);
        settles.decided(&verdict(&[(0, 1), (9, 10)], &[]), &mut wake);
        let lost = outcome(&mut settles, ticket);
        assert!(matches!(lost, Poll::Ready(Err(SettleError::Unsettled { .. }))), "{lost:?}");
        let orders = [settles.next_order().unwrap(), settles.next_order().unwrap()];
        assert_eq!(orders.each_ref().map(|order| order.ranges[0].first.0), [9, 0]);
        assert!(orders[0].number < orders[1].number);
        settles.settled(orders[1].number, &mut wake);
        assert_eq!(outcome(&mut settles, later), Poll::Ready(Ok(())));
        assert!(settles.is_empty());
    }

    /// L1 appended the ack of 0 and was lost before its answer. Its successor says nothing of it: it may have been elected by force
    /// with that very record in its log, or have been asked about less. "Not done" could be wrong (promise G11); of what was never
    /// sent it is right.
    #[test]
    fn what_was_sent_and_is_neither_held_nor_settled_is_unknown_and_what_was_not_sent_is_stale() {
        let mut settles = Settles::default();
        let mut wake = Vec::new();
        let sent = ack(&mut settles, 0);
        settles.next_order().unwrap();
        let unsent = ack(&mut settles, 1);
        settles.decided(&verdict(&[(5, 6)], &[]), &mut wake);
        let lost = outcome(&mut settles, sent);
        assert!(matches!(lost, Poll::Ready(Err(SettleError::Unsettled { .. }))), "{lost:?}");
        let lost = outcome(&mut settles, unsent);
        assert!(matches!(lost, Poll::Ready(Err(SettleError::Stale { stale: 1, .. }))), "{lost:?}");
    }

    /// The second leader lets it be settled again and is lost before that is sent: the first may still have done it.
    #[test]
    fn what_was_sent_to_any_leader_stays_unknown() {
        let mut settles = Settles::default();
        let mut wake = Vec::new();
        let ticket = ack(&mut settles, 0);
        settles.next_order().unwrap();
        settles.decided(&verdict(&[(0, 1)], &[]), &mut wake);
        settles.decided(&verdict(&[], &[]), &mut wake);
        let lost = outcome(&mut settles, ticket);
        assert!(matches!(lost, Poll::Ready(Err(SettleError::Unsettled { .. }))), "{lost:?}");
    }

    /// Leader and consumer: a settle found no room while a move was undecided, the move was given up, and a later settle was
    /// confirmed. The first one is not done.
    #[test]
    fn a_later_confirm_says_nothing_of_a_settle_that_is_in_doubt() {
        let mut settles = Settles::default();
        let mut wake = Vec::new();
        let doubtful = ack(&mut settles, 0);
        settles.next_order().unwrap();
        let later = ack(&mut settles, 1);
        settles.next_order().unwrap();
        settles.doubted(1);
        settles.settled(2, &mut wake);
        assert!(outcome(&mut settles, doubtful).is_pending());
        assert_eq!(outcome(&mut settles, later), Poll::Ready(Ok(())));
        assert_eq!(settles.pending().collect::<Vec<_>>(), [one(Offset(0))]);
        settles.decided(&verdict(&[(0, 1)], &[]), &mut wake);
        let order = settles.next_order().unwrap();
        settles.settled(order.number, &mut wake);
        assert_eq!(outcome(&mut settles, doubtful), Poll::Ready(Ok(())));
    }

    /// Claimed, it could be taken from who has got it meanwhile.
    #[test]
    fn what_was_returned_is_not_claimed_and_needs_no_other_leader() {
        let mut settles = Settles::default();
        let sent = settles.add(Settlement::Return, one(Offset(0)));
        settles.receipt(sent);
        settles.next_order().unwrap();
        let unsent = settles.add(Settlement::Return, one(Offset(1)));
        settles.receipt(unsent);
        assert_eq!(settles.pending().count(), 0);
        settles.decided(&verdict(&[], &[]), &mut Vec::new());
        assert_eq!(outcome(&mut settles, sent), Poll::Ready(Ok(())));
        assert_eq!(outcome(&mut settles, unsent), Poll::Ready(Ok(())));
        assert!(settles.is_empty() && settles.next_order().is_none());
    }

    #[test]
    fn a_confirm_of_what_was_never_sent_is_not_believed() {
        let mut settles = Settles::default();
        let ticket = ack(&mut settles, 0);
        settles.settled(u64::MAX, &mut Vec::new());
        assert!(outcome(&mut settles, ticket).is_pending());
    }

    #[test]
    fn dropped_receipts_leave_nothing_behind() {
        let mut settles = Settles::default();
        let ticket = ack(&mut settles, 0);
        settles.receipt_dropped(ticket);
        settles.next_order().unwrap();
        let stale = SettleError::Stale { stale: 1, message: String::new() };
        settles.failed(1, stale, &mut Vec::new());
        assert!(settles.is_empty() && settles.failures.is_empty());
    }
}
