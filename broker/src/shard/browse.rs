//! Showing what waits in a queue that is led here, without taking it. Committed messages only, and under the lease: a deposed leader
//! would show what its successor has long settled.

use bellwether_journal::{Read, ReadError, ReadRequest};
use bellwether_log::Batch;
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::ids::{Epoch, Offset, OffsetRange};
use bellwether_queue::Shown;
use tokio::sync::oneshot;

use super::input::Lease;
use super::queue::{LocalQueue, answer};
use super::tools::{Internal, ReadInMemory, ReadPurpose, Tools};

/// Which messages are to be shown.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub from: Offset,
    /// Up to here; none: to the high watermark.
    pub until: Option<Offset>,
    pub messages_max: u64,
    /// About as much is read; one batch at least.
    pub bytes_max: usize,
}

/// What there is, and the batches that hold it.
pub struct Browsing {
    pub epoch: Epoch,
    /// To be checked once more before it is shown.
    pub lease: Lease,
    /// What was asked for, as far as one look goes.
    pub shown: Vec<Shown>,
    /// Up to here there is no more than `shown`.
    pub next: Offset,
    pub high_watermark: Offset,
    /// Of the first of `shown`, as many as were read.
    pub batches: Vec<Batch>,
    /// While `batches` are in memory and were not before.
    pub(crate) held: Option<ReadInMemory>,
}

/// Where the answer goes.
pub type BrowseReply = oneshot::Sender<Result<Box<Browsing>, ErrorBody>>;

impl LocalQueue {
    pub(super) fn browse(&self, tools: &Tools, look: Look, reply: BrowseReply) {
        match self.begin_browsing(tools, look) {
            Err(error) => answer(reply, Err(error)),
            Ok(mut browsing) => {
                let ranges: Vec<OffsetRange> =
                    browsing.shown.iter().map(|shown| shown.run).collect();
                match tools.logs.read_live(self.id, &ranges, look.bytes_max) {
                    Read::Ready(batches) => {
                        browsing.batches = batches;
                        answer(reply, Ok(browsing));
                    }
                    Read::OnDisk(request) => {
                        tools.browse_on_disk(self.id, request, browsing, reply);
                    }
                    Read::Gone => {
                        let words = format!(
                            "messages of queue {} that are unsettled are not in the log of this broker; see `bellwether queue explain`",
                            self.definition.name
                        );
                        answer(reply, Err(ErrorBody::not_done(ErrorCode::NotLeader, words)));
                    }
                }
            }
        }
    }

    fn begin_browsing(&self, tools: &Tools, look: Look) -> Result<Box<Browsing>, ErrorBody> {
        let leader = self
            .leader
            .as_ref()
            .filter(|leader| leader.serves && !leader.deleting && self.replica.leads().is_some());
        let Some(leader) = leader else { return Err(self.not_leader(tools)) };
        if !leader.lease.holds(tools.now) {
            return Err(self.lease_is_not_there());
        }
        let high_watermark = self.machine.applied();
        let until = look.until.map_or(high_watermark, |until| until.min(high_watermark));
        let within = OffsetRange::new(look.from.min(until), until);
        let (shown, next) = self.machine.browse(within, look.messages_max);
        Ok(Box::new(Browsing {
            epoch: leader.epoch,
            lease: leader.lease.clone(),
            shown,
            next: next.max(look.from),
            high_watermark,
            batches: Vec::new(),
            held: None,
        }))
    }

    fn lease_is_not_there(&self) -> ErrorBody {
        lease_is_not_there(self.definition.name.as_str())
    }
}

/// Worth trying again: promises come several times a second, and where they do not another leads soon.
pub fn lease_is_not_there(queue: &str) -> ErrorBody {
    let words = format!(
        "queue {queue} cannot be looked at for the moment: its leader waits for the promises of its other in-sync replicas; try again"
    );
    ErrorBody::not_done(ErrorCode::NotLeader, words)
}

impl Tools {
    /// Reads on a thread that may block, and answers from there. What is wrong with the disk the shard hears as well.
    fn browse_on_disk(
        &self,
        queue: bellwether_protocol::ids::QueueId,
        request: ReadRequest,
        mut browsing: Box<Browsing>,
        reply: BrowseReply,
    ) {
        let (internal, environment) = (self.internal(), self.environment.clone());
        self.environment.runtime.spawn(async move {
            let held = environment.room_to_read(request.bytes()).await;
            if reply.is_closed() {
                return;
            }
            let result: Result<Vec<Batch>, ReadError> = super::tools::blocking_read(request).await;
            match result {
                Ok(batches) => {
                    (browsing.batches, browsing.held) = (batches, Some(held));
                    answer(reply, Ok(browsing));
                }
                Err(error) => {
                    let words = format!("the messages cannot be read from the disk: {error}");
                    answer(reply, Err(ErrorBody::not_done(ErrorCode::NotLeader, words)));
                    let purpose = ReadPurpose::Browse;
                    let found = Internal::Read { queue, purpose, result: Err(error), held };
                    super::tools::forward(&internal, found).await;
                }
            }
        });
    }
}
