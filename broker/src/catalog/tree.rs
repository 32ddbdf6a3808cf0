//! The copy itself: what was read of the coordinator's tree, entered document by document. Pure. A change costs what
//! it touches, never a walk over all queues.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bellwether_coordinator::coordinator::{Document, Path, Version};
use bellwether_coordinator::paths::{self, Place};
use bellwether_coordinator::placement::BrokerLoad;
use bellwether_coordinator::records::{
    BindingsRecord, BrokerRecord, ControllerRecord, DrainRecord, ExchangeRecord, NameRecord,
    QueueDefinition, QueueState, RecordError, StoreRecord, TombstoneRecord,
};
use bellwether_protocol::client::{Binding, Drain};
use bellwether_protocol::ids::{BrokerId, BrokerLife, QueueId, StoreId};
use bellwether_protocol::names::{ExchangeName, QueueName, VirtualHost};
use tracing::{error, warn};

use super::users::UserEntries;
use crate::publish::{Lead, Leadership};
use crate::routing::RoutingTable;

/// What is known of one queue. Definition and state may be read in any order.
#[derive(Clone, Debug, Default)]
pub(super) struct QueueEntry {
    pub definition: Option<Arc<QueueDefinition>>,
    pub state: Option<(QueueState, Version)>,
}

/// Who is to hold a copy, and who is counted on to hold one.
fn holders(state: &QueueState) -> Vec<BrokerId> {
    let mut holders: Vec<BrokerId> = state.isr.iter().map(|member| member.broker).collect();
    holders.extend(&state.replicas);
    holders.sort_unstable();
    holders.dedup();
    holders
}

fn waiting(record: &TombstoneRecord) -> Waiting {
    let stores = record.stores.as_ref()?;
    Some(stores.iter().map(|store| (store.broker, store.store)).collect())
}

/// What entering documents has changed, gathered over a batch.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub routing: bool,
    pub leaders: bool,
    pub brokers: bool,
    /// Queues whose definition or state is news.
    pub queues: HashSet<QueueId>,
    /// Queues whose state is not there (any more): their tombstones must be looked for.
    pub missing: HashSet<QueueId>,
    /// Queues whose tombstone was read.
    pub deleted: HashSet<QueueId>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub routing: RoutingTable,
    /// Moves with every change of `routing`.
    pub routing_version: u64,
    pub names: HashMap<VirtualHost, BTreeMap<QueueName, QueueId>>,
    pub queues: HashMap<QueueId, QueueEntry>,
    pub exchanges: HashMap<(VirtualHost, ExchangeName), (ExchangeRecord, Version)>,
    bindings: HashMap<QueueId, BindingsRecord>,
    /// How many there are in all of these.
    bindings_count: usize,
    /// Bindings as they were entered into `routing`, to be taken out again.
    bound: HashMap<QueueId, (VirtualHost, Vec<Binding>)>,
    pub brokers: BTreeMap<BrokerLife, Arc<BrokerRecord>>,
    loads: HashMap<BrokerId, Load>,
    /// What operators want emptied.
    pub drained: BTreeMap<BrokerId, Drain>,
    /// Of these, those that go for good.
    pub retired: BTreeSet<BrokerId>,
    /// Tombstones that are there. What is in none of them and not among the queues is not known to be deleted.
    pub tombstones: HashMap<QueueId, Waiting>,
    /// Former data folders of brokers that are still remembered; brokers without any are not in it.
    pub former_stores: BTreeMap<BrokerId, Vec<StoreId>>,
    /// Who holds `/controller`.
    pub controller: Option<BrokerLife>,
    pub users: UserEntries,
}

/// Whom a tombstone waits for. `None`: a former version wrote it, and nobody has written that down yet.
pub(super) type Waiting = Option<Box<[(BrokerId, Option<StoreId>)]>>;

/// How many queues a broker is to hold, and to lead.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    replicas: u32,
    leaders: u32,
    /// Of these it is to hold a copy, or is counted on to hold one.
    copies: u32,
}

/// The live brokers, as a new queue finds them.
#[derive(Clone, Debug, Default)]
pub(super) struct Room {
    /// Those that can hold a copy.
    pub brokers: Vec<BrokerLoad>,
    /// Those that are to hold nothing: an operator drains them of their copies, or retires them.
    pub emptied: Vec<BrokerId>,
}

impl Tree {
    /// Enters what was read at `path`; `synced`: after a sync on its session.
    pub fn enter(
        &mut self,
        path: &Path,
        document: Option<&Document>,
        synced: bool,
        changes: &mut Changes,
    ) {
        let Some(place) = paths::parse(path) else { return };
        if let Err(error) = self.enter_at(place, document, synced, changes) {
            warn!(%path, %error, "a document of the coordinator cannot be read; it is left as it is and passed over");
        }
    }

    fn enter_at(
        &mut self,
        place: Place,
        document: Option<&Document>,
        synced: bool,
        changes: &mut Changes,
    ) -> Result<(), RecordError> {
        let bytes = document.map(|document| &document.bytes[..]);
        match place {
            Place::LiveBroker(life) => {
                self.broker(life, bytes.map(BrokerRecord::parse).transpose()?, changes);
            }
            Place::Drained(broker) => {
                let record = bytes.map(DrainRecord::parse).transpose()?;
                match record.as_ref().is_some_and(|record| record.retired) {
                    true => self.retired.insert(broker),
                    false => self.retired.remove(&broker),
                };
                changes.brokers |= match record {
                    Some(record) => self.drained.insert(broker, record.drain) != Some(record.drain),
                    None => self.drained.remove(&broker).is_some(),
                };
            }
            Place::Name(host, name) => {
                self.name(
                    &host,
                    name,
                    bytes.map(NameRecord::parse).transpose()?.map(|record| record.queue),
                    changes,
                );
            }
            Place::Queue(id) => {
                self.definition(id, bytes.map(QueueDefinition::parse).transpose()?, changes)
            }
            Place::QueueState(id) => {
                let state = bytes.map(QueueState::parse).transpose()?;
                self.state(
                    id,
                    state.zip(document.map(|document| document.version)),
                    synced,
                    changes,
                );
            }
            Place::Exchange(host, name) => {
                let record = bytes.map(ExchangeRecord::parse).transpose()?;
                self.exchange(
                    host,
                    name,
                    record.zip(document.map(|document| document.version)),
                    changes,
                );
            }
            Place::Bindings(id) => {
                self.bindings_of(id, bytes.map(BindingsRecord::parse).transpose()?, changes)
            }
            Place::Deleted(id) => {
                if document.is_some() {
                    self.delete(id, changes);
                }
                match bytes.map(TombstoneRecord::parse).transpose()? {
                    Some(record) => self.tombstones.insert(id, waiting(&record)),
                    None => self.tombstones.remove(&id),
                };
            }
            Place::Controller => {
                let record = bytes.map(ControllerRecord::parse).transpose()?;
                self.controller = record.map(|record| record.life);
            }
            Place::User(name) => self.users.user(name, bytes)?,
            Place::Login => self.users.login(bytes)?,
            Place::Store(broker) => {
                let record = bytes.map(StoreRecord::parse).transpose()?;
                match record.map(|record| record.former).filter(|former| !former.is_empty()) {
                    Some(former) => drop(self.former_stores.insert(broker, former)),
                    None => drop(self.former_stores.remove(&broker)),
                }
            }
            Place::Cluster | Place::BrokerId(_) | Place::Settings => {}
        }
        Ok(())
    }

    fn broker(&mut self, life: BrokerLife, record: Option<BrokerRecord>, changes: &mut Changes) {
        changes.brokers |= match record {
            Some(record) => {
                let record = Arc::new(record);
                self.brokers.insert(life, Arc::clone(&record)).is_none_or(|before| before != record)
            }
            None => self.brokers.remove(&life).is_some(),
        };
    }

    fn name(
        &mut self,
        host: &VirtualHost,
        name: QueueName,
        queue: Option<QueueId>,
        changes: &mut Changes,
    ) {
        let before = self.names.get(host).and_then(|names| names.get(&name)).copied();
        if before == queue {
            return;
        }
        if let Some(before) = before {
            // Else its bindings would lead to the next queue of that name.
            self.unbind(before);
        }
        match queue {
            Some(queue) => {
                self.names.entry(host.clone()).or_default().insert(name.clone(), queue);
                self.routing.add_queue(host, name, queue);
                self.queues.entry(queue).or_default();
                self.bind(queue);
            }
            None => {
                self.routing.remove_queue(host, &name);
                if let Some(names) = self.names.get_mut(host) {
                    names.remove(&name);
                    if names.is_empty() {
                        self.names.remove(host);
                    }
                }
            }
        }
        self.rerouted(changes);
    }

    fn definition(
        &mut self,
        id: QueueId,
        definition: Option<QueueDefinition>,
        changes: &mut Changes,
    ) {
        let Some(definition) = definition.map(Arc::new) else {
            // The state, which goes with it, says what that means.
            if self.queues.contains_key(&id) {
                changes.missing.insert(id);
            }
            return;
        };
        let entry = self.queues.entry(id).or_default();
        if entry.definition.as_ref() == Some(&definition) {
            return;
        }
        entry.definition = Some(Arc::clone(&definition));
        changes.queues.insert(id);
        self.unbind(id);
        self.bind(id);
        self.rerouted(changes);
    }

    fn state(
        &mut self,
        id: QueueId,
        state: Option<(QueueState, Version)>,
        synced: bool,
        changes: &mut Changes,
    ) {
        let Some((state, version)) = state else {
            changes.missing.insert(id);
            return;
        };
        let entry = self.queues.entry(id).or_default();
        match &entry.state {
            Some((_, before)) if version < *before => {
                // A read may be behind, but not one after a sync: then the ensemble itself went back.
                if synced {
                    error!(queue.id = %id, seen = before.0, read = version.0, "the coordinator has an older state of this queue than was seen before: it was restored from an old copy");
                    changes.missing.insert(id);
                }
                return;
            }
            Some((_, before)) if version == *before => {
                // Nothing new, but who asked for a synced read waits for the answer.
                if synced {
                    changes.queues.insert(id);
                }
                return;
            }
            Some((before, _)) => {
                changes.leaders |= before.leader != state.leader || before.epoch != state.epoch;
            }
            None => changes.leaders = true,
        }
        let before = entry.state.replace((state.clone(), version)).map(|(before, _)| before);
        let same = before
            .as_ref()
            .is_some_and(|before| before.replicas == state.replicas && before.isr == state.isr);
        if !same {
            self.count_load(before.as_ref(), Some(&state));
        }
        changes.queues.insert(id);
    }

    fn exchange(
        &mut self,
        host: VirtualHost,
        name: ExchangeName,
        record: Option<(ExchangeRecord, Version)>,
        changes: &mut Changes,
    ) {
        let key = (host, name);
        let kind = record.as_ref().map(|(record, _)| record.kind);
        let before = self.exchanges.get(&key).map(|(record, _)| record.kind);
        let (host, name) = &key;
        if kind != before {
            match kind {
                Some(kind) => self.routing.add_exchange(host, name.clone(), kind),
                None => self.routing.remove_exchange(host, name),
            }
            self.rerouted(changes);
        }
        match record {
            Some(record) => self.exchanges.insert(key, record),
            None => self.exchanges.remove(&key),
        };
    }

    fn bindings_of(&mut self, id: QueueId, record: Option<BindingsRecord>, changes: &mut Changes) {
        if self.bindings.get(&id) == record.as_ref() {
            return;
        }
        self.unbind(id);
        self.drop_bindings(id);
        if let Some(record) = record {
            self.bindings_count += record.bindings.len();
            self.bindings.insert(id, record);
            self.bind(id);
        }
        self.rerouted(changes);
    }

    fn drop_bindings(&mut self, id: QueueId) {
        if let Some(before) = self.bindings.remove(&id) {
            self.bindings_count -= before.bindings.len();
        }
    }

    /// Bindings of all queues together.
    pub fn bindings_count(&self) -> usize {
        self.bindings_count
    }

    /// Enters a queue's bindings into the routes, if its name is its own.
    fn bind(&mut self, id: QueueId) {
        let definition = self.queues.get(&id).and_then(|entry| entry.definition.as_ref());
        let (Some(definition), Some(record)) = (definition, self.bindings.get(&id)) else { return };
        let host = definition.virtual_host.clone();
        if self.names.get(&host).and_then(|names| names.get(&definition.name)) != Some(&id) {
            return;
        }
        let bound: Vec<Binding> = record
            .bindings
            .iter()
            .map(|binding| Binding {
                exchange: binding.exchange.clone(),
                queue: definition.name.clone(),
                routing_key: binding.routing_key.clone(),
            })
            .collect();
        for binding in &bound {
            self.routing.bind(&host, binding.clone());
        }
        self.bound.insert(id, (host, bound));
    }

    fn unbind(&mut self, id: QueueId) {
        let Some((host, bound)) = self.bound.remove(&id) else { return };
        for binding in &bound {
            self.routing.unbind(&host, binding);
        }
    }

    fn delete(&mut self, id: QueueId, changes: &mut Changes) {
        changes.deleted.insert(id);
        changes.missing.remove(&id);
        changes.queues.remove(&id);
        let Some(entry) = self.queues.remove(&id) else { return };
        changes.leaders = true;
        self.count_load(entry.state.as_ref().map(|(state, _)| state), None);
        self.unbind(id);
        self.drop_bindings(id);
        if let Some(definition) = entry.definition {
            let (host, name) = (&definition.virtual_host, &definition.name);
            if self.names.get(host).and_then(|names| names.get(name)) == Some(&id) {
                self.name(host, name.clone(), None, changes);
            }
        }
        self.rerouted(changes);
    }

    /// Neither state nor tombstone is there. The entry stays, without a leader: nothing is known to be deleted.
    pub fn vanish(&mut self, id: QueueId, changes: &mut Changes) {
        if let Some(entry) = self.queues.get_mut(&id) {
            let before = entry.state.take();
            changes.leaders |= before.is_some();
            if let Some((state, _)) = before {
                self.count_load(Some(&state), None);
            }
        }
    }

    fn count_load(&mut self, before: Option<&QueueState>, after: Option<&QueueState>) {
        for (state, counts) in [(before, false), (after, true)] {
            let Some(state) = state else { continue };
            let change = |count: &mut u32| {
                *count = if counts { *count + 1 } else { count.saturating_sub(1) };
            };
            for broker in &state.replicas {
                change(&mut self.loads.entry(*broker).or_default().replicas);
            }
            if let Some(first) = state.replicas.first() {
                change(&mut self.loads.entry(*first).or_default().leaders);
            }
            for broker in holders(state) {
                change(&mut self.loads.entry(broker).or_default().copies);
            }
        }
    }

    fn rerouted(&mut self, changes: &mut Changes) {
        self.routing_version += 1;
        changes.routing = true;
    }

    /// How many tombstones wait for each broker: it has still to say that nothing is left on its disk.
    pub fn waited_for(&self) -> Vec<(BrokerId, u64)> {
        let mut waited: BTreeMap<BrokerId, u64> = BTreeMap::new();
        for (broker, _) in self.tombstones.values().flatten().flat_map(|stores| stores.iter()) {
            *waited.entry(*broker).or_default() += 1;
        }
        waited.into_iter().collect()
    }

    /// Brokers that queues count on.
    pub fn counted(&self) -> impl Iterator<Item = BrokerId> + '_ {
        self.loads.iter().filter(|(_, load)| load.copies > 0).map(|(broker, _)| *broker)
    }

    /// Brokers that queues count on, or that are being drained, and that are not live. One that was retired and has nothing left is
    /// not missed any more.
    pub fn absent(&self) -> Vec<BrokerId> {
        let drained = self.drained.keys().filter(|broker| !self.retired.contains(broker));
        let mut absent: Vec<BrokerId> = self.counted().chain(drained.copied()).collect();
        absent.retain(|broker| self.broker_by_id(*broker).is_none());
        absent.sort_unstable();
        absent.dedup();
        absent
    }

    /// How many queues are to have a copy on a broker, or count on the one that it has.
    pub fn copies(&self, broker: BrokerId) -> u32 {
        self.loads.get(&broker).map_or(0, |load| load.copies)
    }

    /// Who can be given copies of a new queue. A broker that is drained of its leaderships still holds copies.
    pub fn room(&self) -> Room {
        let mut room = Room::default();
        let mut seen = HashSet::new();
        for record in self.brokers.values() {
            let broker = record.life.broker;
            // Two lives of one broker may show for a moment.
            if !seen.insert(broker) {
                continue;
            }
            let drain = self.drained.get(&broker);
            if drain == Some(&Drain::Copies) {
                room.emptied.push(broker);
                continue;
            }
            let load = self.loads.get(&broker).copied().unwrap_or_default();
            room.brokers.push(BrokerLoad {
                broker,
                rack: record.rack.clone(),
                replicas: load.replicas,
                leaders: load.leaders,
                may_lead: drain.is_none(),
            });
        }
        room
    }

    /// Who leads a queue.
    pub fn leader(&self, id: QueueId) -> Leadership {
        let Some(entry) = self.queues.get(&id) else { return Leadership::Gone };
        match &entry.state {
            Some((QueueState { leader: Some(life), epoch, .. }, _)) => {
                Leadership::Led(Lead { life: *life, epoch: *epoch })
            }
            _ => Leadership::Vacant,
        }
    }

    /// The latest life of a broker that is registered.
    pub fn broker_by_id(&self, id: BrokerId) -> Option<&Arc<BrokerRecord>> {
        self.brokers.values().find(|record| record.life.broker == id)
    }

    /// A queue's definition with its present state.
    pub fn queue(&self, id: QueueId) -> Option<(&Arc<QueueDefinition>, &QueueState, Version)> {
        let entry = self.queues.get(&id)?;
        let (state, version) = entry.state.as_ref()?;
        Some((entry.definition.as_ref()?, state, *version))
    }

    /// Paths of everything known here, of the given kinds, that is not among `listed`.
    pub fn known_but_not(&self, listed: &HashSet<Path>) -> Vec<Path> {
        let names = self
            .names
            .iter()
            .flat_map(|(host, names)| names.keys().map(move |name| paths::name(host, name)));
        let exchanges = self.exchanges.keys().map(|(host, name)| paths::exchange(host, name));
        let bindings = self.bindings.keys().map(|id| paths::bindings(*id));
        let states = self.queues.keys().map(|id| paths::queue_state(*id));
        let brokers = self.brokers.keys().map(|life| paths::live_broker(*life));
        let drained = self.drained.keys().map(|broker| paths::drained(*broker));
        let stores = self.former_stores.keys().map(|broker| paths::store(*broker));
        let tombstones = self.tombstones.keys().map(|id| paths::deleted(*id));
        names
            .chain(exchanges)
            .chain(bindings)
            .chain(states)
            .chain(brokers)
            .chain(drained)
            .chain(stores)
            .chain(tombstones)
            .chain(self.users.paths())
            .filter(|path| !listed.contains(path))
            .collect()
    }
}
