//! Exchanges and bindings. A binding stands in the document of its queue; adding one also writes the document of its
//! exchange again, so that a delete of the exchange cannot leave a binding behind that came in meanwhile.

use std::sync::Arc;

use bellwether_coordinator::coordinator::{
    Conflict, Coordinator, Document, Path, ReadError, Version, Write,
};
use bellwether_coordinator::paths;
use bellwether_coordinator::records::{
    BINDINGS_BYTES_MAX, Binding, BindingsRecord, ExchangeRecord, NameRecord, UnknownFields,
};
use bellwether_protocol::client::ExchangeKind;
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::ids::QueueId;
use bellwether_protocol::names::{ExchangeName, QueueName, RoutingKey, VirtualHost};
use tokio::time::Instant;

use super::Catalog;
use super::numbers::Declared;
use super::queues::{create, no_such_queue, raced};
use super::writes::{Decision, REQUEST_FOR, unavailable};

/// Attempts at a change that others race with; many clients may bind to one exchange at the same time.
const RACES_MAX: usize = 100;

/// Documents that one multi writes at most, so that it stays below what the coordinator takes.
const WRITES_MAX: usize = 200;

impl Catalog {
    /// Makes an exchange, or finds it with the same kind.
    ///
    /// # Errors
    /// It exists with another kind, it is the default one, or the coordinator is away.
    pub async fn declare_exchange(
        &self,
        host: &VirtualHost,
        name: &ExchangeName,
        kind: ExchangeKind,
    ) -> Result<(), ErrorBody> {
        not_default(name, "it is always there and cannot be declared")?;
        let deadline = Instant::now() + REQUEST_FOR;
        let path = paths::exchange(host, name);
        let mut room = None;
        for _ in 0..RACES_MAX {
            if let Some((record, _)) = self.read_exchange(&path, deadline).await? {
                self.enter(vec![path], deadline).await;
                return same_kind(name, record.kind, kind);
            }
            if room.is_none() {
                room = Some(self.room_for(Declared::Exchange, deadline).await?);
            }
            let record = ExchangeRecord { kind, unknown: UnknownFields::new() };
            let is_there = |session: Arc<dyn Coordinator>| {
                let path = path.clone();
                async move { Ok(session.read(&path).await?.is_some()) }
            };
            match self.decide(vec![create(&path, record.to_bytes())], deadline, is_there).await? {
                // Perhaps somebody else's: the kinds are compared in the next round.
                Decision::Done | Decision::Refused { conflict: Conflict::Exists, .. } => {}
                Decision::Refused { .. } => self.make_folders(std::slice::from_ref(&path)).await?,
            }
        }
        Err(raced())
    }

    /// Deletes an exchange and the bindings that start at it.
    ///
    /// # Errors
    /// There is none, it is the default one, it is in use and that was to be respected, or the coordinator is away.
    pub async fn delete_exchange(
        &self,
        host: &VirtualHost,
        name: &ExchangeName,
        if_unused: bool,
    ) -> Result<(), ErrorBody> {
        not_default(name, "it cannot be deleted")?;
        let deadline = Instant::now() + REQUEST_FOR;
        let path = paths::exchange(host, name);
        for _ in 0..RACES_MAX {
            // Every binding writes the exchange again. With the exchange at the version read here all of them are in the copy.
            let Some((_, version)) = self.read_exchange(&path, deadline).await? else {
                return Err(no_such_exchange(host, name));
            };
            self.catch_up(deadline).await?;
            let bound = self.queues_bound_to(host, name);
            if if_unused && !bound.is_empty() {
                let words = format!("exchange {name} has bindings to {} queues", bound.len());
                return Err(ErrorBody::not_done(ErrorCode::InUse, words));
            }
            let Some(unbinds) = self.unbind_all(name, &bound, deadline).await? else { continue };
            if unbinds.len() > WRITES_MAX {
                // Too many for one multi: the first ones go ahead, and the rest is looked at anew.
                self.write_some(&unbinds[..WRITES_MAX], &path, deadline).await?;
                continue;
            }
            let mut writes = vec![Write::Delete { path: path.clone(), version: Some(version) }];
            let touched: Vec<Path> =
                bound.iter().map(|queue| paths::bindings(*queue)).chain([path.clone()]).collect();
            writes.extend(unbinds);
            let is_gone = |session: Arc<dyn Coordinator>| {
                let path = path.clone();
                async move { Ok(session.read(&path).await?.is_none()) }
            };
            if self.decide(writes, deadline, is_gone).await? == Decision::Done {
                self.enter(touched, deadline).await;
                return Ok(());
            }
        }
        Err(raced())
    }

    /// Carries out some unbinds ahead of the delete they belong to. Refused or undecided, the next round sees what became of them.
    async fn write_some(
        &self,
        unbinds: &[Write],
        exchange: &Path,
        deadline: Instant,
    ) -> Result<(), ErrorBody> {
        let session = self.shared.connected().ok_or_else(unavailable)?;
        if let Err(error) = session.write(unbinds.to_vec()).await {
            tracing::debug!(%exchange, %error, "bindings of an exchange could not be removed at once; looking again");
        }
        self.catch_up(deadline).await
    }

    /// Writes that take the bindings to `exchange` out of these queues' documents; none when a document cannot be read anew.
    async fn unbind_all(
        &self,
        exchange: &ExchangeName,
        queues: &[QueueId],
        deadline: Instant,
    ) -> Result<Option<Vec<Write>>, ErrorBody> {
        let bindings: Vec<Path> = queues.iter().map(|queue| paths::bindings(*queue)).collect();
        let paths = &bindings;
        let documents =
            self.reading(deadline, |session| async move { session.read_many(paths).await }).await?;
        let mut writes = Vec::with_capacity(bindings.len());
        for (path, document) in bindings.into_iter().zip(documents) {
            let Some(document) = document else { continue };
            let Ok(mut record) = BindingsRecord::parse(&document.bytes) else { return Ok(None) };
            let before = record.bindings.len();
            record.bindings.retain(|binding| binding.exchange != *exchange);
            if record.bindings.len() < before {
                writes.push(Write::Set {
                    path,
                    bytes: record.to_bytes(),
                    version: document.version,
                });
            }
        }
        Ok(Some(writes))
    }

    fn queues_bound_to(&self, host: &VirtualHost, exchange: &ExchangeName) -> Vec<QueueId> {
        let tree = self.shared.tree();
        let queues = tree.routing.bindings(host).filter(|binding| binding.exchange == *exchange);
        let mut ids: Vec<QueueId> =
            queues.filter_map(|binding| tree.routing.queue(host, &binding.queue)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Binds a queue to an exchange; done also when it is bound.
    ///
    /// # Errors
    /// One of them does not exist, the exchange is the default one, or the coordinator is away.
    pub async fn bind(
        &self,
        host: &VirtualHost,
        exchange: &ExchangeName,
        queue: &QueueName,
        key: &RoutingKey,
    ) -> Result<(), ErrorBody> {
        not_default(
            exchange,
            "every queue is bound to it by its own name, and nothing else can be",
        )?;
        self.rebind(
            host,
            queue,
            Binding { exchange: exchange.clone(), routing_key: key.clone() },
            true,
        )
        .await
    }

    /// Removes a binding; done also when there is none.
    ///
    /// # Errors
    /// As for [`Catalog::bind`].
    pub async fn unbind(
        &self,
        host: &VirtualHost,
        exchange: &ExchangeName,
        queue: &QueueName,
        key: &RoutingKey,
    ) -> Result<(), ErrorBody> {
        not_default(exchange, "every queue stays bound to it by its own name")?;
        self.rebind(
            host,
            queue,
            Binding { exchange: exchange.clone(), routing_key: key.clone() },
            false,
        )
        .await
    }

    async fn rebind(
        &self,
        host: &VirtualHost,
        queue: &QueueName,
        binding: Binding,
        wanted: bool,
    ) -> Result<(), ErrorBody> {
        let deadline = Instant::now() + REQUEST_FOR;
        let exchange_path = paths::exchange(host, &binding.exchange);
        let mut room = None;
        for _ in 0..RACES_MAX {
            let Some((exchange, exchange_version)) =
                self.read_exchange(&exchange_path, deadline).await?
            else {
                return Err(no_such_exchange(host, &binding.exchange));
            };
            let (id, name_version) = self.read_queue_name(host, queue, deadline).await?;
            let path = paths::bindings(id);
            let document = self.read_document(&path, deadline).await?;
            let Some(record) = changed(document.as_ref(), &binding, wanted)? else {
                self.enter(vec![path, exchange_path], deadline).await;
                return Ok(());
            };
            if wanted {
                self.room_in_queue(record.bindings.len() - 1)?;
                if room.is_none() {
                    room = Some(self.room_for(Declared::Binding, deadline).await?);
                }
            }
            let record = fitting(&record, wanted)?;
            let mut writes =
                vec![Write::Check { path: paths::name(host, queue), version: name_version }];
            writes.push(match &document {
                Some(document) => {
                    Write::Set { path: path.clone(), bytes: record, version: document.version }
                }
                None => create(&path, record),
            });
            if wanted {
                let (path, bytes) = (exchange_path.clone(), exchange.to_bytes());
                writes.push(Write::Set { path, bytes, version: exchange_version });
            }
            let is_done = |session: Arc<dyn Coordinator>| {
                let (path, binding) = (path.clone(), binding.clone());
                async move { holds(&*session, &path, &binding).await.map(|holds| holds == wanted) }
            };
            match self.decide(writes, deadline, is_done).await? {
                Decision::Done => {
                    self.enter(vec![path, exchange_path], deadline).await;
                    return Ok(());
                }
                Decision::Refused { index: 1, conflict: Conflict::Missing }
                    if document.is_none() =>
                {
                    self.make_folders(&[path]).await?;
                }
                // Others bind at the same time, or one of the two was deleted: look again.
                Decision::Refused { .. } => {}
            }
        }
        Err(raced())
    }

    /// The document; asked for once more after a sync when it is not there, for it may have been made on another broker
    /// a moment ago.
    async fn read_document(
        &self,
        path: &Path,
        deadline: Instant,
    ) -> Result<Option<Document>, ErrorBody> {
        let read = |session: Arc<dyn Coordinator>| async move {
            if let Some(found) = session.read(path).await? {
                return Ok(Some(found));
            }
            session.sync().await?;
            session.read(path).await
        };
        self.reading(deadline, read).await
    }

    async fn read_exchange(
        &self,
        path: &Path,
        deadline: Instant,
    ) -> Result<Option<(ExchangeRecord, Version)>, ErrorBody> {
        let Some(document) = self.read_document(path, deadline).await? else { return Ok(None) };
        let record = ExchangeRecord::parse(&document.bytes).map_err(|error| unreadable(&error))?;
        Ok(Some((record, document.version)))
    }

    async fn read_queue_name(
        &self,
        host: &VirtualHost,
        queue: &QueueName,
        deadline: Instant,
    ) -> Result<(QueueId, Version), ErrorBody> {
        let document = self.read_document(&paths::name(host, queue), deadline).await?;
        let document = document.ok_or_else(|| no_such_queue(host, queue))?;
        let record = NameRecord::parse(&document.bytes).map_err(|error| unreadable(&error))?;
        Ok((record.queue, document.version))
    }
}

/// The document with the binding added or removed; `None` when nothing is to be done.
fn changed(
    document: Option<&Document>,
    binding: &Binding,
    wanted: bool,
) -> Result<Option<BindingsRecord>, ErrorBody> {
    let mut record = match document {
        Some(document) => {
            BindingsRecord::parse(&document.bytes).map_err(|error| unreadable(&error))?
        }
        None => BindingsRecord::default(),
    };
    if record.bindings.contains(binding) == wanted {
        return Ok(None);
    }
    if wanted {
        record.bindings.push(binding.clone());
    } else {
        record.bindings.retain(|other| other != binding);
    }
    Ok(Some(record))
}

/// The document as bytes, if it is not too long to be written.
fn fitting(record: &BindingsRecord, wanted: bool) -> Result<bytes::Bytes, ErrorBody> {
    let bytes = record.to_bytes();
    if wanted && bytes.len() > BINDINGS_BYTES_MAX {
        let words = format!(
            "the queue has {} bindings, and their names take all {BINDINGS_BYTES_MAX} bytes that the bindings of one queue may have: unbind some, or use shorter names",
            record.bindings.len() - 1
        );
        return Err(ErrorBody::not_done(ErrorCode::LimitReached, words));
    }
    Ok(bytes)
}

async fn holds(
    session: &dyn Coordinator,
    path: &Path,
    binding: &Binding,
) -> Result<bool, ReadError> {
    let Some(document) = session.read(path).await? else { return Ok(false) };
    let record = BindingsRecord::parse(&document.bytes)
        .map_err(|error| ReadError::Denied(error.to_string()))?;
    Ok(record.bindings.contains(binding))
}

fn not_default(name: &ExchangeName, why: &str) -> Result<(), ErrorBody> {
    if name.is_default() {
        let words = format!("the default exchange is reserved: {why}");
        return Err(ErrorBody::not_done(ErrorCode::NotAllowed, words));
    }
    Ok(())
}

fn same_kind(name: &ExchangeName, is: ExchangeKind, asked: ExchangeKind) -> Result<(), ErrorBody> {
    if is == asked {
        return Ok(());
    }
    let words = format!(
        "exchange {name} exists with another kind: it is {}, not {}",
        kind_name(is),
        kind_name(asked)
    );
    Err(ErrorBody::not_done(ErrorCode::OptionsDiffer, words))
}

fn kind_name(kind: ExchangeKind) -> &'static str {
    match kind {
        ExchangeKind::Direct => "direct",
        ExchangeKind::Fanout => "fanout",
    }
}

fn no_such_exchange(host: &VirtualHost, name: &ExchangeName) -> ErrorBody {
    let words = format!(
        "there is no exchange {name} in virtual host {host}; `bellwether exchange list` shows those that there are"
    );
    ErrorBody::not_done(ErrorCode::NoSuchExchange, words)
}

fn unreadable(error: &bellwether_coordinator::records::RecordError) -> ErrorBody {
    ErrorBody::not_done(
        ErrorCode::Internal,
        format!("a document in the coordinator was written by a newer version: {error}"),
    )
}
