//! The lanes of one connection: one for each pair of producer and queue, found by the pair or by an attempt's token.

use std::collections::HashMap;
use std::time::Instant;

use bellwether_protocol::error::ErrorBody;
use bellwether_protocol::ids::{ProducerHandle, QueueId};
use bellwether_protocol::names::ProducerName;

use super::LANES_MAX;
use super::gates::Leaders;
use super::lane::{Answer, Broken, Dispatch, Lane, Part};

/// Bits of a token that count attempts; those above name the lane.
const TOKEN_COUNTER_BITS: u32 = 40;

/// See the module. A lane keeps its place while its pair is in the map; tokens of attempts name that place.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: Vec<Option<Lane>>,
    of: HashMap<(ProducerHandle, QueueId), usize>,
    free: Vec<usize>,
    attempts: u64,
    /// Lanes that may have something to send.
    ready: Vec<usize>,
    /// Lanes that wait for a leader, or for time to pass.
    held: Vec<usize>,
}

impl Lanes {
    /// Whether idle ones have to go before this pair gets a lane.
    pub fn are_too_many_for(&self, pair: &(ProducerHandle, QueueId)) -> bool {
        self.of.len() >= LANES_MAX && !self.of.contains_key(pair)
    }

    /// Puts a part at the end of a pair's lane, which is made if there is none; `name` is the producer's.
    pub fn push(
        &mut self,
        pair: (ProducerHandle, QueueId),
        name: &Option<ProducerName>,
        part: Part,
    ) -> Option<Answer> {
        let at = self.of.get(&pair).copied().unwrap_or_else(|| self.add(pair, name.clone()));
        let answer = self.lanes[at].as_mut().expect("lanes in the map exist").push(part);
        self.list(at);
        answer
    }

    fn add(&mut self, pair: (ProducerHandle, QueueId), name: Option<ProducerName>) -> usize {
        let lane = Some(Lane::new(pair.1, name));
        let at = match self.free.pop() {
            Some(at) => {
                self.lanes[at] = lane;
                at
            }
            None => {
                self.lanes.push(lane);
                self.lanes.len() - 1
            }
        };
        self.of.insert(pair, at);
        at
    }

    /// Idle lanes go; those whose order was broken are told with their producer, which has to remember it.
    pub fn forget_idle(&mut self) -> Vec<(ProducerHandle, Broken)> {
        let mut broken = Vec::new();
        let Lanes { lanes, of, free, .. } = self;
        of.retain(|(handle, _), at| {
            let lane = lanes[*at].as_mut().expect("lanes in the map exist");
            if !lane.is_idle() || lane.listed {
                return true;
            }
            broken.extend(lane.broken.take().map(|broken| (*handle, broken)));
            lanes[*at] = None;
            free.push(*at);
            false
        });
        broken
    }

    /// A producer's lanes go.
    pub fn forget_producer(&mut self, handle: ProducerHandle) {
        let Lanes { lanes, of, free, .. } = self;
        of.retain(|(owner, _), at| {
            if *owner == handle {
                lanes[*at] = None;
                free.push(*at);
            }
            *owner != handle
        });
    }

    /// What a leader says of an attempt.
    pub fn outcome(
        &mut self,
        now: Instant,
        token: u64,
        result: Result<(), ErrorBody>,
        answers: &mut Vec<Answer>,
    ) {
        let at = place(token);
        let Some(lane) = self.lanes.get_mut(at).and_then(Option::as_mut) else { return };
        lane.outcome(token, result, now, answers);
        if lane.is_held() {
            self.list(at);
        }
    }

    /// An attempt could not be handed over.
    pub fn undelivered(&mut self, now: Instant, token: u64, pause: bool) {
        let at = place(token);
        if let Some(lane) = self.lanes.get_mut(at).and_then(Option::as_mut) {
            lane.undelivered(token, now, pause);
            self.list(at);
        }
    }

    /// Leaders may have changed.
    pub fn look_again(&mut self) {
        for at in 0..self.lanes.len() {
            if let Some(lane) = self.lanes[at].as_mut()
                && !lane.is_idle()
            {
                lane.look_again();
                self.list(at);
            }
        }
    }

    /// Time has passed.
    pub fn tick(&mut self) {
        for at in 0..self.lanes.len() {
            if self.lanes[at].as_ref().is_some_and(|lane| !lane.is_idle()) {
                self.list(at);
            }
        }
    }

    /// When [`Lanes::tick`] is wanted.
    pub fn wake_at(&self) -> Option<Instant> {
        let lane =
            |at: &usize| self.lanes.get(*at).and_then(Option::as_ref).and_then(Lane::wake_at);
        self.held.iter().filter_map(lane).min()
    }

    /// What to hand to leaders now, in order for each of them.
    pub fn dispatch(
        &mut self,
        now: Instant,
        leaders: &dyn Leaders,
        out: &mut Vec<Dispatch>,
        answers: &mut Vec<Answer>,
    ) {
        for at in std::mem::take(&mut self.ready) {
            let Some(lane) = self.lanes[at].as_mut() else { continue };
            lane.listed = false;
            if lane.is_idle() {
                continue;
            }
            let attempts = &mut self.attempts;
            let token = || {
                *attempts += 1;
                ((at as u64) << TOKEN_COUNTER_BITS) | (*attempts & ((1 << TOKEN_COUNTER_BITS) - 1))
            };
            lane.dispatch(now, leaders.leader(lane.queue), token, out, answers);
            if lane.is_held() && !lane.held {
                lane.held = true;
                self.held.push(at);
            }
        }
        let lanes = &mut self.lanes;
        self.held.retain(|at| {
            let Some(lane) = lanes[*at].as_mut() else { return false };
            lane.held = lane.is_held();
            lane.held
        });
    }

    fn list(&mut self, at: usize) {
        if let Some(lane) = self.lanes[at].as_mut()
            && !lane.listed
        {
            lane.listed = true;
            self.ready.push(at);
        }
    }
}

/// The place of the lane that an attempt is of.
fn place(token: u64) -> usize {
    (token >> TOKEN_COUNTER_BITS) as usize
}
