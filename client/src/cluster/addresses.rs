//! Which brokers are known, and in which order to try them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bellwether_protocol::error::BrokerAddress;
use bellwether_protocol::ids::BrokerId;
use rand::seq::SliceRandom;

use crate::builder::ADDRESSES_MAX;

/// How long a broker that failed is tried last.
const SUSPECT_FOR: Duration = Duration::from_secs(3);

/// Addresses given and learnt. Pure but for the shuffle.
#[derive(Debug)]
pub(super) struct Addresses {
    given: Vec<String>,
    learnt: HashMap<BrokerId, String>,
    suspects: HashMap<String, Instant>,
}

impl Addresses {
    pub(super) fn new(given: Vec<String>) -> Addresses {
        Addresses { given, learnt: HashMap::new(), suspects: HashMap::new() }
    }

    /// What a welcome said: the live brokers of now. Others are no longer worth a try.
    pub(super) fn refresh(&mut self, brokers: &[BrokerAddress]) {
        if brokers.is_empty() {
            return;
        }
        self.learnt = brokers
            .iter()
            .take(ADDRESSES_MAX)
            .map(|broker| (broker.broker, broker.address.clone()))
            .collect();
    }

    /// What a redirect said.
    pub(super) fn learn(&mut self, broker: &BrokerAddress) {
        if self.learnt.len() < ADDRESSES_MAX || self.learnt.contains_key(&broker.broker) {
            self.learnt.insert(broker.broker, broker.address.clone());
        }
    }

    /// It could not be reached, or it went silent.
    pub(super) fn suspect(&mut self, address: &str, now: Instant) {
        self.suspects.retain(|_, since| now.duration_since(*since) < SUSPECT_FOR);
        self.suspects.insert(address.to_owned(), now);
    }

    /// It answers.
    pub(super) fn trust(&mut self, address: &str) {
        self.suspects.remove(address);
    }

    pub(super) fn is_suspect(&self, address: &str, now: Instant) -> bool {
        self.suspects.get(address).is_some_and(|since| now.duration_since(*since) < SUSPECT_FOR)
    }

    /// All of them in the order to try: shuffled, so that a thousand clients do not all sit on the first broker;
    /// suspects last, because a frozen broker takes connections and says nothing. Learnt before given: the given
    /// ones may name the same brokers otherwise.
    pub(super) fn to_try(&self, now: Instant) -> Vec<String> {
        let mut rng = rand::rng();
        let mut learnt: Vec<String> = self.learnt.values().cloned().collect();
        learnt.shuffle(&mut rng);
        let mut given: Vec<String> =
            self.given.iter().filter(|given| !learnt.contains(given)).cloned().collect();
        given.shuffle(&mut rng);
        let mut all = learnt;
        all.append(&mut given);
        all.sort_by_key(|address| self.is_suspect(address, now));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(id: u32) -> BrokerAddress {
        BrokerAddress { broker: BrokerId(id), address: format!("10.0.0.{id}:5701") }
    }

    #[test]
    fn a_suspect_is_tried_last_until_it_is_trusted_or_time_has_passed() {
        let mut addresses = Addresses::new(vec![]);
        addresses.refresh(&[broker(1), broker(2), broker(3)]);
        let now = Instant::now();
        addresses.suspect("10.0.0.2:5701", now);
        for _ in 0..20 {
            assert_eq!(addresses.to_try(now).last(), Some(&"10.0.0.2:5701".to_owned()));
        }
        assert!(!addresses.is_suspect("10.0.0.2:5701", now + SUSPECT_FOR));
        addresses.trust("10.0.0.2:5701");
        assert!(!addresses.is_suspect("10.0.0.2:5701", now));
    }

    #[test]
    fn a_welcome_replaces_what_was_learnt_but_never_what_was_given() {
        let mut addresses = Addresses::new(vec!["seed:5701".to_owned()]);
        addresses.refresh(&[broker(1), broker(2)]);
        addresses.refresh(&[broker(3)]);
        assert_eq!(addresses.to_try(Instant::now()), ["10.0.0.3:5701", "seed:5701"]);
    }

    #[test]
    fn learnt_addresses_are_bounded() {
        let mut addresses = Addresses::new(vec![]);
        for id in 0..10_000 {
            addresses.learn(&broker(id));
        }
        assert_eq!(addresses.to_try(Instant::now()).len(), ADDRESSES_MAX);
    }
}
