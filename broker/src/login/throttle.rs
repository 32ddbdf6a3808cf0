//! Slows who guesses passwords. Pure. Attempts from one address after failures take turns, each later than the last, and
//! those that would wait too long are not looked at; attempts at one user from anywhere wait a little. A user who logged in from
//! an address lately does not wait there for the failures of others.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bellwether_protocol::names::UserName;

use crate::address::counted_as;

/// Failures that cost nothing: people mistype.
const FREE: u32 = 3;

/// Pause after the first failure that costs something; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause for the failures of an address. Below the time that a handshake may take, so that the answer still comes.
const ADDRESS_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Longest pause for failures at one user: whoever fails on purpose must not lock the user out.
const USER_PAUSE_MAX: Duration = Duration::from_millis(500);

/// After so long without a failure all are forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(300);

/// Addresses, and users, whose failures are remembered: some hundred bytes each. When there are more, those that failed
/// longest ago go first.
const REMEMBERED_MAX: usize = 10_000;

/// Attempts from one address that are being looked at. Their failures are not known yet: a burst of any length would pass before the first of them
/// counts. As many as let a thousand clients of one address come back within seconds.
const AT_ONCE_MAX: u32 = 64;

/// How long it is remembered that a user logged in from an address.
const WELCOME_FOR: Duration = Duration::from_secs(24 * 3600);

/// What an attempt has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is counted as being looked at until [`Throttle::ended`].
    Wait(Duration),
    /// Too many are being looked at: ask again in a moment.
    Busy,
    Refused,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Instant,
    /// When the next attempt may be looked at.
    next: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    addresses: HashMap<IpAddr, Failures>,
    users: HashMap<UserName, Failures>,
    /// Users who logged in from an address, with their own failures there: `last` is the time of a success, too.
    welcome: HashMap<(IpAddr, UserName), Failures>,
    /// Attempts that are being looked at. Only addresses that have some.
    looked_at: HashMap<IpAddr, u32>,
}

impl Throttle {
    pub fn turn(&mut self, now: Instant, address: Option<IpAddr>, user: &UserName) -> Turn {
        let by_user = self
            .users
            .get(user)
            .map_or(Duration::ZERO, |failures| pause(failures, now, USER_PAUSE_MAX));
        let Some(address) = address.map(counted_as) else { return Turn::Wait(by_user) };
        if self.looked_at.get(&address).is_some_and(|count| *count >= AT_ONCE_MAX) {
            return Turn::Busy;
        }
        let wait = match self.lane(now, address, user).map(|failures| take_turn(failures, now)) {
            Some(None) => return Turn::Refused,
            Some(Some(wait)) => wait.max(by_user),
            None => by_user,
        };
        *self.looked_at.entry(address).or_default() += 1;
        Turn::Wait(wait)
    }

    /// Whose failures an attempt waits for.
    fn lane(&mut self, now: Instant, address: IpAddr, user: &UserName) -> Option<&mut Failures> {
        let welcome = self.welcome.get_mut(&(address, user.clone()));
        let lately =
            |failures: &&mut Failures| now.saturating_duration_since(failures.last) < WELCOME_FOR;
        match welcome.filter(lately) {
            Some(failures) => Some(failures),
            None => self.addresses.get_mut(&address),
        }
    }

    /// An attempt that was let through by [`Throttle::turn`] is over, however it ended.
    pub fn ended(&mut self, address: Option<IpAddr>) {
        let Some(address) = address.map(counted_as) else { return };
        if let Some(count) = self.looked_at.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.looked_at.remove(&address);
            }
        }
    }

    pub fn failed(&mut self, now: Instant, address: Option<IpAddr>, user: &UserName) {
        count(&mut self.users, user.clone(), now);
        if let Some(address) = address.map(counted_as) {
            count(&mut self.addresses, address, now);
            // Whoever guesses there at this very user makes it wait, and nobody else.
            if self.welcome.contains_key(&(address, user.clone())) {
                count(&mut self.welcome, (address, user.clone()), now);
            }
        }
    }

    /// The address is not forgiven: with one good password it could guess at others for nothing.
    pub fn succeeded(&mut self, now: Instant, address: Option<IpAddr>, user: &UserName) {
        self.users.remove(user);
        if let Some(address) = address.map(counted_as) {
            let key = (address, user.clone());
            if self.welcome.len() >= REMEMBERED_MAX && !self.welcome.contains_key(&key) {
                make_room(&mut self.welcome, now, WELCOME_FOR);
            }
            self.welcome.insert(key, Failures { count: 0, last: now, next: now });
        }
    }
}

/// One behind the other: many connections at once guess no faster than one. `None`: too late to be looked at.
fn take_turn(failures: &mut Failures, now: Instant) -> Option<Duration> {
    let step = pause(failures, now, ADDRESS_PAUSE_MAX);
    if step.is_zero() {
        return Some(step);
    }
    let at = failures.next.max(now) + step;
    if at - now > ADDRESS_PAUSE_MAX {
        return None;
    }
    failures.next = at;
    Some(at - now)
}

fn pause(failures: &Failures, now: Instant, max: Duration) -> Duration {
    let forgotten = now.saturating_duration_since(failures.last) >= FORGET_AFTER;
    match failures.count.checked_sub(FREE) {
        Some(over) if !forgotten => (FIRST_PAUSE * 2_u32.pow(over.min(10))).min(max),
        _ => Duration::ZERO,
    }
}

fn count<K: Eq + Hash + Clone>(known: &mut HashMap<K, Failures>, key: K, now: Instant) {
    if known.len() >= REMEMBERED_MAX && !known.contains_key(&key) {
        make_room(known, now, FORGET_AFTER);
    }
    let failures = known.entry(key).or_insert(Failures { count: 0, last: now, next: now });
    if now.saturating_duration_since(failures.last) >= FORGET_AFTER {
        failures.count = 0;
    }
    failures.count = failures.count.saturating_add(1);
    failures.last = now;
}

/// A tenth goes at once, so that it is not done for every failure of a flood.
fn make_room<K: Eq + Hash + Clone>(
    known: &mut HashMap<K, Failures>,
    now: Instant,
    forget_after: Duration,
) {
    known.retain(|_, failures| now.saturating_duration_since(failures.last) < forget_after);
    if known.len() < REMEMBERED_MAX {
        return;
    }
    let mut times: Vec<Instant> = known.values().map(|failures| failures.last).collect();
    let (_, limit, _) = times.select_nth_unstable(REMEMBERED_MAX / 10);
    let (limit, mut room) = (*limit, REMEMBERED_MAX / 10);
    known.retain(|_, failures| {
        let goes = failures.last <= limit && room > 0;
        room -= usize::from(goes);
        !goes
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn user(name: &str) -> UserName {
        UserName::new(name).unwrap()
    }

    fn there(n: u32) -> Option<IpAddr> {
        Some(IpAddr::V4(n.into()))
    }

    #[test]
    fn mistyping_costs_nothing_and_guessing_more_each_time() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..9 {
            waits.push(throttle.turn(now, there(1), &user("u")));
            throttle.failed(now, there(1), &user("u"));
        }
        assert_eq!(waits[..3], [Turn::Wait(Duration::ZERO); 3]);
        assert_eq!(waits[3], Turn::Wait(Duration::from_millis(100)));
        assert_eq!(waits[8], Turn::Refused, "{waits:?}");
    }

    #[test]
    fn many_connections_from_one_address_guess_no_faster_than_one() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..4 {
            throttle.failed(now, HERE, &user(&n.to_string()));
        }
        let turns: Vec<Turn> =
            (0..30).map(|n| throttle.turn(now, HERE, &user(&format!("v{n}")))).collect();
        let looked_at = turns.iter().filter(|turn| **turn != Turn::Refused).count();
        assert_eq!(looked_at, 10, "2 s hold ten pauses of 200 ms");
        let later = now + Duration::from_secs(2);
        assert!(matches!(throttle.turn(later, HERE, &user("v")), Turn::Wait(_)));
    }

    #[test]
    fn a_user_whom_others_guess_at_waits_a_little_and_is_never_locked_out() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..1_000 {
            throttle.failed(now, there(n), &user("alice"));
        }
        assert_eq!(throttle.turn(now, there(5_000), &user("alice")), Turn::Wait(USER_PAUSE_MAX));
        assert_eq!(throttle.turn(now, there(5_000), &user("bob")), Turn::Wait(Duration::ZERO));
        throttle.succeeded(now, None, &user("alice"));
        assert_eq!(throttle.turn(now, there(5_000), &user("alice")), Turn::Wait(Duration::ZERO));
    }

    /// One of many behind one address who mistyped, or guessed on purpose, kept all others of that address out.
    #[test]
    fn who_logged_in_from_an_address_lately_does_not_wait_there_for_the_failures_of_others() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        throttle.succeeded(now, HERE, &user("alice"));
        for n in 0..1_000 {
            throttle.failed(now, HERE, &user(&n.to_string()));
            if throttle.turn(now, HERE, &user("mallory")) != Turn::Refused {
                throttle.ended(HERE);
            }
        }
        assert_eq!(throttle.turn(now, HERE, &user("mallory")), Turn::Refused);
        assert_eq!(throttle.turn(now, HERE, &user("alice")), Turn::Wait(Duration::ZERO));
        assert_eq!(throttle.turn(now, there(7), &user("bob")), Turn::Wait(Duration::ZERO));
        // It is no way to guess at alice.
        (0..20).for_each(|_| throttle.failed(now, HERE, &user("alice")));
        assert_ne!(throttle.turn(now, HERE, &user("alice")), Turn::Wait(Duration::ZERO));
        let turns: Vec<Turn> = (0..9).map(|_| throttle.turn(now, HERE, &user("alice"))).collect();
        assert!(turns.contains(&Turn::Refused), "{turns:?}");
    }

    /// Thousands of connections asked before the first failure was known, and all of them were looked at.
    #[test]
    fn a_burst_is_looked_at_a_few_at_a_time_and_its_first_failures_slow_the_rest() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let turns: Vec<Turn> = (0..1_000).map(|_| throttle.turn(now, HERE, &user("u"))).collect();
        let let_through = turns.iter().filter(|turn| **turn != Turn::Busy).count();
        assert_eq!(let_through, AT_ONCE_MAX as usize);
        assert_eq!(throttle.turn(now, there(7), &user("v")), Turn::Wait(Duration::ZERO), "others");
        for _ in 0..let_through {
            throttle.failed(now, HERE, &user("u"));
            throttle.ended(HERE);
        }
        assert_eq!(throttle.turn(now, HERE, &user("u")), Turn::Wait(ADDRESS_PAUSE_MAX));
        assert_eq!(throttle.turn(now, HERE, &user("u")), Turn::Refused);
        throttle.ended(HERE);
        assert!(throttle.looked_at.keys().all(|address| Some(*address) == there(7)));
    }

    #[test]
    fn failures_are_forgotten_with_time() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        (0..20).for_each(|_| throttle.failed(now, HERE, &user("u")));
        let later = now + FORGET_AFTER;
        assert_eq!(throttle.turn(later, HERE, &user("u")), Turn::Wait(Duration::ZERO));
    }

    #[test]
    fn a_flood_of_names_and_addresses_fills_no_memory_and_keeps_the_latest() {
        let mut throttle = Throttle::default();
        let begin = Instant::now();
        for n in 0..30_000_u32 {
            let now = begin + Duration::from_micros(u64::from(n));
            throttle.failed(now, there(n), &user(&n.to_string()));
            throttle.succeeded(now, there(n), &user("u"));
        }
        assert!(
            throttle.users.len() <= REMEMBERED_MAX && throttle.addresses.len() <= REMEMBERED_MAX
        );
        assert!(throttle.welcome.len() <= REMEMBERED_MAX);
        assert!(throttle.users.contains_key(&user("29999")));
        let same: Throttle = {
            let mut throttle = Throttle::default();
            (0..30_000_u32).for_each(|n| throttle.failed(begin, there(n), &user("u")));
            throttle
        };
        assert!(same.addresses.len() <= REMEMBERED_MAX, "also when all come at once");
    }

    #[test]
    fn the_addresses_of_one_network_of_ipv6_count_as_one() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let address = |n: u16| Some(IpAddr::V6([0x2001, 0xdb8, 0, 1, 0, 0, 0, n].into()));
        (0..5).for_each(|n| throttle.failed(now, address(n), &user(&n.to_string())));
        assert_ne!(throttle.turn(now, address(99), &user("v")), Turn::Wait(Duration::ZERO));
    }
}
