//! Networks that are cut or slow, and clocks that are wrong.

use std::time::Duration;

use anyhow::Result;
use bellwether_integration_tests::faults::{Cut, Strike, slowness};
use bellwether_integration_tests::network::Lane;

use super::Injector;

/// By how much clocks jump, forwards or backwards, in milliseconds: less than a lease, a few seconds, an hour, a year.
const JUMPS_MS: [i64; 4] = [250, 5_000, 3_600_000, 365 * 86_400_000];

impl Injector {
    pub(super) fn cut(&mut self, strike: Strike) -> Result<()> {
        self.change(strike, |lane| lane.held = true)
    }

    pub(super) fn mend_cuts(&mut self) -> Result<()> {
        self.cluster.network()?.change_all(|lane| lane.held = false);
        Ok(())
    }

    pub(super) fn slow_down(&mut self, strike: Strike) -> Result<()> {
        let slow = slowness(strike.draw);
        self.recorder.note(&format!("links are slow: {slow:?}"));
        self.change(strike, move |lane| *lane = Lane { held: lane.held, ..slow })
    }

    pub(super) fn speed_up(&mut self) -> Result<()> {
        self.cluster.network()?.change_all(|lane| {
            lane.delay = Duration::ZERO;
            lane.bytes_per_second = None;
        });
        Ok(())
    }

    pub(super) fn set_the_clock(&mut self, id: u32, draw: u64) -> Result<()> {
        let jump = JUMPS_MS[draw as usize % JUMPS_MS.len()];
        let ahead = if draw & (1 << 32) == 0 { jump } else { -jump };
        self.recorder.note(&format!("the clock of broker {id} is ahead by {ahead} ms"));
        self.cluster.broker(id).clock_is_ahead(ahead)
    }

    fn change(&mut self, strike: Strike, change: impl Fn(&mut Lane) + Copy) -> Result<()> {
        let cut = Cut::drawn(strike.draw);
        let ids: Vec<u32> = self.cluster.brokers().iter().map(|broker| broker.id()).collect();
        let at = strike.victim % ids.len();
        for direction in cut.directions() {
            let hit = |other| cut.hits(&ids, at, other);
            self.cluster.network()?.change(ids[at], hit, direction, change);
        }
        Ok(())
    }
}
