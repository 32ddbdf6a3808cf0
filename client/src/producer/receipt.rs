//! What a sent message leaves in the application's hand: a future of its confirm.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bellwether_protocol::ids::Seq;

use super::pipe::Pipe;
use crate::error::PublishError;

/// A future of one message's confirm. Dropping it cancels nothing: the message is still sent, and sent again after
/// a failover; only its outcome is no longer told (but [`Producer::flush`](crate::Producer::flush) counts it).
#[derive(Debug)]
#[must_use = "without its receipt nobody learns whether the message was stored; or use `flush`"]
pub struct Receipt {
    pipe: Arc<Pipe>,
    seq: Seq,
    told: bool,
}

impl Receipt {
    pub(super) fn new(pipe: Arc<Pipe>, seq: Seq) -> Receipt {
        Receipt { pipe, seq, told: false }
    }

    /// The message's sequence number: it identifies a message of this producer for ever.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.seq.0
    }
}

impl Future for Receipt {
    type Output = Result<(), PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.pipe.with_window(|window| window.poll(self.seq, context.waker()));
        self.told |= polled.is_ready();
        polled
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if !self.told {
            self.pipe.with_window(|window| window.receipt_dropped(self.seq));
        }
    }
}
