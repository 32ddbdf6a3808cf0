//! Histories of tombstones. Promise G8: what was deleted never comes back; and what is left of it is not kept for ever.

use std::time::Instant;

use bellwether_coordinator::coordinator::WriteError;
use bellwether_coordinator::records::{
    BrokerRecord, HoldingStore, QueueState, StoreRecord, UnknownFields,
};
use bellwether_protocol::client::Drain;
use bellwether_protocol::ids::{BrokerId, Epoch, StoreId};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::super::doubles::*;
use super::super::tombstones::KnownStores;
use super::super::{Catalog, ReplacedStores};
use super::*;
use crate::shard::input::{Deletable, QueueNews};

/// Shards that hold nothing, and have nothing against a delete.
struct EmptyShards(JoinHandle<()>);

impl Drop for EmptyShards {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn empty_shards(world: &Surroundings) -> EmptyShards {
    let (shard, catalog) = (Arc::clone(&world.shard), world.catalog.clone());
    EmptyShards(tokio::spawn(async move {
        loop {
            let answered = shard.next(|input| match input {
                ShardInput::DurablyGone { queues, reply } => Some(reply.send(queues).is_ok()),
                ShardInput::PrepareDelete { queue, reply, .. } => {
                    let version = catalog.shared.tree().queue(queue).expect("it is known").2;
                    Some(reply.send(Ok(Deletable { version, epoch: Epoch(1) })).is_ok())
                }
                _ => None,
            });
            answered.await;
        }
    }))
}

/// Answers one question of what is held, as a shard would.
async fn says(world: &Surroundings, gone: impl Fn(Vec<QueueId>) -> Vec<QueueId>) {
    let asked = world.shard.next(|input| match input {
        ShardInput::DurablyGone { queues, reply } => Some((queues, reply)),
        _ => None,
    });
    let (queues, reply) = asked.await;
    reply.send(gone(queues)).expect("it is waited for");
}

/// What the shard is told of the queue.
async fn told(world: &Surroundings, queue: QueueId) -> &'static str {
    let is_it = |input| match input {
        ShardInput::Queues(news) => news.into_iter().find_map(|news| match news {
            QueueNews::Deleted(id) if id == queue => Some("deleted"),
            QueueNews::Vanished(id) if id == queue => Some("vanished"),
            _ => None,
        }),
        _ => None,
    };
    world.shard.next(is_it).await
}

fn store(broker: u32) -> Option<StoreId> {
    Some(record(life(broker)).store)
}

async fn waits_for(session: &Arc<dyn Coordinator>, queue: QueueId) -> Option<Vec<HoldingStore>> {
    session.sync().await.unwrap();
    let document = session.read(&paths::deleted(queue)).await.unwrap()?;
    TombstoneRecord::parse(&document.bytes).unwrap().stores
}

fn brokers(stores: Option<Vec<HoldingStore>>) -> Vec<u32> {
    stores.into_iter().flatten().map(|store| store.broker.0).collect()
}

/// Waits until the tombstone waits for just these.
async fn until_left(session: &Arc<dyn Coordinator>, queue: QueueId, left: &[u32]) {
    let mut events = session.watch(&[paths::all_deleted()]).await.unwrap();
    let waited = async {
        while brokers(waits_for(session, queue).await) != left {
            events.recv().await.expect("the session lives");
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("{left:?} are left"));
}

async fn delete(world: &Surroundings, name: &str) {
    world.catalog.delete_queue(&host(), &queue(name), false, false).await.unwrap();
}

/// A broker that was there once, and is away.
async fn was_there_once(world: &Surroundings, broker: u32) {
    let session = world.other_session().await;
    register(&*session, life(broker)).await;
    session.close().await.unwrap();
}

impl Surroundings {
    async fn other_session(&self) -> Arc<dyn Coordinator> {
        use bellwether_coordinator::coordinator::Connector as _;
        self.embedded.connector(Duration::from_secs(10)).connect().await.unwrap()
    }
}

/// One round of the controller's.
async fn attend(catalog: &Catalog, replaced: &mut ReplacedStores, now: Instant) {
    catalog.attend_tombstones(replaced, now).await.unwrap();
}

/// The queue had a copy on broker 2 once; it was moved away while that one was off, so that nothing names it any more.
#[tokio::test]
async fn a_broker_that_was_off_through_it_all_drops_its_old_copy_whenever_it_comes_back() {
    let one = Surroundings::new().await;
    was_there_once(&one, 2).await;
    let _shards = empty_shards(&one);
    let id = one.declare("orders").await;
    delete(&one, "orders").await;
    until_left(&one.session, id, &[2]).await;
    // However long that takes: nobody but itself says what its disk holds.
    for _ in 0..3 {
        attend(&one.catalog, &mut ReplacedStores::default(), Instant::now()).await;
    }
    assert_eq!(brokers(waits_for(&one.session, id).await), [2]);
    assert_eq!(one.catalog.status().tombstones, [(BrokerId(2), 1)]);

    let two = Surroundings::beside(one.embedded.clone(), 2, vec![id]).await;
    assert_eq!(told(&two, id).await, "deleted");
    // Its log is removed, and the disk has not synced that yet: after a loss of power it would be there again.
    says(&two, |_| Vec::new()).await;
    assert_eq!(brokers(waits_for(&one.session, id).await), [2]);
    says(&two, |queues| queues).await;
    until_left(&one.session, id, &[]).await;
    assert!(one.session.read(&paths::deleted(id)).await.unwrap().is_none(), "it waits for nobody");
}

/// The power goes between the two: at the next start there is no log that would make anybody ask.
#[tokio::test]
async fn a_crash_between_the_removal_and_the_strike_leaves_no_tombstone_for_ever() {
    let one = Surroundings::new().await;
    was_there_once(&one, 2).await;
    let _shards = empty_shards(&one);
    let id = one.declare("orders").await;
    delete(&one, "orders").await;
    until_left(&one.session, id, &[2]).await;
    let two = Surroundings::beside(one.embedded.clone(), 2, Vec::new()).await;
    let _its_shards = empty_shards(&two);
    until_left(&one.session, id, &[]).await;
}

#[tokio::test]
async fn a_shard_that_does_not_answer_has_not_said_that_it_holds_nothing() {
    let world = Surroundings::new().await;
    let id = world.declare("orders").await;
    {
        let _shards = empty_shards(&world);
        let record = TombstoneRecord {
            queue: id,
            virtual_host: host(),
            name: queue("orders"),
            stores: Some(vec![holding(1, Some(StoreId(Uuid::from_u128(99))))]),
            unknown: UnknownFields::new(),
        };
        bury(&world.session, &record).await;
        // Another store of this broker's, which it had once: not for this one to say.
        world.catalog.look_closer(PATIENCE).await;
        assert_eq!(world.catalog.status().tombstones, [(BrokerId(1), 1)]);
        assert_eq!(brokers(waits_for(&world.session, id).await), [1]);
    }
    let other = QueueId(Uuid::from_u128(5));
    let record = TombstoneRecord {
        queue: other,
        virtual_host: host(),
        name: queue("audit"),
        stores: Some(vec![holding(1, store(1))]),
        unknown: UnknownFields::new(),
    };
    bury(&world.session, &record).await;
    let unanswered = |input| matches!(input, ShardInput::DurablyGone { .. }).then_some(());
    world.shard.next(unanswered).await;
    world.shard.next(unanswered).await;
    assert_eq!(brokers(waits_for(&world.session, other).await), [1]);
    says(&world, |queues| queues).await;
    until_left(&world.session, other, &[]).await;
}

fn holding(broker: u32, store: Option<StoreId>) -> HoldingStore {
    HoldingStore { broker: BrokerId(broker), store, unknown: UnknownFields::new() }
}

async fn bury(session: &Arc<dyn Coordinator>, record: &TombstoneRecord) {
    let path = paths::deleted(record.queue);
    session.make_parents(&path.parent().unwrap()).await.unwrap();
    let write = Write::Create { path, bytes: record.to_bytes(), ephemeral: false };
    session.write(vec![write]).await.unwrap();
}

/// It is the deleter's own proof of what became of a delete whose answer was lost.
#[tokio::test]
async fn a_tombstone_does_not_vanish_before_who_deletes_knows_that_it_stands() {
    let world = Surroundings::new().await;
    let id = world.declare("orders").await;
    let version = world.catalog.shared.tree().queue(id).unwrap().2;
    let (host, name) = (host(), queue("orders"));
    let deleting = world.catalog.delete_queue(&host, &name, false, false);
    let shards = async {
        let prepared = world.shard.next(|input| match input {
            ShardInput::PrepareDelete { reply, .. } => Some(reply),
            _ => None,
        });
        let prepared = prepared.await;
        world.faults().lose_replies(1);
        prepared.send(Ok(Deletable { version, epoch: Epoch(1) })).unwrap();
        // Whatever is asked first: no question of what is held comes before the delete is decided.
        let first = world.shard.next(|input| match input {
            ShardInput::DurablyGone { queues, reply } => {
                reply.send(queues).expect("it is waited for");
                Some("asked")
            }
            ShardInput::DeleteDecided { deleted: true, .. } => Some("decided"),
            _ => None,
        });
        assert_eq!(first.await, "decided");
        says(&world, |queues| queues).await;
    };
    let (deleted, ()) = tokio::join!(deleting, shards);
    deleted.unwrap();
    until_left(&world.session, id, &[]).await;
}

#[tokio::test]
async fn a_former_versions_tombstone_gets_its_list_and_goes_like_any_other() {
    let one = Surroundings::new().await;
    was_there_once(&one, 3).await;
    let _shards = empty_shards(&one);
    let id = QueueId(Uuid::from_u128(7));
    let former = TombstoneRecord {
        queue: id,
        virtual_host: host(),
        name: queue("orders"),
        stores: None,
        unknown: [("colour".to_owned(), "red".into())].into_iter().collect(),
    };
    bury(&one.session, &former).await;
    one.catalog.look_closer(PATIENCE).await;
    assert_eq!(waits_for(&one.session, id).await, None, "nobody is known to hold nothing");
    attend(&one.catalog, &mut ReplacedStores::default(), Instant::now()).await;
    until_left(&one.session, id, &[3]).await;
    let three = Surroundings::beside(one.embedded.clone(), 3, vec![id]).await;
    let _its_shards = empty_shards(&three);
    until_left(&one.session, id, &[]).await;
}

/// A retired broker is not waited for. When it comes back all the same, with what it had: the tombstone is gone, and "not found" deletes
/// nothing. Nor does the data come back: it is stopped, and says why, and a queue of the same name is another one.
#[tokio::test]
async fn a_retired_store_that_comes_back_after_the_tombstone_has_vanished_brings_nothing_back() {
    let one = Surroundings::new().await;
    was_there_once(&one, 2).await;
    let shards = empty_shards(&one);
    let id = one.declare("orders").await;
    delete(&one, "orders").await;
    until_left(&one.session, id, &[2]).await;

    // Drained of its copies it is waited for still.
    one.catalog.drain(BrokerId(2), Some(Drain::Copies), false).await.unwrap();
    attend(&one.catalog, &mut ReplacedStores::default(), Instant::now()).await;
    assert_eq!(brokers(waits_for(&one.session, id).await), [2]);
    one.catalog.drain(BrokerId(2), Some(Drain::Copies), true).await.unwrap();
    attend(&one.catalog, &mut ReplacedStores::default(), Instant::now()).await;
    until_left(&one.session, id, &[]).await;
    one.catalog.look_closer(PATIENCE).await;
    attend(&one.catalog, &mut ReplacedStores::default(), Instant::now()).await;
    assert!(one.session.read(&paths::store(BrokerId(2))).await.unwrap().is_none());
    assert_eq!(one.catalog.absent(), [], "nobody misses it");

    let again = one.declare("orders").await;
    assert_ne!(again, id);
    drop(shards);
    let two = Surroundings::beside(one.embedded.clone(), 2, vec![id]).await;
    assert_eq!(told(&two, id).await, "vanished");
    assert!(two.session.read(&paths::store(BrokerId(2))).await.unwrap().is_some());
}

/// While it lives it says itself what it holds: it may be a retirement that has only begun.
#[tokio::test]
async fn a_retired_broker_that_is_live_is_waited_for() {
    let one = Surroundings::new().await;
    let two = Surroundings::beside(one.embedded.clone(), 2, Vec::new()).await;
    let _shards = empty_shards(&one);
    one.catalog.drain(BrokerId(2), Some(Drain::Copies), true).await.unwrap();
    let id = one.declare("orders").await;
    delete(&one, "orders").await;
    until_left(&one.session, id, &[2]).await;
    attend(&one.catalog, &mut ReplacedStores::default(), Instant::now()).await;
    assert_eq!(brokers(waits_for(&one.session, id).await), [2]);
    assert!(one.session.read(&paths::store(BrokerId(2))).await.unwrap().is_some());
    let _its_shards = empty_shards(&two);
    until_left(&one.session, id, &[]).await;
}

/// The disk of broker 2 was replaced: what took its place answers for it, and not at once, for a disk may just not be mounted.
#[tokio::test]
async fn a_store_that_was_replaced_is_waited_for_a_while_and_then_its_successor_is() {
    let one = Surroundings::new().await;
    was_there_once(&one, 2).await;
    let lost = StoreId(Uuid::from_u128(222));
    let id = QueueId(Uuid::from_u128(7));
    let record = TombstoneRecord {
        queue: id,
        virtual_host: host(),
        name: queue("orders"),
        stores: Some(vec![holding(2, Some(lost))]),
        unknown: UnknownFields::new(),
    };
    bury(&one.session, &record).await;
    one.catalog.look_closer(PATIENCE).await;
    let (mut replaced, seen) = (ReplacedStores::default(), Instant::now());
    // It was seen with another one once, and is off: perhaps to have its disk put back.
    for later in [0, 600, 6_000] {
        attend(&one.catalog, &mut replaced, seen + Duration::from_secs(later)).await;
        assert_eq!(waits_for(&one.session, id).await.unwrap()[0].store, Some(lost));
    }
    let two = Surroundings::beside(one.embedded.clone(), 2, Vec::new()).await;
    let seen = seen + Duration::from_secs(7_000);
    for later in [0, 599] {
        attend(&one.catalog, &mut replaced, seen + Duration::from_secs(later)).await;
        assert_eq!(waits_for(&one.session, id).await.unwrap()[0].store, Some(lost));
    }
    attend(&one.catalog, &mut replaced, seen + Duration::from_secs(600)).await;
    assert_eq!(waits_for(&one.session, id).await.unwrap()[0].store, store(2));
    let _its_shards = empty_shards(&two);
    until_left(&one.session, id, &[]).await;
}

/// What is written down of broker 2.
async fn store_record(session: &Arc<dyn Coordinator>) -> StoreRecord {
    session.sync().await.unwrap();
    let document = session.read(&paths::store(BrokerId(2))).await.unwrap().unwrap();
    StoreRecord::parse(&document.bytes).unwrap()
}

const NEW_DISK: StoreId = StoreId(Uuid::from_u128(0x2222));

/// Broker 2 comes with another disk than it had.
async fn comes_with_a_new_disk(world: &Surroundings) -> Arc<dyn Coordinator> {
    let session = world.other_session().await;
    register_with(&*session, BrokerRecord { store: NEW_DISK, ..record(life(2)) }).await;
    session
}

/// The disk of broker 2 is taken out and replaced; then the queue is deleted; then the old disk is put back. Listed with the new one
/// alone, the tombstone was gone by then, and nothing said whether the queue on the old disk was deleted or lost.
#[tokio::test]
async fn a_disk_that_was_taken_out_before_the_delete_drops_its_copy_when_it_is_put_back() {
    let one = Surroundings::new().await;
    was_there_once(&one, 2).await;
    let session = comes_with_a_new_disk(&one).await;
    one.catalog.look_closer(PATIENCE).await;
    one.catalog.drain(BrokerId(2), Some(Drain::Copies), false).await.unwrap();
    let _shards = empty_shards(&one);
    let id = one.declare("orders").await;
    delete(&one, "orders").await;
    until_left(&one.session, id, &[2, 2]).await;
    let waits: Vec<_> = waits_for(&one.session, id).await.unwrap();
    assert_eq!((waits[0].store, waits[1].store), (Some(NEW_DISK), store(2)));
    session.close().await.unwrap();

    let two = Surroundings::beside(one.embedded.clone(), 2, vec![id]).await;
    assert_eq!(store_record(&one.session).await.former, [NEW_DISK]);
    assert_eq!(told(&two, id).await, "deleted");
    let its_shards = empty_shards(&two);
    until_left(&one.session, id, &[2]).await;
    assert_eq!(waits_for(&one.session, id).await.unwrap()[0].store, Some(NEW_DISK));
    drop(its_shards);
}

/// Promise G8. Who has to hold a copy comes with a new disk after the delete has read which disks there are, and begins a copy on it, under
/// the version of the state that is about to be deleted; then it is off again. The tombstone has to name that disk, too.
#[tokio::test]
async fn a_disk_that_comes_while_a_queue_is_being_deleted_is_named_by_its_tombstone() {
    let one = Surroundings::new().await;
    was_there_once(&one, 2).await;
    let id = one.declare("orders").await;
    let (state, version) = {
        let tree = one.catalog.shared.tree();
        let (_, state, version) = tree.queue(id).unwrap();
        (state.clone(), version)
    };
    let state = QueueState { replicas: vec![BrokerId(1), BrokerId(2)], ..state };
    let set = Write::Set { path: paths::queue_state(id), bytes: state.to_bytes(), version };
    one.session.write(vec![set]).await.unwrap();
    one.catalog.look_closer(PATIENCE).await;
    let known = KnownStores::read(&one.catalog.shared, &one.session).await.unwrap();
    let before = known.unchanged(BrokerId(2)).unwrap();
    comes_with_a_new_disk(&one).await.close().await.unwrap();
    let refused = one.session.write(vec![before]).await.unwrap_err();
    assert!(matches!(refused, WriteError::Refused { .. }), "what was read is not so any more");
    let _shards = empty_shards(&one);
    delete(&one, "orders").await;
    until_left(&one.session, id, &[2, 2]).await;
    let waits: Vec<_> = waits_for(&one.session, id).await.unwrap();
    assert_eq!((waits[0].store, waits[1].store), (Some(NEW_DISK), store(2)));
}

/// And when it is not put back, it is not waited for, for ever: neither by what was deleted nor by what is deleted from then on.
#[tokio::test]
async fn a_disk_that_stays_away_for_long_is_forgotten() {
    let one = Surroundings::new().await;
    was_there_once(&one, 2).await;
    let _session = comes_with_a_new_disk(&one).await;
    one.catalog.look_closer(PATIENCE).await;
    // What is declared is to be led here.
    one.catalog.drain(BrokerId(2), Some(Drain::Copies), false).await.unwrap();
    let _shards = empty_shards(&one);
    let id = one.declare("orders").await;
    delete(&one, "orders").await;
    until_left(&one.session, id, &[2, 2]).await;
    let (mut replaced, seen) = (ReplacedStores::default(), Instant::now());
    for (later, former, listed) in [(0, 1, 2), (599, 1, 2), (600, 1, 1), (601, 0, 1)] {
        one.catalog.look_closer(PATIENCE).await;
        attend(&one.catalog, &mut replaced, seen + Duration::from_secs(later)).await;
        assert_eq!(store_record(&one.session).await.former.len(), former, "after {later} s");
        assert_eq!(waits_for(&one.session, id).await.unwrap().len(), listed, "after {later} s");
    }
    assert_eq!(waits_for(&one.session, id).await.unwrap()[0].store, Some(NEW_DISK));
    let next = one.declare("audit").await;
    delete(&one, "audit").await;
    until_left(&one.session, next, &[2]).await;
}

/// Promise G8. A broker of a later version has written its data folder down in a form that this one cannot read. Passed over, its disk
/// would be in no tombstone, and could come back with what was deleted and nothing that says so.
#[tokio::test]
async fn nothing_is_deleted_by_who_cannot_read_which_disks_there_are() {
    let one = Surroundings::new().await;
    was_there_once(&one, 2).await;
    let _shards = empty_shards(&one);
    let id = one.declare("orders").await;
    let path = paths::store(BrokerId(2));
    let before = one.session.read(&path).await.unwrap().unwrap();
    let later = bytes::Bytes::from_static(br#"{"broker":2,"folders":["a","b"]}"#);
    let set = |bytes, version| Write::Set { path: path.clone(), bytes, version };
    let versions = one.session.write(vec![set(later, before.version)]).await.unwrap();
    let refused = one.catalog.delete_queue(&host(), &queue("orders"), false, false).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.outcome, bellwether_protocol::error::Outcome::NotDone);
    assert!(refused.message.contains("a broker of a later version"), "{}", refused.message);
    assert_eq!(one.catalog.queue_named(&host(), &queue("orders")), Some(id), "it is still there");
    assert!(one.session.read(&paths::deleted(id)).await.unwrap().is_none());
    // Nor is anything struck off by a controller that does not know all of them.
    bury(
        &one.session,
        &TombstoneRecord {
            queue: QueueId(Uuid::from_u128(7)),
            virtual_host: host(),
            name: queue("former"),
            stores: None,
            unknown: UnknownFields::new(),
        },
    )
    .await;
    one.catalog.look_closer(PATIENCE).await;
    let mut replaced = ReplacedStores::default();
    one.catalog.attend_tombstones(&mut replaced, Instant::now()).await.unwrap_err();

    one.session.write(vec![set(before.bytes, versions[0].unwrap())]).await.unwrap();
    delete(&one, "orders").await;
    until_left(&one.session, id, &[2]).await;
}

#[tokio::test]
async fn hundreds_of_deletions_are_struck_off_in_batches_by_all_brokers_at_once() {
    let one = Surroundings::new().await;
    let two = Surroundings::beside(one.embedded.clone(), 2, Vec::new()).await;
    for folder in 0..=255_u8 {
        let folder = paths::all_deleted().child(&format!("{folder:02x}"));
        one.session.make_parents(&folder).await.unwrap();
    }
    let count = 3 * BATCH as u128;
    let buried = (0..count).map(|n| {
        let id =
            QueueId(Uuid::from_u128(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)));
        let record = TombstoneRecord {
            queue: id,
            virtual_host: host(),
            name: queue("orders"),
            stores: Some(vec![holding(1, store(1)), holding(2, store(2))]),
            unknown: UnknownFields::new(),
        };
        Write::Create { path: paths::deleted(id), bytes: record.to_bytes(), ephemeral: false }
    });
    for writes in buried.collect::<Vec<_>>().chunks(100) {
        one.session.write(writes.to_vec()).await.unwrap();
    }
    let mut events = one.session.watch(&[paths::all_deleted()]).await.unwrap();
    let _shards = (empty_shards(&one), empty_shards(&two));
    let all_gone = async {
        loop {
            one.catalog.look_closer(PATIENCE).await;
            if one.catalog.shared.tree().tombstones.is_empty() {
                return;
            }
            events.recv().await.expect("the session lives");
        }
    };
    tokio::time::timeout(PATIENCE * 3, all_gone).await.expect("all are struck off");
    assert!(locked(&one.catalog.shared.tombstones.told).is_empty(), "and nothing is kept of them");
}
