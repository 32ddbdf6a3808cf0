//! Who may be at the port of brokers without having said hello. Strangers are few, and none of them keeps a broker out: where it gets
//! tight, the one that has been there for longest goes.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Connections that have not said hello: each may hold a few KiB for a moment, so that strangers cannot hold more.
pub(super) const STRANGERS_MAX: usize = 64;

/// The same from one address. A broker has two at once, its stream and a fetch.
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
    /// The oldest first. Dropped, one's end tells it to go.
    present: Vec<Present>,
    /// Where brokers of this cluster have been seen, the latest last.
    known: VecDeque<IpAddr>,
}

#[derive(Debug)]
struct Present {
    from: IpAddr,
    end: oneshot::Sender<()>,
}

impl Strangers {
    /// Somebody connects. What comes back is over when the place is needed; dropped, it makes room.
    pub fn enter(&self, from: IpAddr) -> oneshot::Receiver<()> {
        let mut state = self.locked();
        state.present.retain(|one| !one.end.is_closed());
        state.make_room(from);
        let (end, ended) = oneshot::channel();
        state.present.push(Present { from, end });
        ended
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
        let here = |one: &Present| one.from == from;
        if self.present.iter().filter(|one| here(one)).count() >= PER_ADDRESS_MAX {
            self.drop_oldest(here);
        }
        if self.present.len() >= STRANGERS_MAX {
            let known = std::mem::take(&mut self.known);
            if !self.drop_oldest(|one| !known.contains(&one.from)) {
                self.drop_oldest(|_| true);
            }
            self.known = known;
        }
    }

    fn drop_oldest(&mut self, which: impl Fn(&Present) -> bool) -> bool {
        let Some(oldest) = self.present.iter().position(which) else { return false };
        self.present.remove(oldest);
        true
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
