//! What reaches a process, and what it wants done.

use bellwether_coordinator::coordinator::Version;
use bellwether_coordinator::records::QueueState;
use bellwether_log::Batch;
use bellwether_protocol::ids::{BrokerId, BrokerLife, Epoch, Offset, OffsetRange, StoreId};
use bellwether_protocol::peer::PeerFrame;
use bellwether_replication::{CasOutcome, Force};

use crate::counts::Guard;
use crate::disk::Image;
use crate::words::{ClientId, Reply, Request};

/// Which end of a connection a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Dialed,
    Accepted,
}

/// What reaches a process.
#[derive(Clone, Debug)]
pub enum Input {
    Life(Option<BrokerLife>),
    Connected(bool),
    State {
        state: QueueState,
        version: Version,
        synced: bool,
    },
    Cas {
        version: Version,
        state: QueueState,
        outcome: CasOutcome,
    },
    Gone(BrokerLife),
    Dead(BrokerLife),
    Up {
        peer: BrokerLife,
        side: Side,
    },
    Down {
        peer: BrokerLife,
        side: Side,
    },
    Frame {
        peer: BrokerLife,
        side: Side,
        frame: PeerFrame,
    },
    Synced,
    SnapshotAsked {
        from: BrokerLife,
        epoch: Epoch,
        fetch: u64,
    },
    /// What came of that fetch.
    Snapshot {
        epoch: Epoch,
        fetch: u64,
        image: Option<Box<Image>>,
    },
    Client {
        client: ClientId,
        request: Request,
    },
    /// The client's connection is gone.
    ClientLost {
        client: ClientId,
    },
    HandOver,
    /// An operator orders this copy to lead, with what was read for that.
    Force {
        state: QueueState,
        version: Version,
        gone: Option<BrokerLife>,
        order: Force,
    },
    /// A sync failed: nothing more of this store is to be believed.
    StoreFailed,
    /// What was synced of the log is damaged, and that was found: it is fetched anew as the copy of this store.
    LogLost(StoreId),
    /// Take a checkpoint and drop what lies below it.
    Clean,
    Tick,
}

/// What a process wants done.
#[derive(Clone, Debug)]
pub enum Output {
    ReadState,
    Cas {
        version: Version,
        state: QueueState,
    },
    Send {
        peer: BrokerLife,
        side: Side,
        frame: PeerFrame,
    },
    /// Over whichever connection there is.
    SendToBroker {
        broker: BrokerId,
        frame: PeerFrame,
    },
    FetchSnapshot {
        leader: BrokerLife,
        epoch: Epoch,
        fetch: u64,
    },
    GiveSnapshot {
        to: BrokerLife,
        epoch: Epoch,
        fetch: u64,
        image: Option<Box<Image>>,
    },
    /// A sync began.
    Sync,
    Reply {
        client: ClientId,
        reply: Reply,
    },
    Fact(Fact),
}

/// What the witness has to know.
#[derive(Clone, Debug)]
pub enum Fact {
    Leads {
        epoch: Epoch,
    },
    Serves {
        epoch: Epoch,
        applied: Offset,
    },
    /// Committed as this process believes, and applied.
    Applied {
        batch: Batch,
    },
    /// Somebody is told that everything below is committed and done.
    Confirms {
        epoch: Epoch,
        end: Offset,
    },
    /// A consumer keeps these from an earlier epoch.
    Claimed {
        epoch: Epoch,
        held: Vec<OffsetRange>,
    },
    Delivers {
        epoch: Epoch,
        run: OffsetRange,
        batches: Vec<Batch>,
        redelivered: bool,
    },
    Stopped {
        why: String,
    },
    /// It asks for a state that names nobody as leader: it leads this epoch no more, whatever comes of that.
    Resigns {
        epoch: Epoch,
    },
    /// It did something about its disk.
    Guarded(Guard),
}
