//! Which part of the network is hit, and in which direction.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::network::{Direction, Lane, Station};

/// Who is at the other end of the links that are hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// All other brokers; the ensemble is reached.
    Brokers,
    /// One other broker, so many places behind this one.
    OneBroker(usize),
    /// The ensemble; other brokers are reached.
    Ensemble,
    /// Brokers and ensemble.
    All,
}

/// Links of one broker, in one direction or in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub others: Others,
    /// `None`: both.
    pub direction: Option<Direction>,
}

impl Cut {
    /// The one that `draw` stands for.
    #[must_use]
    pub fn drawn(draw: u64) -> Cut {
        let mut random = StdRng::seed_from_u64(draw);
        let others = match random.random_range(0..4) {
            0 => Others::Brokers,
            1 => Others::OneBroker(random.random_range(1..=8)),
            2 => Others::Ensemble,
            _ => Others::All,
        };
        let direction = match random.random_range(0..4) {
            0 => Some(Direction::Out),
            1 => Some(Direction::In),
            _ => None,
        };
        Cut { others, direction }
    }

    /// The directions that are hit.
    pub fn directions(self) -> impl Iterator<Item = Direction> {
        [Direction::Out, Direction::In]
            .into_iter()
            .filter(move |direction| self.direction.is_none_or(|only| only == *direction))
    }

    /// Whether the link to this station is hit, of the broker at `at` among these.
    #[must_use]
    pub fn hits(self, brokers: &[u32], at: usize, other: Station) -> bool {
        match (self.others, other) {
            (Others::All, _)
            | (Others::Brokers, Station::Broker(_))
            | (Others::Ensemble, Station::Server(_)) => true,
            (Others::OneBroker(further), Station::Broker(id)) => {
                // With one broker there is no other one.
                brokers.len() > 1
                    && id == brokers[(at + 1 + further % (brokers.len() - 1)) % brokers.len()]
            }
            (Others::Brokers | Others::OneBroker(_), Station::Server(_))
            | (Others::Ensemble, Station::Broker(_)) => false,
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.direction {
            None => "from and to ",
            Some(Direction::Out) => "to ",
            Some(Direction::In) => "from ",
        })?;
        f.write_str(match self.others {
            Others::Brokers => "brokers",
            Others::OneBroker(_) => "one broker",
            Others::Ensemble => "ensemble",
            Others::All => "all",
        })
    }
}

/// How slow a link becomes.
#[must_use]
pub fn slowness(draw: u64) -> Lane {
    let mut random = StdRng::seed_from_u64(!draw);
    // Around the lease and the lag limit, and down to what cannot carry the load.
    let delay = Duration::from_millis(random.random_range(1..=700));
    let bytes_per_second = random.random_bool(0.5).then(|| 1 << random.random_range(16..=24));
    Lane { held: false, delay, bytes_per_second }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_other_broker_is_another_one_and_each_of_them_is_drawn() {
        let brokers = [1, 2, 5];
        for at in 0..3 {
            let mut hit = Vec::new();
            for further in 1..=8 {
                let cut = Cut { others: Others::OneBroker(further), direction: None };
                let of_this: Vec<u32> = brokers
                    .into_iter()
                    .filter(|&id| cut.hits(&brokers, at, Station::Broker(id)))
                    .collect();
                assert_eq!(of_this.len(), 1);
                assert_ne!(of_this[0], brokers[at]);
                hit.extend(of_this);
            }
            hit.sort_unstable();
            hit.dedup();
            assert_eq!(hit.len(), 2);
        }
    }

    #[test]
    fn every_direction_and_every_part_is_drawn() {
        let cuts: Vec<String> = (0..200).map(|draw| Cut::drawn(draw).to_string()).collect();
        for word in ["to all", "from ensemble", "from and to brokers", "to one broker"] {
            assert!(cuts.iter().any(|cut| cut == word), "{word}");
        }
    }
}
