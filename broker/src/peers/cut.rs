//! Cuts what is larger than a frame into pieces, and puts it together again.

use bellwether_log::{BATCH_BYTES_MAX, Batch};
use bellwether_protocol::frame::{FRAME_OVERHEAD_BYTES, Frame, FrameError, LENGTH_BYTES, Limits};
use bellwether_protocol::ids::{Epoch, Offset, QueueId};
use bellwether_protocol::message::MESSAGE_BYTES_MAX;
use bellwether_protocol::peer::{AppendRun, CHUNK_BYTES_MAX, PeerFrame};
use bytes::{Bytes, BytesMut};

/// A forward that is put together again may be this long, in bytes: a client's largest publish frame, and the names.
const FORWARD_LIMITS: Limits =
    Limits { frame_bytes_max: MESSAGE_BYTES_MAX + 2 * FRAME_OVERHEAD_BYTES };

/// What a forward carries beside its messages, in bytes, at most: names of 255 bytes and numbers.
const FORWARD_HEAD_BYTES_MAX: usize = 2 * 1024;

/// The frames that carry `frame`, none with more than [`CHUNK_BYTES_MAX`] of bodies.
pub(super) fn pieces(frame: PeerFrame) -> Vec<PeerFrame> {
    match frame {
        PeerFrame::Append(runs) => {
            if runs.iter().map(|run| run.batches.len()).sum::<usize>() <= CHUNK_BYTES_MAX {
                return vec![PeerFrame::Append(runs)];
            }
            let mut pieces = Vec::new();
            for run in runs {
                cut_run(run, &mut pieces);
            }
            pieces
        }
        PeerFrame::Forward(forward)
            if forward.messages.len() + FORWARD_HEAD_BYTES_MAX > CHUNK_BYTES_MAX =>
        {
            let mut encoded =
                BytesMut::with_capacity(forward.messages.len() + FORWARD_HEAD_BYTES_MAX);
            PeerFrame::Forward(forward).encode(&mut encoded);
            let mut rest = encoded.freeze().slice(LENGTH_BYTES..);
            let mut pieces = Vec::new();
            while !rest.is_empty() {
                let bytes = rest.split_to(rest.len().min(CHUNK_BYTES_MAX));
                pieces.push(PeerFrame::ForwardPart { last: rest.is_empty(), bytes });
            }
            pieces
        }
        other => vec![other],
    }
}

/// Whole batches together as far as they fit, a larger one in parts.
fn cut_run(run: AppendRun, pieces: &mut Vec<PeerFrame>) {
    let AppendRun { queue, epoch, high_watermark, batches } = run;
    let mut rest = batches;
    while !rest.is_empty() {
        let mut end = 0;
        while let Some(length) = Batch::length(&rest[end..])
            && length > 0
            && end + length <= rest.len().min(CHUNK_BYTES_MAX)
        {
            end += length;
        }
        if end > 0 {
            let batches = rest.split_to(end);
            pieces.push(PeerFrame::Append(vec![AppendRun {
                queue,
                epoch,
                high_watermark,
                batches,
            }]));
            continue;
        }
        let length = Batch::length(&rest).unwrap_or(rest.len()).clamp(1, rest.len());
        let mut batch = rest.split_to(length);
        while !batch.is_empty() {
            let bytes = batch.split_to(batch.len().min(CHUNK_BYTES_MAX));
            let last = batch.is_empty();
            pieces.push(PeerFrame::AppendPart { queue, epoch, high_watermark, last, bytes });
        }
    }
}

/// Pieces that do not fit together.
#[derive(Debug, thiserror::Error)]
pub(super) enum BrokenPieces {
    #[error("a piece of queue {found} came in the middle of a batch of queue {expected}")]
    Mixed { expected: QueueId, found: QueueId },
    #[error("the pieces of one {what} are over {bytes_max} bytes")]
    TooLong { what: &'static str, bytes_max: usize },
    #[error("the pieces of a forward are none: {0}")]
    Forward(#[from] FrameError),
    #[error("the pieces of a forward are another frame")]
    NotForward,
}

/// Pieces that have arrived of what is not whole yet. One batch and one forward at most.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    batch: Option<(QueueId, Epoch, BytesMut)>,
    forward: BytesMut,
}

impl Assembly {
    /// The batch, once its last piece is there.
    pub fn append(
        &mut self,
        (queue, epoch): (QueueId, Epoch),
        high_watermark: Offset,
        last: bool,
        bytes: &Bytes,
    ) -> Result<Option<PeerFrame>, BrokenPieces> {
        let (of_queue, of_epoch, batch) =
            self.batch.get_or_insert_with(|| (queue, epoch, BytesMut::new()));
        if (*of_queue, *of_epoch) != (queue, epoch) {
            return Err(BrokenPieces::Mixed { expected: *of_queue, found: queue });
        }
        if batch.len() + bytes.len() > BATCH_BYTES_MAX {
            return Err(BrokenPieces::TooLong { what: "batch", bytes_max: BATCH_BYTES_MAX });
        }
        batch.extend_from_slice(bytes);
        if !last {
            return Ok(None);
        }
        let batches = self.batch.take().map(|(_, _, batch)| batch.freeze()).unwrap_or_default();
        Ok(Some(PeerFrame::Append(vec![AppendRun { queue, epoch, high_watermark, batches }])))
    }

    /// The forward, once its last piece is there.
    pub fn forward(
        &mut self,
        last: bool,
        bytes: &Bytes,
    ) -> Result<Option<PeerFrame>, BrokenPieces> {
        let bytes_max = FORWARD_LIMITS.frame_bytes_max;
        if self.forward.len() + bytes.len() > bytes_max {
            return Err(BrokenPieces::TooLong { what: "forward", bytes_max });
        }
        self.forward.extend_from_slice(bytes);
        if !last {
            return Ok(None);
        }
        let whole = self.forward.split().freeze();
        match PeerFrame::decode(whole, &FORWARD_LIMITS)? {
            forward @ PeerFrame::Forward(_) => Ok(Some(forward)),
            _ => Err(BrokenPieces::NotForward),
        }
    }
}
