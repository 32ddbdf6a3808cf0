//! Whether a publish is new, a retry, or cannot be told (promise G7).

use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::ids::Seq;
use bellwether_protocol::names::ProducerName;

use crate::Queue;
use crate::serving::Serving;

/// What is to be done with messages that were published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Append them, without the first `skip`, which are in the log already.
    Append { skip: u32 },
    /// All of them are in the log. They are confirmed once everything that is appended by now is committed.
    Duplicate,
    /// Not stored.
    Refused(ErrorBody),
}

impl Queue {
    /// Whether `count` messages of `producer`, numbered from `first` on, are to be appended.
    ///
    /// `previous` is the highest number that the producer sent here before; when `chained`, it may still be
    /// unconfirmed, and then these must not overtake it. `resent`: they may have been sent before.
    #[must_use]
    pub fn admit(
        &self,
        producer: Option<&ProducerName>,
        previous: Seq,
        chained: bool,
        first: Seq,
        count: u32,
        resent: bool,
    ) -> Admission {
        if count == 0 {
            let message = "a publish carries at least one message";
            return refused(ErrorCode::InvalidOption, message.to_owned());
        }
        let Some(producer) = producer else { return Admission::Append { skip: 0 } };
        let last_sent = first.0.checked_add(u64::from(count)).map(|end| end - 1);
        let (Some(last_sent), false) = (last_sent, first == Seq(0)) else {
            let message = "a producer's messages are numbered from 1 on, up to 2^64 - 2";
            return refused(ErrorCode::InvalidOption, message.to_owned());
        };
        let known = self.last_of(producer);
        let last = known.unwrap_or_default();
        if last_sent <= last.0 {
            return Admission::Duplicate;
        }
        // Taking them now would leave a hole that a retry of the earlier ones could never fill: those
        // would look like duplicates and be confirmed without being stored.
        if chained && previous > last {
            let message = format!(
                "message {first} of producer {producer:?} came before {previous}, which is not here; send again from the lowest unconfirmed"
            );
            return refused(ErrorCode::OutOfSequence, message);
        }
        if known.is_none() && resent && self.state.producers.has_forgotten() {
            let message = format!(
                "producer {producer:?} is not known here (any more), so that it cannot be told whether message {first} is stored already"
            );
            return refused(ErrorCode::ProducerForgotten, message);
        }
        // Fits: it is less than `count`.
        Admission::Append { skip: (last.0 + 1).saturating_sub(first.0) as u32 }
    }

    /// The highest number of a producer in the log, committed or not.
    fn last_of(&self, producer: &ProducerName) -> Option<Seq> {
        let appended = self.serving.as_ref().and_then(|s: &Serving| s.appended_last(producer));
        self.state.producers.last(producer).max(appended)
    }
}

fn refused(code: ErrorCode, message: String) -> Admission {
    Admission::Refused(ErrorBody::not_done(code, message))
}
