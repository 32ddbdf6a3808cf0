//! Making and finding queues. A declare is one multi, so that name, definition and state come together.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bellwether_coordinator::coordinator::{Conflict, Coordinator, Path, ReadError, Write};
use bellwether_coordinator::paths;
use bellwether_coordinator::records::{NameRecord, QueueDefinition, QueueState, UnknownFields};
use bellwether_protocol::client::{QueueOptions, Response};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::ids::QueueId;
use bellwether_protocol::names::{QueueName, VirtualHost};
use tokio::time::Instant;
use tracing::info;
use uuid::Uuid;

use super::Catalog;
use super::answers::summary;
use super::numbers::Declared;
use super::placing::min_isr;
use super::writes::{Decision, REQUEST_FOR};
use crate::publish::Leadership;

/// Most copies of a queue: beyond it each copy costs more than it saves.
pub const REPLICAS_MAX: u8 = 7;

/// Attempts at a declaration that others race with; each means that somebody else got ahead.
pub(super) const RACES_MAX: usize = 20;

impl Catalog {
    /// Makes a queue, or finds it as it was asked for.
    ///
    /// # Errors
    /// It exists with other options, an option is not allowed, there are too few brokers, or the coordinator is away.
    pub async fn declare_queue(
        &self,
        host: &VirtualHost,
        name: &QueueName,
        options: QueueOptions,
    ) -> Result<Response, ErrorBody> {
        check_options(options)?;
        let deadline = Instant::now() + REQUEST_FOR;
        let id = QueueId(Uuid::new_v4());
        let mut room = None;
        for _ in 0..RACES_MAX {
            if let Some(existing) = self.existing_queue(host, name, deadline).await? {
                return existing.compare(self, options, deadline).await;
            }
            if room.is_none() {
                match self.room_for(Declared::Queue, deadline).await {
                    Ok(found) => room = Some(found),
                    // What others made a moment ago is seen by now, and what is there needs no room.
                    Err(full) => match self.existing_queue(host, name, deadline).await? {
                        Some(existing) => return existing.compare(self, options, deadline).await,
                        None => return Err(full),
                    },
                }
            }
            let plan = self.plan(id, host, name, options)?;
            let name_path = paths::name(host, name);
            let writes = vec![
                create(
                    &name_path,
                    NameRecord { queue: id, unknown: UnknownFields::new() }.to_bytes(),
                ),
                create(&paths::queue(id), plan.definition.to_bytes()),
                create(&paths::queue_state(id), plan.state.to_bytes()),
            ];
            let is_mine = |session: Arc<dyn Coordinator>| {
                let path = name_path.clone();
                async move { Ok(read_name(&*session, &path).await? == Some(id)) }
            };
            match self.decide(writes, deadline, is_mine).await? {
                Decision::Done => {
                    info!(queue = %name, queue.id = %id, virtual_host = %host, replicas = ?plan.state.replicas, "queue declared");
                    self.enter(vec![paths::queue(id), paths::queue_state(id), name_path], deadline)
                        .await;
                    let queue = summary(&plan.definition, &plan.state);
                    return Ok(Response::Declared { created: true, queue, warning: plan.warning });
                }
                Decision::Refused { conflict: Conflict::Missing, .. } => {
                    self.make_folders(&[name_path, paths::queue(id)]).await?;
                }
                // Somebody else was quicker: compare with what that one made.
                Decision::Refused { .. } => {}
            }
        }
        Err(raced())
    }

    async fn existing_queue(
        &self,
        host: &VirtualHost,
        name: &QueueName,
        deadline: Instant,
    ) -> Result<Option<Existing>, ErrorBody> {
        self.reading(deadline, |session| async move { existing(&*session, host, name).await }).await
    }

    /// The queue of that name, if this broker leads it.
    ///
    /// # Errors
    /// There is none, or another broker leads it: the error says where.
    pub fn led_here(&self, host: &VirtualHost, name: &QueueName) -> Result<QueueId, ErrorBody> {
        let unknown = || self.unknown(no_such_queue(host, name));
        let queue = self.queue_named(host, name).ok_or_else(unknown)?;
        match self.shared.tree().leader(queue) {
            Leadership::Led(lead) if lead.life.broker == self.shared.config.me => return Ok(queue),
            Leadership::Led(_) | Leadership::Vacant => {}
            Leadership::Gone => return Err(unknown()),
        }
        Err(self.not_leader(queue, name))
    }

    /// "Not here", and where, if that is known.
    #[must_use]
    pub fn not_leader(&self, queue: QueueId, name: &QueueName) -> ErrorBody {
        let leader = self.leader_address(queue);
        let words = match &leader {
            Some(leader) => {
                format!("queue {name} is led by broker {} at {}", leader.broker, leader.address)
            }
            None => format!("queue {name} has no leader at the moment; try again shortly"),
        };
        ErrorBody { leader, ..ErrorBody::not_done(ErrorCode::NotLeader, words) }
    }

    /// Adds where the leader is to an error that says "not here" without knowing it.
    #[must_use]
    pub fn with_leader(&self, queue: QueueId, mut error: ErrorBody) -> ErrorBody {
        if error.code == ErrorCode::NotLeader && error.leader.is_none() {
            error.leader =
                self.leader_address(queue).filter(|leader| leader.broker != self.shared.config.me);
        }
        error
    }
}

/// A queue that is there already.
struct Existing {
    definition: QueueDefinition,
    state: QueueState,
}

impl Existing {
    async fn compare(
        self,
        catalog: &Catalog,
        options: QueueOptions,
        deadline: Instant,
    ) -> Result<Response, ErrorBody> {
        let mut differences = Vec::new();
        let mut differ = |what: &str, is: u8, asked: u8| {
            if is != asked {
                differences.push(format!("{what} is {is}, not {asked}"));
            }
        };
        differ("replicas", self.definition.replicas_wanted, options.replicas);
        differ("min_isr", self.definition.min_isr, min_isr(options));
        if self.definition.class != options.class {
            let (is, asked) = (self.definition.class, options.class);
            differences.push(format!("class is {is}, not {asked}"));
        }
        if !differences.is_empty() {
            let words = format!(
                "queue {} exists with other options: {}; declare it with the same options, or delete it first",
                self.definition.name,
                differences.join(", ")
            );
            return Err(ErrorBody::not_done(ErrorCode::OptionsDiffer, words));
        }
        let id = self.definition.queue;
        if catalog.queue_named(&self.definition.virtual_host, &self.definition.name) != Some(id) {
            // It was made a moment ago on another broker: this one has to know it before it says that it is there.
            let name = paths::name(&self.definition.virtual_host, &self.definition.name);
            catalog.enter(vec![paths::queue(id), paths::queue_state(id), name], deadline).await;
        }
        let queue = summary(&self.definition, &self.state);
        Ok(Response::Declared { created: false, queue, warning: None })
    }
}

async fn existing(
    session: &dyn Coordinator,
    host: &VirtualHost,
    name: &QueueName,
) -> Result<Option<Existing>, ReadError> {
    let Some(id) = read_name(session, &paths::name(host, name)).await? else { return Ok(None) };
    let documents = session.read_many(&[paths::queue(id), paths::queue_state(id)]).await?;
    let (Some(Some(definition)), Some(Some(state))) = (documents.first(), documents.get(1)) else {
        // Deleted between the reads: the caller finds the name free, or taken anew.
        return Ok(None);
    };
    match (QueueDefinition::parse(&definition.bytes), QueueState::parse(&state.bytes)) {
        (Ok(definition), Ok(state)) => Ok(Some(Existing { definition, state })),
        (Err(error), _) | (_, Err(error)) => Err(ReadError::Denied(error.to_string())),
    }
}

async fn read_name(session: &dyn Coordinator, path: &Path) -> Result<Option<QueueId>, ReadError> {
    let Some(document) = session.read(path).await? else { return Ok(None) };
    match NameRecord::parse(&document.bytes) {
        Ok(record) => Ok(Some(record.queue)),
        Err(error) => Err(ReadError::Denied(error.to_string())),
    }
}

fn check_options(options: QueueOptions) -> Result<(), ErrorBody> {
    let invalid = |words: String| Err(ErrorBody::not_done(ErrorCode::InvalidOption, words));
    if options.replicas == 0 || options.replicas > REPLICAS_MAX {
        return invalid(format!(
            "replicas is {}; 1 to {REPLICAS_MAX} are allowed",
            options.replicas
        ));
    }
    match options.min_isr {
        Some(min_isr) if min_isr == 0 || min_isr > options.replicas => invalid(format!(
            "min_isr is {min_isr}; 1 to {} are allowed, the number of replicas",
            options.replicas
        )),
        _ => Ok(()),
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn create(path: &Path, bytes: bytes::Bytes) -> Write {
    Write::Create { path: path.clone(), bytes, ephemeral: false }
}

pub(super) fn no_such_queue(host: &VirtualHost, name: &QueueName) -> ErrorBody {
    let words = format!(
        "there is no queue {name} in virtual host {host}; `bellwether queue list` shows those that there are"
    );
    ErrorBody::not_done(ErrorCode::NoSuchQueue, words)
}

pub(super) fn raced() -> ErrorBody {
    let words = "others kept changing the same thing at the same time; try again";
    ErrorBody::not_done(ErrorCode::CoordinatorUnavailable, words)
}
