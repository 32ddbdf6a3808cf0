//! Connections between processes: ordered within a lane, delayed, frozen, cut. Nothing is damaged, and nothing
//! comes through a connection after its end was noticed.

use bellwether_protocol::ids::BrokerLife;
use bellwether_protocol::peer::PeerFrame;

use crate::ports::Side;

/// What an append takes longer on a slow connection, in microseconds.
const DATA_SLOW_US: u64 = 150_000;

/// One connection: dialed by one broker's life to another's.
#[derive(Debug)]
pub struct Connection {
    pub dialer: (usize, BrokerLife),
    pub acceptor: (usize, BrokerLife),
    /// Whether each end takes it for open.
    pub open: [bool; 2],
    /// What is sent from then on is lost.
    pub cut: bool,
    /// Nothing arrives before.
    pub frozen_until_us: u64,
    /// Appends take longer until then.
    pub data_slow_until_us: u64,
    /// When the last frame of each lane arrives: [dialed control, dialed data, accepted control, accepted data].
    lanes: [u64; 4],
}

impl Connection {
    #[must_use]
    pub fn new(dialer: (usize, BrokerLife), acceptor: (usize, BrokerLife)) -> Connection {
        Connection {
            dialer,
            acceptor,
            open: [false; 2],
            cut: false,
            frozen_until_us: 0,
            data_slow_until_us: 0,
            lanes: [0; 4],
        }
    }

    /// Who is at the end of `side`.
    #[must_use]
    pub fn end(&self, side: Side) -> (usize, BrokerLife) {
        match side {
            Side::Dialed => self.dialer,
            Side::Accepted => self.acceptor,
        }
    }

    #[must_use]
    pub fn is_open(&self, side: Side) -> bool {
        self.open[side as usize]
    }

    /// When a frame sent from `side` arrives that takes until `arrives_us` at least. Appends have a lane of
    /// their own: other frames may overtake them, but they overtake nothing.
    pub fn arrival(&mut self, side: Side, frame: &PeerFrame, arrives_us: u64) -> u64 {
        let control = side as usize * 2;
        let is_data = matches!(frame, PeerFrame::Append(_));
        let (behind, takes) = if is_data {
            let slow = if arrives_us < self.data_slow_until_us { DATA_SLOW_US } else { 0 };
            (self.lanes[control].max(self.lanes[control + 1]), slow)
        } else {
            (self.lanes[control], 0)
        };
        let at = behind.max(arrives_us + takes).max(self.frozen_until_us);
        self.lanes[control + usize::from(is_data)] = at;
        at
    }
}

/// The other end.
#[must_use]
pub fn other(side: Side) -> Side {
    match side {
        Side::Dialed => Side::Accepted,
        Side::Accepted => Side::Dialed,
    }
}
