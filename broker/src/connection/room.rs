//! Room for large frames that have begun and are not whole, shared by all connections. A frame gets its whole length before it is
//! read, so that no two of them can wait for each other's end. Who waits is told; who holds room while others wait has to
//! hurry.
//!
//! *Invariant:* what is granted and what is free come to all there is, and nobody waits whose frame would fit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

/// Frames above this length are long: they leave a tenth of the room to the others and come behind them, so that a few of the
/// longest, which may take their time, do not keep everybody's frames waiting.
const LONG_BYTES: u64 = 1024 * 1024;

/// The part of the room that long frames leave free.
const KEPT_PART: u64 = 10;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct FrameRoom(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    rooms: Mutex<Rooms>,
    /// Whether somebody waits.
    wanted: watch::Sender<bool>,
}

#[derive(Debug)]
struct Rooms {
    all: u64,
    free: u64,
    tickets: u64,
    /// Short ones first, then as they came.
    waiting: BTreeMap<Place, Waiter>,
}

/// Whether it is long, and when it came.
type Place = (bool, u64);

#[derive(Debug)]
struct Waiter {
    bytes: u64,
    tell: oneshot::Sender<()>,
}

/// So much room for one frame. Given back when it is dropped.
#[derive(Debug)]
pub(super) struct Grant {
    room: FrameRoom,
    pub bytes: u64,
    wanted: watch::Receiver<bool>,
}

/// A place in the queue for room.
#[derive(Debug)]
pub(super) struct Turn {
    room: FrameRoom,
    place: Place,
    bytes: u64,
    told: oneshot::Receiver<()>,
    /// The room it was told of is in another's hands now.
    taken: bool,
}

impl FrameRoom {
    pub fn new(bytes: u64) -> FrameRoom {
        let rooms = Rooms { all: bytes, free: bytes, tickets: 0, waiting: BTreeMap::new() };
        let (wanted, _) = watch::channel(false);
        FrameRoom(Arc::new(Shared { rooms: Mutex::new(rooms), wanted }))
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.0.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for a frame of `bytes`, or a place in the queue for it. A frame longer than all the room there is gets all.
    pub fn ask(&self, bytes: u64) -> Result<Grant, Turn> {
        let mut rooms = self.rooms();
        let bytes = bytes.min(rooms.most(bytes));
        // Nobody is overtaken by one that comes later and waits in the same line.
        let behind = rooms.waiting.keys().next().is_some_and(|(long, _)| !long || is_long(bytes));
        if !behind && rooms.take(bytes) {
            drop(rooms);
            return Ok(self.grant(bytes));
        }
        let (tell, told) = oneshot::channel();
        rooms.tickets += 1;
        let place = (is_long(bytes), rooms.tickets);
        rooms.waiting.insert(place, Waiter { bytes, tell });
        self.say_whether_wanted(&rooms);
        Err(Turn { room: self.clone(), place, bytes, told, taken: false })
    }

    /// Takes all the room there is, as if others had it.
    #[cfg(test)]
    pub fn take_all(&self) -> Grant {
        self.leave(0)
    }

    /// Takes all but so much.
    #[cfg(test)]
    pub fn leave(&self, bytes: u64) -> Grant {
        let free = std::mem::replace(&mut self.rooms().free, bytes);
        self.grant(free - bytes)
    }

    #[cfg(test)]
    pub fn free(&self) -> u64 {
        self.rooms().free
    }

    fn grant(&self, bytes: u64) -> Grant {
        Grant { room: self.clone(), bytes, wanted: self.0.wanted.subscribe() }
    }

    fn give_back(&self, bytes: u64) {
        let mut rooms = self.rooms();
        rooms.free += bytes;
        rooms.hand_out();
        self.say_whether_wanted(&rooms);
    }

    fn say_whether_wanted(&self, rooms: &Rooms) {
        let now = !rooms.waiting.is_empty();
        self.0.wanted.send_if_modified(|wanted| std::mem::replace(wanted, now) != now);
    }
}

impl Rooms {
    /// What a frame of this length may leave at least, taken off what there is.
    fn most(&self, bytes: u64) -> u64 {
        if is_long(bytes) { self.all - self.all / KEPT_PART } else { self.all }
    }

    fn take(&mut self, bytes: u64) -> bool {
        let kept = self.all - self.most(bytes);
        let fits = self.free >= bytes + kept;
        if fits {
            self.free -= bytes;
        }
        fits
    }

    /// To those whose turn it is. Nobody overtakes: a short frame that does not fit lets no long one through.
    fn hand_out(&mut self) {
        while let Some((place, bytes)) =
            self.waiting.first_key_value().map(|(place, waiter)| (*place, waiter.bytes))
        {
            if !self.take(bytes) {
                return;
            }
            // One that has gone took its place with it, under the same lock.
            let told = self.waiting.remove(&place).map(|waiter| waiter.tell.send(()));
            if told.is_none_or(|told| told.is_err()) {
                self.free += bytes;
            }
        }
    }
}

impl Grant {
    /// Whether others wait for room.
    pub fn is_wanted(&self) -> bool {
        *self.wanted.borrow()
    }

    /// Waits until that has changed.
    pub async fn wanted_changes(&mut self) {
        if self.wanted.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.room.give_back(self.bytes);
    }
}

impl Turn {
    /// Waits for the room. May be dropped and called again.
    pub async fn come(&mut self) -> Grant {
        if (&mut self.told).await.is_err() {
            // Nobody drops a waiter without telling it but itself.
            std::future::pending::<()>().await;
        }
        self.taken = true;
        self.room.grant(self.bytes)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let mut rooms = self.room.rooms();
        let waited = rooms.waiting.remove(&self.place).is_some();
        if !waited {
            // It was told, and did not hear it any more.
            rooms.free += self.bytes;
        }
        rooms.hand_out();
        self.room.say_whether_wanted(&rooms);
    }
}

fn is_long(bytes: u64) -> bool {
    bytes > LONG_BYTES
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn two_of_the_longest_frames_leave_room_for_short_ones() {
        let room = FrameRoom::new(36 * MIB);
        let longest = 16 * MIB + 65_536;
        let _held = [room.ask(longest).unwrap(), room.ask(longest).unwrap()];
        let mut third = room.ask(longest).unwrap_err();
        let short = room.ask(MIB).expect("a tenth is kept for them");
        assert!(third.come().now_or_never().is_none() && short.is_wanted());
    }

    #[test]
    fn a_short_frame_does_not_wait_behind_long_ones_and_nobody_else_is_overtaken() {
        let room = FrameRoom::new(10 * MIB);
        let all = room.ask(9 * MIB).unwrap();
        let most_of_the_rest = room.ask(MIB - 4096).unwrap();
        let _a_little = room.ask(4096).unwrap();
        let mut long = room.ask(2 * MIB).unwrap_err();
        let mut short = room.ask(MIB).unwrap_err();
        let mut tiny = room.ask(2048).unwrap_err();
        drop(most_of_the_rest);
        assert!(short.come().now_or_never().is_none(), "a little is missing");
        assert!(tiny.come().now_or_never().is_none(), "it came later");
        drop(all);
        assert_eq!(short.come().now_or_never().unwrap().bytes, MIB);
        assert!(tiny.come().now_or_never().is_some() && long.come().now_or_never().is_some());
    }

    #[test]
    fn whoever_goes_gives_back_its_place_or_the_room_that_it_was_given() {
        let room = FrameRoom::new(4 * MIB);
        let held = room.ask(MIB).unwrap();
        let more = room.ask(3 * MIB - 410 * 1024).unwrap();
        let gone = room.ask(2 * MIB).unwrap_err();
        let unheard = room.ask(MIB).unwrap_err();
        assert!(held.is_wanted());
        drop(gone);
        drop(more);
        // It was told of its room, and leaves before it hears it.
        drop(unheard);
        assert!(!held.is_wanted());
        drop(held);
        assert_eq!(room.free(), 4 * MIB);
    }

    #[test]
    fn a_frame_longer_than_the_room_gets_what_there_is() {
        let room = FrameRoom::new(4 * MIB);
        assert!(room.ask(16 * MIB).is_ok());
        assert_eq!(room.free(), 4 * MIB);
    }
}
