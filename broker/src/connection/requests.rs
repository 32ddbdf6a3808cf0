//! What clients ask for. Requests run beside the connection, a bounded number of them, so that a slow answer holds
//! nothing else up.

use std::sync::Arc;
use std::time::Duration;

use bellwether_coordinator::users::UserChange;
use bellwether_protocol::client::{BrokerFrame, Claim, Drain, Request, Response};
use bellwether_protocol::error::{ErrorBody, ErrorCode, Outcome};
use bellwether_protocol::ids::{ConsumerHandle, QueueId, RequestId};
use bellwether_protocol::names::{ProducerName, QueueName, VirtualHost};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use super::Service;
use super::consumers::Outlet;
use super::lookups::{Lookup, Lookups};
use super::operators;
use super::session::{CATCH_UP_FOR, Finished, Session, no_such_consumer};
use crate::login::{Rights, deed_of};
use crate::shard::input::{AttachConsumer, ConsumerSink, ShardInput};

/// How long a shard may take to answer: attaching waits for a new leader to serve.
pub(super) const SHARD_ANSWERS_WITHIN: Duration = Duration::from_secs(20);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Session<S> {
    /// Starts a request; what concerns only this connection is answered at once.
    pub(super) async fn request(&mut self, id: RequestId, request: Request) {
        if let Err(refused) = self.access.rights().check(&request) {
            self.service.metrics.access_refused.increment();
            return self.answer(id, Err(refused));
        }
        match request {
            Request::AttachProducer { producer, name, next: _ } => {
                // Else whoever may publish to a queue could publish there under another user's producer's name, with numbers
                // so high that all which that one sends afterwards would be confirmed as a retry, and not stored.
                let attached = may_be_named(name.as_ref())
                    .and_then(|()| self.room_for_producer())
                    .and_then(|()| {
                        let name = match self.access.user() {
                            Some(user) => name.map(|name| name.owned_by(&user.name)),
                            None => name,
                        };
                        self.publisher.attach(producer, name)
                    });
                if attached.is_ok() {
                    self.service.metrics.producers.add(1);
                }
                self.answer(id, attached.map(|()| Response::ProducerAttached));
            }
            Request::DetachProducer { producer } => {
                let detached = self.publisher.detach(producer);
                if detached.is_ok() {
                    self.service.metrics.producers.subtract(1);
                }
                self.answer(id, detached.map(|()| Response::Done));
            }
            Request::DetachConsumer { consumer } => {
                let detached = self.detach_consumer(consumer).await;
                self.answer(id, detached.map(|()| Response::Done));
            }
            Request::ListCredentials if !self.secured => {
                self.answer(id, Err(not_in_the_clear()));
            }
            _ if self.open_requests() >= self.service.limits.requests_in_flight_max => {
                let words = format!(
                    "{} requests are open on this connection; wait for answers",
                    self.open_requests()
                );
                self.answer(id, Err(ErrorBody::not_done(ErrorCode::ConnectionLimit, words)));
            }
            Request::AttachConsumer { consumer, queue, prefetch, prefetch_bytes, claim } => {
                match self.new_outlet(id, consumer, queue.clone(), prefetch) {
                    Ok(outlet) => {
                        let (service, host) = (Arc::clone(&self.service), self.host.clone());
                        let prefetch = prefetch.min(service.limits.prefetch_max);
                        let wanted = Wanted { prefetch, prefetch_bytes, claim };
                        self.requests.spawn(async move {
                            attach(&service, &host, &queue, outlet, wanted).await;
                            Finished::Other
                        });
                    }
                    Err(error) => self.answer(id, Err(error)),
                }
            }
            request if Lookups::are(&request) => {
                let rights = Arc::clone(self.access.rights());
                self.lookups.add(Lookup { id, request, rights });
                self.look_up();
            }
            request => {
                let (service, host, outbox) =
                    (Arc::clone(&self.service), self.host.clone(), Arc::clone(&self.outbox));
                let (rights, from) = (Arc::clone(self.access.rights()), self.from);
                self.requests.spawn(async move {
                    let deed = deed_of(&request);
                    let done = carry_out(&service, &host, &rights, request).await;
                    if let Some(deed) = deed {
                        deed.done(&rights, from, &done);
                    }
                    outbox.push(answer(id, done));
                    Finished::Other
                });
            }
        }
    }

    /// Begins the next look-up, unless the client has answers to read first.
    pub(super) fn look_up(&mut self) {
        if !self.lookups.could_go_on() {
            return;
        }
        if self.outbox.has_to_wait() {
            self.held_up = true;
            return;
        }
        let Some(lookup) = self.lookups.next() else { return };
        let (service, host, outbox) =
            (Arc::clone(&self.service), self.host.clone(), Arc::clone(&self.outbox));
        self.requests.spawn(async move {
            lookup.answer(&service, &host, &outbox).await;
            Finished::Lookup
        });
    }

    /// Requests that are not answered.
    pub(super) fn open_requests(&self) -> usize {
        self.requests.len() + self.lookups.waiting()
    }

    fn answer(&self, id: RequestId, result: Result<Response, ErrorBody>) {
        self.outbox.push(answer(id, result));
    }

    /// Those of all connections: each may cost its credit in memory.
    fn room_for_producer(&self) -> Result<(), ErrorBody> {
        let most = self.service.limits.bounds.producers_max;
        broker_room(self.service.metrics.producers.get(), most, "producers", "producers-max")
    }

    fn new_outlet(
        &mut self,
        id: RequestId,
        handle: ConsumerHandle,
        queue: QueueName,
        prefetch: u32,
    ) -> Result<Arc<Outlet>, ErrorBody> {
        if prefetch == 0 {
            let words = "prefetch is 0; a consumer holds at least one message";
            return Err(ErrorBody::not_done(ErrorCode::InvalidOption, words));
        }
        if self.consumers.get(&handle).is_some_and(|outlet| !outlet.is_closed()) {
            let words = format!(
                "consumer handle {} is in use on this connection; choose another",
                handle.0
            );
            return Err(ErrorBody::not_done(ErrorCode::InvalidOption, words));
        }
        self.consumers.retain(|_, outlet| !outlet.is_closed());
        let limit = self.service.limits.consumers_per_connection_max;
        if self.consumers.len() >= limit {
            let words = format!("this connection has {limit} consumers, the most that are allowed");
            return Err(ErrorBody::not_done(ErrorCode::ConnectionLimit, words));
        }
        let most = self.service.limits.bounds.consumers_max;
        broker_room(self.service.metrics.consumers.get(), most, "consumers", "consumers-max")?;
        let (key, outbox) = (self.service.next_consumer(), Arc::clone(&self.outbox));
        let outlet = Outlet::new(key, handle, queue, id, outbox, Arc::clone(&self.service));
        self.consumers.insert(handle, Arc::clone(&outlet));
        Ok(outlet)
    }

    async fn detach_consumer(&mut self, handle: ConsumerHandle) -> Result<(), ErrorBody> {
        let outlet = self.consumers.remove(&handle).ok_or_else(|| no_such_consumer(handle))?;
        if !outlet.close() {
            // The broker has closed it already.
            return Ok(());
        }
        if let Some(queue) = outlet.queue() {
            let shard = self.service.shards.shard_of(queue);
            self.service
                .shards
                .send(shard, ShardInput::Detach { queue, consumer: outlet.key })
                .await;
        }
        Ok(())
    }
}

pub(super) fn answer(id: RequestId, result: Result<Response, ErrorBody>) -> BrokerFrame {
    match result {
        Ok(response) => BrokerFrame::Response { id, response },
        Err(error) => BrokerFrame::Failure { id, error },
    }
}

/// How a consumer wants to be attached.
struct Wanted {
    prefetch: u32,
    prefetch_bytes: u64,
    claim: Option<Claim>,
}

async fn attach(
    service: &Arc<Service>,
    host: &VirtualHost,
    queue: &QueueName,
    outlet: Arc<Outlet>,
    wanted: Wanted,
) {
    let Wanted { prefetch, prefetch_bytes, claim } = wanted;
    let id = match led_here(service, host, queue).await {
        Ok(id) => id,
        Err(error) => return outlet.refused(error),
    };
    outlet.found_queue(id);
    let shard = service.shards.shard_of(id);
    let (reply, attached) = oneshot::channel();
    let sink = Arc::clone(&outlet) as Arc<dyn ConsumerSink>;
    let consumer = outlet.key;
    let attach =
        AttachConsumer { queue: id, consumer, prefetch, prefetch_bytes, claim, sink, reply };
    service.shards.send(shard, ShardInput::Attach(attach)).await;
    match tokio::time::timeout(SHARD_ANSWERS_WITHIN, attached).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => return outlet.refused(service.catalog.with_leader(id, error)),
        Ok(Err(_stopped)) => return outlet.refused(super::shutting_down()),
        Err(_elapsed) => {
            outlet.refused(late(queue, Outcome::NotDone));
        }
    }
    if outlet.is_closed() {
        // It left, or was given up, while it was being attached.
        service.shards.send(shard, ShardInput::Detach { queue: id, consumer }).await;
    }
}

/// The queue, if it is led here. A name that is not known is looked for once more: it may have been declared a moment ago.
async fn led_here(
    service: &Service,
    host: &VirtualHost,
    queue: &QueueName,
) -> Result<QueueId, ErrorBody> {
    match service.catalog.led_here(host, queue) {
        Err(error)
            if matches!(error.code, ErrorCode::NoSuchQueue | ErrorCode::CoordinatorUnavailable) =>
        {
            service.catalog.look_closer(CATCH_UP_FOR).await;
            service.catalog.led_here(host, queue)
        }
        found => found,
    }
}

/// Asks a queue's shard.
pub(super) async fn ask_shard<T>(
    service: &Service,
    host: &VirtualHost,
    name: &QueueName,
    late_outcome: Outcome,
    ask: impl FnOnce(QueueId, oneshot::Sender<Result<T, ErrorBody>>) -> ShardInput,
) -> Result<(QueueId, T), ErrorBody> {
    let queue = led_here(service, host, name).await?;
    let (reply, answered) = oneshot::channel();
    service.shards.send(service.shards.shard_of(queue), ask(queue, reply)).await;
    match tokio::time::timeout(SHARD_ANSWERS_WITHIN, answered).await {
        Ok(Ok(Ok(answer))) => Ok((queue, answer)),
        Ok(Ok(Err(error))) => Err(service.catalog.with_leader(queue, error)),
        Ok(Err(_stopped)) => Err(ErrorBody { outcome: late_outcome, ..super::shutting_down() }),
        Err(_elapsed) => Err(late(name, late_outcome)),
    }
}

pub(super) async fn carry_out(
    service: &Service,
    host: &VirtualHost,
    rights: &Rights,
    request: Request,
) -> Result<Response, ErrorBody> {
    let catalog = &service.catalog;
    let done = |()| Response::Done;
    match request {
        Request::DeclareExchange { exchange, kind } => {
            catalog.declare_exchange(host, &exchange, kind).await.map(done)
        }
        Request::DeleteExchange { exchange, if_unused } => {
            catalog.delete_exchange(host, &exchange, if_unused).await.map(done)
        }
        Request::ListExchanges
        | Request::ListQueues { .. }
        | Request::ListDefinitions { .. }
        | Request::ListBindings { .. }
            if !catalog.is_complete() =>
        {
            Err(not_read_yet())
        }
        Request::ListExchanges => {
            let mut exchanges = catalog.exchanges(host);
            exchanges.retain(|(name, _)| name.is_default() || rights.shows(name.as_str()));
            Ok(Response::Exchanges(exchanges))
        }
        Request::DeclareQueue { queue, options } => {
            catalog.declare_queue(host, &queue, options).await
        }
        Request::DeleteQueue { queue, if_unused, if_empty } => {
            led_here(service, host, &queue).await?;
            catalog.delete_queue(host, &queue, if_unused, if_empty).await.map(done)
        }
        Request::PurgeQueue { queue } => {
            let purge = |queue, reply| ShardInput::Purge { queue, reply };
            let (_, messages) = ask_shard(service, host, &queue, Outcome::Unknown, purge).await?;
            Ok(Response::Purged { messages })
        }
        Request::Browse(browse) => super::browse::browse(service, host, browse).await,
        Request::ListQueues { after, limit } => {
            let shown = |name: &QueueName| rights.shows(name.as_str());
            Ok(Response::Queues(catalog.queues(host, after, limit, shown).await))
        }
        Request::DescribeQueue { queue } => {
            let describe = |queue, reply| ShardInput::Describe { queue, reply };
            let (id, counts) = ask_shard(service, host, &queue, Outcome::NotDone, describe).await?;
            let summary = catalog.summary(id).ok_or_else(|| catalog.not_leader(id, &queue))?;
            Ok(Response::Queue { summary, counts })
        }
        Request::Bind { exchange, queue, routing_key } => {
            catalog.bind(host, &exchange, &queue, &routing_key).await.map(done)
        }
        Request::Unbind { exchange, queue, routing_key } => {
            catalog.unbind(host, &exchange, &queue, &routing_key).await.map(done)
        }
        Request::ListBindings { queue } => {
            let mut bindings = catalog.bindings(host, queue.as_ref());
            bindings.retain(|binding| {
                rights.shows(binding.queue.as_str()) && rights.shows(binding.exchange.as_str())
            });
            Ok(Response::Bindings(bindings))
        }
        Request::ListDefinitions { after, limit } => {
            Ok(Response::Definitions(catalog.definitions(host, after.as_ref(), limit)))
        }
        Request::CountObjects => Ok(Response::Counted(catalog.counted())),
        Request::ListSettings => {
            let settings = catalog.cluster_settings().await?;
            Ok(Response::Settings(settings.into_iter().collect()))
        }
        Request::ChangeSetting { key, value } => {
            if let Err(why) = service.settings.judge(&key, value.as_deref()) {
                // Whatever is set can be taken back, also what only a later version knows.
                let set = value.is_none() && catalog.cluster_settings().await?.contains_key(&key);
                if !set {
                    return Err(ErrorBody::not_done(ErrorCode::SettingRefused, why));
                }
            }
            catalog.change_setting(key, value).await.map(done)
        }
        Request::Drain { broker, drain } => catalog.drain(broker, drain, false).await.map(done),
        Request::Retire { broker } => {
            catalog.drain(broker, Some(Drain::Copies), true).await.map(done)
        }
        Request::ClearTaint { queue, epoch } => {
            catalog.clear_taint(host, &queue, epoch, rights.user_name()).await.map(done)
        }
        Request::ClusterStatus | Request::Attention { .. } if !catalog.is_complete() => {
            // What it has not read would be told as if it was not there.
            Err(not_read_yet())
        }
        Request::Plan | Request::Stuck { .. } if !catalog.is_complete() => Err(not_read_yet()),
        Request::Plan => {
            catalog.planned_moves().await.map(|(moves, more)| Response::Plan { moves, more })
        }
        Request::Stuck { suppose, limit } => {
            catalog.stuck(suppose, limit).await.map(Response::Stuck)
        }
        Request::AddUser { .. }
        | Request::SetPassword { .. }
        | Request::DeleteUser { .. }
        | Request::ListUsers
        | Request::SetTags { .. }
        | Request::ListCredentials
        | Request::SetPermissions { .. } => about_users(service, request).await,
        Request::ClusterStatus => Ok(Response::Cluster(catalog.status())),
        Request::QueueCondition { .. }
        | Request::ReplicaStatus { .. }
        | Request::Elections { .. }
        | Request::Recover(_)
        | Request::Attention { .. } => operators::carry_out(service, host, request).await,
        Request::AttachProducer { .. }
        | Request::DetachProducer { .. }
        | Request::AttachConsumer { .. }
        | Request::DetachConsumer { .. } => {
            let words = "a request of a connection's own reached the cluster's; please report it";
            Err(ErrorBody::not_done(ErrorCode::Internal, words))
        }
    }
}

/// A client that did not log in speaks for nobody: it could name itself as brokers name the producers of a user.
fn may_be_named(name: Option<&ProducerName>) -> Result<(), ErrorBody> {
    match name {
        Some(name) if name.as_str().starts_with('@') => {
            let words = format!(
                "a producer may not be named {name}: names that begin with @ are those that brokers give the producers of users who logged in; leave the @ out"
            );
            Err(ErrorBody::not_done(ErrorCode::InvalidOption, words))
        }
        _ => Ok(()),
    }
}

/// Whoever reads them on the way can guess passwords, and log in as a broker to clients.
fn not_in_the_clear() -> ErrorBody {
    let words = "what passwords are checked against is not sent to another machine without TLS; connect with TLS, or ask from the broker's own machine over loopback";
    ErrorBody::not_done(ErrorCode::AccessRefused, words)
}

fn not_read_yet() -> ErrorBody {
    let words = "this broker has just started and has not yet read from the coordinator what there is; try again";
    ErrorBody::not_done(ErrorCode::CoordinatorUnavailable, words)
}

/// Administrators only: that was looked at before.
async fn about_users(service: &Service, request: Request) -> Result<Response, ErrorBody> {
    let catalog = &service.catalog;
    let mut keep_administrator = true;
    let (user, change) = match request {
        Request::AddUser { user, credentials, tags } => {
            (user, UserChange::Add { credentials, tags: tags.into_iter().collect() })
        }
        Request::SetPassword { user, credentials } => (user, UserChange::SetPassword(credentials)),
        Request::DeleteUser { user, force } => {
            keep_administrator = !force;
            (user, UserChange::Delete)
        }
        Request::SetTags { user, tags, force } => {
            keep_administrator = !force;
            (user, UserChange::SetTags(tags.into_iter().collect()))
        }
        Request::ListCredentials => {
            return Ok(Response::Credentials(catalog.users()?.all_credentials()));
        }
        Request::SetPermissions { user, virtual_host, permissions } => {
            (user, UserChange::SetPermissions(virtual_host, permissions))
        }
        _ => return Ok(Response::Users(catalog.users()?.list())),
    };
    catalog.change_user(&user, &change, keep_administrator).await.map(|()| Response::Done)
}

pub(super) fn late(queue: &QueueName, outcome: Outcome) -> ErrorBody {
    let words = format!("queue {queue} did not answer within {} s", SHARD_ANSWERS_WITHIN.as_secs());
    ErrorBody { outcome, ..ErrorBody::not_done(ErrorCode::TimedOut, words) }
}

/// Whether one more may be attached to the broker.
fn broker_room(attached: u64, most: usize, what: &str, key: &str) -> Result<(), ErrorBody> {
    if attached < most as u64 {
        return Ok(());
    }
    let words = format!(
        "this broker has {most} {what}, the most that are allowed ({key}); attach on another broker"
    );
    Err(ErrorBody::not_done(ErrorCode::BrokerLimit, words))
}
