//! The window against a plain model of it, and its small stories.

use std::collections::BTreeMap;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bellwether_protocol::error::{ErrorCode, Outcome};
use bellwether_protocol::ids::{Seq, SeqRange};
use bellwether_protocol::names::{ExchangeName, RoutingKey};
use proptest::prelude::*;

use super::{Address, Credit, Fate, Window, WindowLimits};
use crate::error::PublishError;

const PLENTY: Credit = Credit { messages: u64::MAX, bytes: u64::MAX, frame_bytes: u64::MAX };
const PATIENCE: Duration = Duration::from_secs(30);

fn to(queue: &str) -> Address {
    Address { exchange: ExchangeName::default(), routing_key: RoutingKey::new(queue).unwrap() }
}

fn window(messages: usize) -> Window {
    Window::new(WindowLimits { messages, bytes: 1 << 20 }, Seq(1))
}

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange { first: Seq(first), last: Seq(last) }
}

fn refusal() -> PublishError {
    PublishError::Refused { code: ErrorCode::DiskFull, message: "full".to_owned() }
}

fn push(window: &mut Window, body: &str) -> Seq {
    window.push(&to("orders"), None, body.as_bytes(), Instant::now)
}

fn outcome(window: &mut Window, seq: u64) -> Poll<Result<(), PublishError>> {
    window.poll(Seq(seq), Waker::noop())
}

#[test]
fn a_window_has_room_for_one_message_of_any_size_and_then_for_none() {
    let mut window = Window::new(WindowLimits { messages: 10, bytes: 100 }, Seq(1));
    assert!(window.has_room(1_000_000));
    push(&mut window, &"x".repeat(80));
    assert!(window.has_room(0));
    assert!(!window.has_room(20));
    window.next_piece(PLENTY).unwrap();
    window.resolve(range(1, 1), &Fate::Confirmed, &mut Vec::new());
    assert!(window.has_room(1_000_000));
}

#[test]
fn a_confirmed_message_leaves_nothing_behind_even_if_its_receipt_is_kept() {
    let mut window = window(10_000);
    for _ in 0..10_000 {
        push(&mut window, "x");
    }
    while window.next_piece(PLENTY).is_some() {}
    window.resolve(range(1, 10_000), &Fate::Confirmed, &mut Vec::new());
    assert!(window.slots.is_empty() && window.batches.is_empty() && window.failures.is_empty());
    assert_eq!(window.bytes, 0);
    assert_eq!(outcome(&mut window, 77), Poll::Ready(Ok(())));
}

#[test]
fn only_what_is_oldest_expires() {
    let mut window = window(10);
    let start = Instant::now();
    window.push(&to("a"), None, b"old", || start);
    window.push(&to("b"), None, b"young", || start + Duration::from_secs(10));
    window.seal();
    window.expire(start + PATIENCE, PATIENCE, "nobody leads", &mut Vec::new());
    assert!(matches!(
        outcome(&mut window, 1),
        Poll::Ready(Err(PublishError::Unavailable { last, .. })) if last == "nobody leads"
    ));
    assert!(outcome(&mut window, 2).is_pending());
}

/// What the model knows of a message.
#[derive(Clone, Debug, Default)]
struct Known {
    copies: u8,
    doubt: bool,
    /// The outcome, once there is one.
    outcome: Option<Result<(), Outcome>>,
}

#[derive(Clone, Debug)]
enum Step {
    Push { queue: bool, count: u8 },
    Send { messages: u64, bytes: u64 },
    Confirm(u64, u64),
    RefuseForNow(u64, u64),
    Refuse(u64, u64),
    Rewind,
    Detach,
}

fn step() -> impl Strategy<Value = Step> {
    let seqs = || (1..40_u64, 0..6_u64);
    prop_oneof![
        5 => (any::<bool>(), 1..5_u8).prop_map(|(queue, count)| Step::Push { queue, count }),
        6 => (0..8_u64, 0..60_u64).prop_map(|(messages, bytes)| Step::Send { messages, bytes }),
        4 => seqs().prop_map(|(first, more)| Step::Confirm(first, first + more)),
        2 => seqs().prop_map(|(first, more)| Step::RefuseForNow(first, first + more)),
        2 => seqs().prop_map(|(first, more)| Step::Refuse(first, first + more)),
        1 => Just(Step::Rewind),
        1 => Just(Step::Detach),
    ]
}

#[derive(Default)]
struct Model {
    messages: BTreeMap<u64, Known>,
    /// The highest number sent since the last rewind.
    sent: u64,
}

impl Model {
    fn open(&mut self, first: u64, last: u64) -> impl Iterator<Item = &mut Known> {
        self.messages
            .range_mut(first..=last)
            .map(|(_, known)| known)
            .filter(|known| known.outcome.is_none())
    }

    fn send(&mut self, window: &mut Window, credit: Credit) -> Result<(), TestCaseError> {
        let Some(piece) = window.next_piece(credit) else { return Ok(()) };
        let count = u64::from(piece.messages.count());
        prop_assert!(count > 0 && count <= credit.messages && credit.bytes > 0);
        prop_assert!(count == 1 || piece.messages.len() as u64 <= credit.bytes);
        prop_assert!(piece.first.0 > self.sent, "numbers ascend between rewinds");
        let mut resent = false;
        for (seq, message) in (piece.first.0..).zip(piece.messages.iter()) {
            let body = seq.to_string();
            prop_assert_eq!(&message.body[..], body.as_bytes());
            let known = self.messages.get_mut(&seq).unwrap();
            prop_assert!(known.outcome.is_none(), "{} is resolved and was sent", seq);
            resent |= known.doubt || known.copies > 0;
            known.copies += 1;
        }
        let skipped = self.messages.range(self.sent + 1..piece.first.0);
        prop_assert!(
            skipped.clone().all(|(_, known)| known.outcome.is_some()),
            "nothing is left out"
        );
        prop_assert_eq!(piece.resent, resent);
        self.sent = piece.first.0 + count - 1;
        Ok(())
    }

    fn take(&mut self, window: &mut Window, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Push { queue, count } => {
                for _ in 0..count {
                    let seq = window.next();
                    let body = seq.to_string();
                    let address = to(if queue { "a" } else { "b" });
                    prop_assert_eq!(
                        window.push(&address, None, body.as_bytes(), Instant::now).0,
                        seq
                    );
                    self.messages.insert(seq, Known::default());
                }
            }
            Step::Send { messages, bytes } => {
                self.send(window, Credit { messages, bytes, frame_bytes: u64::MAX })?;
            }
            Step::Confirm(first, last) => {
                window.resolve(range(first, last), &Fate::Confirmed, &mut Vec::new());
                for known in self.open(first, last).filter(|known| known.doubt || known.copies > 0)
                {
                    known.outcome = Some(Ok(()));
                }
            }
            Step::RefuseForNow(first, last) => {
                window.copies_failed(range(first, last), false);
                self.open(first, last)
                    .for_each(|known| known.copies = known.copies.saturating_sub(1));
            }
            Step::Refuse(first, last) => {
                for run in window.copies_failed(range(first, last), false) {
                    window.resolve(run, &Fate::Refused(refusal()), &mut Vec::new());
                }
                for known in self.open(first, last).filter(|known| known.copies > 0) {
                    known.copies -= 1;
                    if known.copies == 0 {
                        let outcome = if known.doubt { Outcome::Unknown } else { Outcome::NotDone };
                        known.outcome = Some(Err(outcome));
                    }
                }
            }
            Step::Rewind => {
                window.rewind();
                self.sent = 0;
            }
            Step::Detach => {
                window.detached();
                for known in self.messages.values_mut() {
                    known.doubt |= known.copies > 0;
                    known.copies = 0;
                }
                self.sent = 0;
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn the_window_does_what_a_plain_list_of_messages_would(steps in proptest::collection::vec(step(), 0..80)) {
        let mut window = window(usize::MAX);
        let mut model = Model::default();
        for step in steps {
            model.take(&mut window, step)?;
            let lowest = model.messages.iter().find(|(_, known)| known.outcome.is_none());
            prop_assert_eq!(window.lowest(), lowest.map_or(window.next(), |(seq, _)| *seq));
        }
        window.abandon("the end", &mut Vec::new());
        for (seq, known) in &model.messages {
            let doubtful = known.doubt || known.copies > 0;
            let end = if doubtful { Outcome::Unknown } else { Outcome::NotDone };
            let wanted = known.outcome.unwrap_or(Err(end));
            let Poll::Ready(seen) = outcome(&mut window, *seq) else { panic!("{seq} has no outcome") };
            prop_assert_eq!(seen.map_err(|error| error.outcome()), wanted);
        }
        prop_assert_eq!(window.bytes, 0);
        prop_assert!(window.is_empty() && window.slots.is_empty() && window.batches.is_empty());
    }
}
