//! Publishes of a connection: where they go, what they wait for, what their producers are told, and what they cost.

use std::sync::Arc;
use std::time::Instant;

use bellwether_protocol::client::Publish;
use bellwether_protocol::ids::Offset;
use opentelemetry::KeyValue;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{CATCH_UP_FOR, Finished, Session};
use crate::connection::Service;
use crate::publish::{Grants, Traced};
use crate::traces::{Parent, Step};

/// Bytes of publishes that wait while the catalog is asked about an exchange or queue it does not know, before nothing more is read
/// from their connection: one question is for all of them.
const PARKED_BYTES_MAX: usize = 256 * 1024;

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Session<S> {
    /// Routes a publish. A name that is not known may have been declared on another broker a moment ago: then the
    /// catalog catches up first, and what comes behind waits with it, so that the order stays.
    pub(super) fn publish(&mut self, publish: Publish) {
        if self.parked.is_empty() {
            let version = self.service.catalog.routing_version();
            let Publish { exchange, routing_key, .. } = &publish;
            if let Err(refused) = self.access.may_publish(exchange, routing_key) {
                self.service.metrics.access_refused.increment();
                self.publisher.publish(Instant::now(), publish, Err(refused));
                return;
            }
            let (catalog, host) = (&self.service.catalog, &self.host);
            match self.routes.route(version, exchange, routing_key, || {
                catalog.route(host, exchange, routing_key)
            }) {
                Ok(queues) => {
                    let traced = traced(&self.service, &publish);
                    self.publisher.publish_traced(Instant::now(), publish, Ok(&queues), traced);
                    return;
                }
                Err(_unknown) => self.ask_catalog(),
            }
        }
        self.parked_bytes += publish.messages.len();
        self.parked.push(publish);
    }

    /// Whether so much waits for the catalog that nothing more is to be read.
    pub(super) fn has_parked_much(&self) -> bool {
        self.parked_bytes >= PARKED_BYTES_MAX
    }

    fn ask_catalog(&mut self) {
        let (catalog, inbox) = (self.service.catalog.clone(), Arc::clone(&self.inbox));
        self.requests.spawn(async move {
            catalog.look_closer(CATCH_UP_FOR).await;
            inbox.add(|news| news.caught_up = true);
            Finished::Other
        });
    }

    /// Publishes what was parked; what is unknown now does not exist.
    pub(super) fn publish_parked(&mut self) {
        self.parked_bytes = 0;
        let version = self.service.catalog.routing_version();
        for publish in std::mem::take(&mut self.parked) {
            let Publish { exchange, routing_key, .. } = &publish;
            let (catalog, host) = (&self.service.catalog, &self.host);
            let permitted = self.access.may_publish(exchange, routing_key);
            let queues = permitted.and_then(|()| {
                self.routes.route(version, exchange, routing_key, || {
                    catalog.route(host, exchange, routing_key)
                })
            });
            let (now, traced) = (Instant::now(), traced(&self.service, &publish));
            match queues {
                Ok(queues) => self.publisher.publish_traced(now, publish, Ok(&queues), traced),
                Err(error) => self.publisher.publish_traced(now, publish, Err(error), traced),
            }
        }
    }

    /// Hands on what the publisher has, in both directions.
    pub(super) fn pump(&mut self) {
        let now = Instant::now();
        let metrics = &self.service.metrics;
        self.publisher.dispatch(now, &self.service.catalog, &mut self.dispatches);
        if !self.dispatches.is_empty() || !self.stalled.shards.is_empty() {
            let forwarded = self.dispatcher.send(
                now,
                &mut self.dispatches,
                &mut self.publisher,
                &mut self.stalled,
            );
            metrics.forwarded_messages.add(forwarded);
        }
        self.count_bytes();
        self.slow_down();
        let grants = self.grants();
        let stopped = grants == Grants::Stopped;
        self.publisher.frames(grants, &mut self.frames);
        if stopped || self.credit_owed {
            self.count_withheld();
        }
        self.credit_owed = stopped && self.publisher.attached() > 0;
        if !self.frames.is_empty() {
            self.outbox.push_all(self.frames.drain(..));
        }
        let metrics = &self.service.metrics;
        let tally = self.publisher.tally();
        metrics.published_messages.add(tally.published_messages);
        metrics.published_bytes.add(tally.published_bytes);
        metrics.confirmed_messages.add(tally.confirmed_messages);
        metrics.refused_messages.add(tally.refused_messages);
        metrics.unknown_messages.add(tally.unknown_messages);
        metrics.unroutable_messages.add(tally.unroutable_messages);
        if let Some(after) = tally.confirmed_after {
            metrics.confirm_seconds.observe_many(after, tally.confirmed_messages);
        }
        if let Some(traces) = &self.service.traces {
            for Traced { parents, taken_at, confirmed } in self.publisher.take_traced() {
                for parent in parents {
                    let about = vec![KeyValue::new("messaging.confirmed", confirmed)];
                    traces.done(parent, Step::Publish, taken_at, about);
                }
            }
        }
    }

    /// Whether producers get credit now.
    fn grants(&self) -> Grants {
        let metrics = &self.service.metrics;
        let full =
            metrics.publish_bytes_in_flight.get() > self.service.limits.publish_bytes_in_flight_max;
        if metrics.memory.is_above() {
            Grants::Stopped
        } else if full || metrics.disk_low.get() > 0 || !self.stalled.shards.is_empty() {
            Grants::WhenIdle
        } else {
            Grants::Free
        }
    }

    /// Reads nothing more while the broker holds far too many publishes and some of them are of this connection: each answer
    /// wakes it. Settles behind them wait as well; no confirm waits for a settle. Nor is more read while the client has too many
    /// answers to read: the writer wakes it.
    fn slow_down(&mut self) {
        let metrics = &self.service.metrics;
        let too_much = self.publisher.bytes_open() > 0
            && metrics.publish_bytes_in_flight.get() > self.service.publish_bytes_hard_max();
        // Refusals of publishes are answers, too.
        self.held_up = self.held_up || self.has_to_wait();
        if self.intake.pause(too_much || self.held_up) {
            self.heard = tokio::time::Instant::now();
        }
        self.intake.count_requests(self.open_requests());
    }

    /// Counts the producers that are told that they get no credit.
    fn count_withheld(&mut self) {
        let now = self.publisher.withheld() as u64;
        let gauge = &self.service.metrics.producers_withheld;
        gauge.add(now);
        gauge.subtract(self.withheld);
        self.withheld = now;
    }

    fn count_bytes(&mut self) {
        let open = self.publisher.bytes_open() + self.parked_bytes as u64;
        let gauge = &self.service.metrics.publish_bytes_in_flight;
        if open > self.bytes_open {
            gauge.add(open - self.bytes_open);
        } else {
            gauge.subtract(self.bytes_open - open);
        }
        self.bytes_open = open;
    }
}

/// The producers' spans that ask for a span of this frame.
fn traced(service: &Service, publish: &Publish) -> Vec<Parent> {
    let Some(traces) = &service.traces else { return Vec::new() };
    let traced = traces.among(Offset(0), &publish.messages);
    traced.into_iter().map(|(_, parent)| parent).collect()
}
