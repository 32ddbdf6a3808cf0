//! Who may connect: how many at once in all and from one address, how many that have not said hello, how many a second. What
//! a stranger can take of the broker is decided here, before a byte of it is read.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bellwether_protocol::error::{ErrorBody, ErrorCode};
use tokio::time::{Duration, Instant};

use crate::address::counted_as;
use crate::config::Limits;
use crate::memory::{Held, Pool};
use crate::metrics::Metrics;

/// A connection before its hello takes about so many bytes: its task, and a frame of the longest kind that is allowed then.
const HANDSHAKE_BYTES: u64 = 8 * 1024;

/// What TLS takes besides while it shakes hands: its state, what it has read of the client's records and what it has yet to say.
const TLS_HANDSHAKE_BYTES: u64 = 40 * 1024;

/// What TLS keeps of a connection as long as it lasts: keys, and the buffers for records.
const TLS_BYTES: u64 = 16 * 1024;

/// Connections that may be accepted at once after a pause, as a part of a second's worth.
const BURST_PART: u32 = 4;

/// Decides for all connections of a broker.
#[derive(Debug)]
pub struct Admission {
    metrics: Arc<Metrics>,
    /// Clients speak TLS.
    secure: bool,
    present: Mutex<Present>,
}

#[derive(Debug)]
struct Present {
    most: Most,
    all: Count,
    /// Only addresses that are present.
    by_address: HashMap<IpAddr, Count>,
}

/// What is allowed.
#[derive(Clone, Copy, Debug)]
struct Most {
    connections: usize,
    per_address: usize,
    handshakes: usize,
    handshakes_per_address: usize,
}

impl Most {
    fn of(limits: &Limits) -> Most {
        let per_address = limits.bounds.connections_per_address_max;
        Most {
            connections: limits.connections_max,
            per_address: if per_address == 0 { usize::MAX } else { per_address },
            handshakes: limits.bounds.handshakes_max,
            handshakes_per_address: limits.bounds.handshakes_per_address_max,
        }
    }

    fn check(&self, all: Count, here: Count, address: IpAddr) -> Result<(), ErrorBody> {
        let refuse = |code, words| Err(ErrorBody::not_done(code, words));
        if all.connections >= self.connections {
            let most = self.connections;
            let words = format!(
                "this broker has {most} connections, the most that are allowed (connections-max); connect to another one"
            );
            return refuse(ErrorCode::TooManyConnections, words);
        }
        if here.connections >= self.per_address {
            let most = self.per_address;
            let words = format!(
                "{address} has {most} connections to this broker, the most that are allowed from one address (connections-per-address-max); share them, or connect to another broker"
            );
            return refuse(ErrorCode::TooManyConnections, words);
        }
        if here.handshakes >= self.handshakes_per_address {
            let most = self.handshakes_per_address;
            let words = format!(
                "{most} connections from {address} have not said hello, the most that are allowed from one address (handshakes-per-address-max); connect again in a moment"
            );
            return refuse(ErrorCode::TooManyHandshakes, words);
        }
        if all.handshakes >= self.handshakes {
            let most = self.handshakes;
            let words = format!(
                "{most} connections to this broker have not said hello, the most that are allowed (handshakes-max); connect again in a moment"
            );
            return refuse(ErrorCode::TooManyHandshakes, words);
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    connections: usize,
    handshakes: usize,
}

impl Admission {
    /// Nobody is present yet.
    #[must_use]
    pub fn new(limits: &Limits, metrics: Arc<Metrics>, secure: bool) -> Arc<Admission> {
        let most = Most::of(limits);
        let present = Present { most, all: Count::default(), by_address: HashMap::new() };
        Arc::new(Admission { metrics, secure, present: Mutex::new(present) })
    }

    /// For the next connections: those that are there stay.
    pub fn reconfigure(&self, limits: &Limits) {
        self.present().most = Most::of(limits);
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection from `from` in, for as long as it holds what it gets.
    ///
    /// # Errors
    /// What is used up and what is allowed, for the client to read.
    pub fn admit(self: &Arc<Admission>, from: IpAddr) -> Result<Admitted, ErrorBody> {
        let address = counted_as(from);
        let mut present = self.present();
        let here = present.by_address.get(&address).copied().unwrap_or_default();
        let checked = present.most.check(present.all, here, address);
        if let Err(refusal) = checked.and_then(|()| self.check_memory()) {
            self.metrics.client_connections_refused.increment();
            return Err(refusal);
        }
        present.all.add();
        present.by_address.entry(address).or_default().add();
        drop(present);
        let held = Held::new(&self.metrics, Pool::Handshakes, self.handshake_bytes());
        let tls = self.secure.then(|| Held::new(&self.metrics, Pool::Connections, TLS_BYTES));
        Ok(Admitted { admission: Arc::clone(self), address, handshake: Some(held), _tls: tls })
    }

    /// What a connection takes before its hello.
    fn handshake_bytes(&self) -> u64 {
        HANDSHAKE_BYTES + if self.secure { TLS_HANDSHAKE_BYTES } else { 0 }
    }

    /// Whether there is memory for one more handshake.
    fn check_memory(&self) -> Result<(), ErrorBody> {
        let memory = &self.metrics.memory;
        let held = memory.held(Pool::Handshakes).get();
        match memory.limit_of(Pool::Handshakes) {
            Some(most) if held + self.handshake_bytes() > most => {
                let words = format!(
                    "the memory for connections that have not said hello, {most} bytes, is used up (memory-limit); connect again in a moment"
                );
                Err(ErrorBody::not_done(ErrorCode::TooManyHandshakes, words))
            }
            _ => Ok(()),
        }
    }

    fn change(&self, address: IpAddr, change: impl Fn(&mut Count)) {
        let mut present = self.present();
        change(&mut present.all);
        if let Some(here) = present.by_address.get_mut(&address) {
            change(here);
            // What is remembered of addresses is bounded by who is connected.
            if here.connections == 0 {
                present.by_address.remove(&address);
            }
        }
    }
}

impl Count {
    fn add(&mut self) {
        self.connections += 1;
        self.handshakes += 1;
    }
}

/// The right to be connected. Given back when it is dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    address: IpAddr,
    /// Until its hello.
    handshake: Option<Held>,
    _tls: Option<Held>,
}

impl Admitted {
    /// It has said hello: it makes room for the next stranger.
    pub fn greeted(&mut self) {
        if self.handshake.take().is_some() {
            self.admission.change(self.address, |count| count.handshakes -= 1);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.greeted();
        self.admission.change(self.address, |count| count.connections -= 1);
    }
}

/// Spreads accepts, or something else, over time: a bucket of tokens that fills at a rate.
#[derive(Debug)]
pub struct Pace {
    per_second: u32,
    tokens: f64,
    at: Instant,
}

impl Pace {
    /// A full bucket; 0: no limit.
    #[must_use]
    pub fn new(per_second: u32) -> Pace {
        Pace { per_second, tokens: f64::from(burst(per_second)), at: Instant::now() }
    }

    /// When the next may be accepted, if not at once; takes a token.
    pub fn next(&mut self) -> Option<Instant> {
        if self.per_second == 0 {
            return None;
        }
        let now = Instant::now();
        let rate = f64::from(self.per_second);
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.tokens = (self.tokens + since * rate).min(f64::from(burst(self.per_second))) - 1.0;
        (self.tokens < 0.0).then(|| now + Duration::from_secs_f64(-self.tokens / rate))
    }

    /// The last took as much as so many more.
    pub fn take(&mut self, more: usize) {
        self.tokens -= more as f64;
    }
}

fn burst(per_second: u32) -> u32 {
    per_second.div_ceil(BURST_PART)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Bounds;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn admission(connections_max: usize, bounds: Bounds) -> Arc<Admission> {
        Admission::new(
            &Limits { connections_max, bounds, ..Limits::default() },
            Arc::default(),
            false,
        )
    }

    fn refused(admission: &Arc<Admission>, from: IpAddr) -> ErrorBody {
        admission.admit(from).expect_err("one too many")
    }

    #[test]
    fn strangers_of_one_address_leave_room_for_those_of_another() {
        let bounds =
            Bounds { handshakes_max: 3, handshakes_per_address_max: 2, ..Bounds::default() };
        let admission = admission(10, bounds);
        let mut first = admission.admit(A).unwrap();
        let _second = admission.admit(A).unwrap();
        let error = refused(&admission, A);
        assert_eq!(error.code, ErrorCode::TooManyHandshakes);
        assert!(error.message.contains("2 connections from 10.0.0.1"), "{}", error.message);
        let _third = admission.admit(B).unwrap();
        assert!(refused(&admission, B).message.contains("handshakes-max"));
        // Who says hello makes room for the next.
        first.greeted();
        let _fourth = admission.admit(B).unwrap();
        assert_eq!(admission.metrics.memory.held(Pool::Handshakes).get(), 3 * HANDSHAKE_BYTES);
        assert_eq!(admission.metrics.client_connections_refused.get(), 2);
    }

    #[test]
    fn connections_are_counted_until_they_are_gone_and_nothing_is_remembered_of_them() {
        let bounds = Bounds { connections_per_address_max: 2, ..Bounds::default() };
        let admission = admission(3, bounds);
        let mut held = vec![admission.admit(A).unwrap(), admission.admit(A).unwrap()];
        held.iter_mut().for_each(Admitted::greeted);
        let error = refused(&admission, A);
        assert_eq!(error.code, ErrorCode::TooManyConnections);
        assert!(error.message.contains("connections-per-address-max"), "{}", error.message);
        held.push(admission.admit(B).unwrap());
        assert!(refused(&admission, B).message.contains("has 3 connections"));
        held.clear();
        assert!(admission.present().by_address.is_empty());
        assert_eq!(admission.metrics.memory.total(), 0);
        admission.admit(A).unwrap();
    }

    #[test]
    fn a_handshake_with_tls_takes_more_of_its_pool_and_a_used_up_pool_lets_nobody_in() {
        let metrics: Arc<Metrics> = Arc::default();
        metrics.memory.limit(crate::memory::PoolLimits::split(96 << 20, 1 << 20, 1 << 20));
        let most = metrics.memory.limit_of(Pool::Handshakes).unwrap();
        let limits = Limits { connections_max: 10_000, ..Limits::default() };
        let limits = Limits {
            bounds: Bounds {
                handshakes_max: 5_000,
                handshakes_per_address_max: 5_000,
                ..limits.bounds
            },
            ..limits
        };
        let admission = Admission::new(&limits, Arc::clone(&metrics), true);
        let mut admitted: Vec<Admitted> = Vec::new();
        let refusal = loop {
            match admission.admit(A) {
                Ok(one) => admitted.push(one),
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(refusal.code, ErrorCode::TooManyHandshakes);
        assert!(refusal.message.contains("memory-limit"), "{}", refusal.message);
        assert_eq!(admitted.len() as u64, most / (HANDSHAKE_BYTES + TLS_HANDSHAKE_BYTES));
        // Who says hello makes room, and keeps what its TLS takes.
        admitted[0].greeted();
        let _next = admission.admit(B).unwrap();
        let connections = metrics.memory.held(Pool::Connections).get();
        assert_eq!(connections, (admitted.len() as u64 + 1) * TLS_BYTES);
        drop(admitted);
        assert_eq!(metrics.memory.held(Pool::Connections).get(), TLS_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn accepts_come_in_a_burst_and_then_at_their_rate() {
        let mut pace = Pace::new(100);
        for _ in 0..25 {
            assert_eq!(pace.next(), None);
        }
        let began = Instant::now();
        for _ in 0..50 {
            if let Some(at) = pace.next() {
                tokio::time::sleep_until(at).await;
            }
        }
        let took = began.elapsed();
        assert!(
            took >= Duration::from_millis(490) && took < Duration::from_millis(600),
            "{took:?}"
        );
        let mut free = Pace::new(0);
        assert!((0..10_000).all(|_| free.next().is_none()));
    }
}
