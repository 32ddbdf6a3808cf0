//! Who may be at the port of brokers without having said hello. Strangers are few, and none of them keeps a broker out: where it gets
//! tight, the one that has been there for longest goes.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::address::counted_as;
use crate::places::Places;

/// Connections that have not said hello: each may hold a few KiB for a moment, so that strangers cannot hold more.
pub(super) const STRANGERS_MAX: usize = 64;

/// The same from one address, or from those of a network that are not known. A broker has two at once, its stream and a fetch.
pub(super) const PER_ADDRESS_MAX: usize = 8;

/// Addresses of brokers that are remembered, those that were last seen: as many as a large cluster has, several times over.
const KNOWN_MAX: usize = 1024;

/// All strangers of the port.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    present: Places<IpAddr>,
    /// Where brokers of this cluster have been seen, the latest last.
    known: VecDeque<IpAddr>,
}

impl Strangers {
    /// Somebody connects. What comes back is over when the place is needed; dropped, it makes room.
    pub fn enter(&self, from: IpAddr) -> oneshot::Receiver<()> {
        let mut state = self.locked();
        state.make_room(from);
        state.present.enter(from)
    }

    /// A broker of this cluster is at this address: who comes from there does not have to go for others.
    pub fn know(&self, address: IpAddr) {
        let mut state = self.locked();
        state.known.retain(|known| *known != address);
        if state.known.len() >= KNOWN_MAX {
            state.known.pop_front();
        }
        state.known.push_back(address);
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn make_room(&mut self, from: IpAddr) {
        let State { present, known } = self;
        // Brokers may be many in one network: each that is known counts for itself.
        let counted = |from: IpAddr| if known.contains(&from) { from } else { counted_as(from) };
        let here = |one: &IpAddr| counted(*one) == counted(from);
        if present.count(here) >= PER_ADDRESS_MAX {
            present.end_oldest(here);
        }
        if present.count(|_| true) >= STRANGERS_MAX
            && !present.end_oldest(|one| !known.contains(one))
        {
            present.end_oldest(|_| true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(last: usize) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, u8::try_from(last).unwrap()))
    }

    fn is_over(stranger: &mut oneshot::Receiver<()>) -> bool {
        stranger.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn of_too_many_from_one_address_the_oldest_goes() {
        let strangers = Strangers::default();
        let mut other = strangers.enter(address(1));
        let mut here: Vec<_> = (0..=PER_ADDRESS_MAX).map(|_| strangers.enter(address(2))).collect();
        assert!(is_over(&mut here[0]) && !is_over(&mut here[1]) && !is_over(&mut other));
        here.clear();
        let mut again = strangers.enter(address(2));
        assert!(!is_over(&mut again), "who has gone takes no place");
    }

    /// Whoever has one address of version 6 has 2^64 of them.
    #[test]
    fn a_network_of_version_6_is_one_stranger_but_for_the_brokers_in_it() {
        let address = |last: usize| format!("2001:db8::{last:x}").parse().unwrap();
        let strangers = Strangers::default();
        strangers.know(address(1));
        let mut broker = strangers.enter(address(1));
        let mut others: Vec<_> =
            (2..3 + PER_ADDRESS_MAX).map(|n| strangers.enter(address(n))).collect();
        assert!(is_over(&mut others[0]) && !is_over(&mut others[1]));
        assert!(!is_over(&mut broker), "it is known, and the oldest all the same");
    }

    /// 64 sockets that said nothing kept brokers apart for as long as somebody held them.
    #[test]
    fn a_broker_comes_in_however_many_strangers_there_are_and_stays() {
        let strangers = Strangers::default();
        strangers.know(address(1));
        let mut broker = strangers.enter(address(1));
        let mut others: Vec<_> =
            (0..2 * STRANGERS_MAX).map(|n| strangers.enter(address(2 + n % 100))).collect();
        assert!(!is_over(&mut broker), "it is known, and the oldest all the same");
        let present = others.iter_mut().map(is_over).filter(|is_over| !is_over);
        assert_eq!(present.count(), STRANGERS_MAX - 1);
    }

    #[test]
    fn the_addresses_that_are_remembered_are_bounded() {
        let strangers = Strangers::default();
        for n in 0..2 * KNOWN_MAX as u32 {
            strangers.know(IpAddr::V4(Ipv4Addr::from_bits(n)));
        }
        let state = strangers.locked();
        assert_eq!(state.known.len(), KNOWN_MAX);
        assert_eq!(
            state.known.back(),
            Some(&IpAddr::V4(Ipv4Addr::from_bits(2 * KNOWN_MAX as u32 - 1)))
        );
    }
}
