//! Where every document lies, and the way back from a path to what it names.
//!
//! ```text
//! /cluster                         cluster id, format version
//! /brokers/ids/<id>                ephemeral; one holder per id
//! /brokers/live/<id>.<incarnation> ephemeral; never the same path twice
//! /brokers/drained/<id>            an operator wants this broker to lead, or to hold, nothing
//! /brokers/stores/<id>             the data folder that the broker had last
//! /names/<vhost>/<hh>/<queue>      → uuid
//! /queues/<hh>/<uuid>              definition
//! /queues/<hh>/<uuid>/state        epoch, leader, ISR: by CAS only
//! /exchanges/<vhost>/<hh>/<name>   kind
//! /bindings/<hh>/<uuid>            all bindings of one queue
//! /deleted/<hh>/<uuid>             tombstones
//! /controller                      ephemeral; background duties
//! /config                          settings that hold for the whole cluster
//! /users/<name>                    salted keys, tags, permissions
//! /login                           what logins must have in common on all brokers
//! ```
//!
//! `hh` are two hex digits: of the uuid, or of a stable hash of the name. With 100,000 queues whose names take
//! the most bytes that a name can, a bucket's child list stays below 400 kB, so that none comes near ZooKeeper's 1 MB.

use std::borrow::Cow;

use bellwether_protocol::ids::{BrokerId, BrokerLife, Incarnation, QueueId};
use bellwether_protocol::names::{ExchangeName, QueueName, UserName, VirtualHost};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use uuid::Uuid;

use crate::coordinator::Path;

/// What is left as it is: readable in zkCli, and nothing that ZooKeeper or a shell would trip over.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Stands for the empty name, which a path segment cannot be. No encoded name is a lone percent sign.
const EMPTY: &str = "%";

/// Buckets below one folder: two hex digits.
pub const BUCKETS: usize = 256;

impl Path {
    /// The path one segment up; none above the root.
    #[must_use]
    pub fn parent(&self) -> Option<Path> {
        match self.0.rfind('/') {
            Some(0) if self.0.len() == 1 => None,
            Some(0) => Some(Path("/".to_owned())),
            Some(at) => Some(Path(self.0[..at].to_owned())),
            None => None,
        }
    }

    /// The path of a child, whose name is encoded already.
    #[must_use]
    pub fn child(&self, encoded: &str) -> Path {
        if self.0 == "/" {
            Path(format!("/{encoded}"))
        } else {
            Path(format!("{}/{encoded}", self.0))
        }
    }

    /// Whether this is `prefix` itself or lies below it.
    #[must_use]
    pub fn is_within(&self, prefix: &Path) -> bool {
        prefix.0 == "/"
            || self
                .0
                .strip_prefix(&prefix.0)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Cluster,
    BrokerId(BrokerId),
    LiveBroker(BrokerLife),
    Drained(BrokerId),
    Store(BrokerId),
    Name(VirtualHost, QueueName),
    Queue(QueueId),
    QueueState(QueueId),
    Exchange(VirtualHost, ExchangeName),
    Bindings(QueueId),
    Deleted(QueueId),
    Controller,
    Settings,
    User(UserName),
    Login,
}

#[must_use]
pub fn cluster() -> Path {
    root("cluster")
}

#[must_use]
pub fn controller() -> Path {
    root("controller")
}

#[must_use]
pub fn settings() -> Path {
    root("config")
}

#[must_use]
pub fn brokers() -> Path {
    root("brokers")
}

#[must_use]
pub fn broker_ids() -> Path {
    brokers().child("ids")
}

#[must_use]
pub fn broker_id(broker: BrokerId) -> Path {
    broker_ids().child(&broker.to_string())
}

#[must_use]
pub fn live_brokers() -> Path {
    brokers().child("live")
}

#[must_use]
pub fn live_broker(life: BrokerLife) -> Path {
    live_brokers().child(&life.to_string())
}

/// The folder of what operators want emptied; its children are brokers' ids.
#[must_use]
pub fn all_drained() -> Path {
    brokers().child("drained")
}

#[must_use]
pub fn drained(broker: BrokerId) -> Path {
    all_drained().child(&broker.to_string())
}

/// The folder of the data folders that brokers had last; its children are brokers' ids.
#[must_use]
pub fn all_stores() -> Path {
    brokers().child("stores")
}

#[must_use]
pub fn store(broker: BrokerId) -> Path {
    all_stores().child(&broker.to_string())
}

/// The folder of all names; its children are virtual hosts.
#[must_use]
pub fn names() -> Path {
    root("names")
}

/// The folder of the names of one virtual host; its children are buckets.
#[must_use]
pub fn names_in(host: &VirtualHost) -> Path {
    names().child(&encode(host.as_str()))
}

#[must_use]
pub fn name(host: &VirtualHost, queue: &QueueName) -> Path {
    names_in(host).child(&bucket(queue.as_str())).child(&encode(queue.as_str()))
}

/// The folder of all queues; its children are buckets.
#[must_use]
pub fn queues() -> Path {
    root("queues")
}

#[must_use]
pub fn queue(queue: QueueId) -> Path {
    by_uuid(&queues(), queue)
}

#[must_use]
pub fn queue_state(id: QueueId) -> Path {
    queue(id).child("state")
}

/// The folder of all exchanges; its children are virtual hosts.
#[must_use]
pub fn exchanges() -> Path {
    root("exchanges")
}

/// The folder of the exchanges of one virtual host; its children are buckets.
#[must_use]
pub fn exchanges_in(host: &VirtualHost) -> Path {
    exchanges().child(&encode(host.as_str()))
}

#[must_use]
pub fn exchange(host: &VirtualHost, exchange: &ExchangeName) -> Path {
    exchanges_in(host).child(&bucket(exchange.as_str())).child(&encode(exchange.as_str()))
}

/// The folder of all bindings; its children are buckets.
#[must_use]
pub fn all_bindings() -> Path {
    root("bindings")
}

#[must_use]
pub fn bindings(queue: QueueId) -> Path {
    by_uuid(&all_bindings(), queue)
}

/// The folder of all tombstones; its children are buckets.
#[must_use]
pub fn all_deleted() -> Path {
    root("deleted")
}

#[must_use]
pub fn deleted(queue: QueueId) -> Path {
    by_uuid(&all_deleted(), queue)
}

/// The folder of all users.
#[must_use]
pub fn users() -> Path {
    root("users")
}

#[must_use]
pub fn user(user: &UserName) -> Path {
    users().child(&encode(user.as_str()))
}

#[must_use]
pub fn login() -> Path {
    root("login")
}

/// Folders that exist in every cluster. Buckets and virtual hosts are made when they are first needed.
#[must_use]
pub fn folders() -> Vec<Path> {
    vec![
        broker_ids(),
        live_brokers(),
        all_drained(),
        all_stores(),
        names(),
        queues(),
        exchanges(),
        all_bindings(),
        all_deleted(),
        users(),
    ]
}

/// What `path` names; none for folders, buckets and what another version may have put there.
#[must_use]
pub fn parse(path: &Path) -> Option<Place> {
    let segments: Vec<&str> = path.0.strip_prefix('/')?.split('/').collect();
    let place = match segments.as_slice() {
        ["cluster"] => Place::Cluster,
        ["controller"] => Place::Controller,
        ["config"] => Place::Settings,
        ["login"] => Place::Login,
        ["users", name] => Place::User(UserName::new(decode(name)?).ok()?),
        ["brokers", "ids", id] => Place::BrokerId(parse_broker_id(id)?),
        ["brokers", "live", life] => Place::LiveBroker(parse_life(life)?),
        ["brokers", "drained", id] => Place::Drained(parse_broker_id(id)?),
        ["brokers", "stores", id] => Place::Store(parse_broker_id(id)?),
        ["names", host, _, name] => {
            Place::Name(parse_host(host)?, QueueName::new(decode(name)?).ok()?)
        }
        ["queues", _, uuid] => Place::Queue(parse_queue(uuid)?),
        ["queues", _, uuid, "state"] => Place::QueueState(parse_queue(uuid)?),
        ["exchanges", host, _, name] => {
            Place::Exchange(parse_host(host)?, ExchangeName::new(decode(name)?).ok()?)
        }
        ["bindings", _, uuid] => Place::Bindings(parse_queue(uuid)?),
        ["deleted", _, uuid] => Place::Deleted(parse_queue(uuid)?),
        _ => return None,
    };
    Some(place)
}

/// A child of [`broker_ids`].
#[must_use]
pub fn parse_broker_id(segment: &str) -> Option<BrokerId> {
    let id: u32 = segment.parse().ok()?;
    // `+1` and `01` parse as numbers too, but are not how a broker writes its id.
    (id.to_string() == segment).then_some(BrokerId(id))
}

/// A child of [`live_brokers`].
#[must_use]
pub fn parse_life(segment: &str) -> Option<BrokerLife> {
    let (id, incarnation) = segment.split_once('.')?;
    let incarnation = Incarnation(u64::from_str_radix(incarnation, 16).ok()?);
    let life = BrokerLife { broker: parse_broker_id(id)?, incarnation };
    (life.to_string() == segment).then_some(life)
}

/// A child of a bucket of [`queues`], [`all_bindings`] or [`all_deleted`].
#[must_use]
pub fn parse_queue(segment: &str) -> Option<QueueId> {
    let uuid = Uuid::try_parse(segment).ok()?;
    (uuid.to_string() == segment).then_some(QueueId(uuid))
}

/// A child of [`names`] or [`exchanges`].
#[must_use]
pub fn parse_host(segment: &str) -> Option<VirtualHost> {
    VirtualHost::new(decode(segment)?).ok()
}

/// A name as a path segment.
#[must_use]
pub fn encode(name: &str) -> String {
    match name {
        "" => EMPTY.to_owned(),
        // ZooKeeper refuses these two as segments.
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        _ => utf8_percent_encode(name, ENCODED).to_string(),
    }
}

/// The name that a path segment stands for.
#[must_use]
pub fn decode(segment: &str) -> Option<Cow<'_, str>> {
    if segment == EMPTY {
        return Some(Cow::Borrowed(""));
    }
    percent_decode_str(segment).decode_utf8().ok()
}

fn root(folder: &str) -> Path {
    Path(format!("/{folder}"))
}

fn by_uuid(folder: &Path, queue: QueueId) -> Path {
    let uuid = queue.to_string();
    folder.child(&uuid[..2]).child(&uuid)
}

/// Two hex digits of FNV-1a over the name. Part of the stored format: never to be changed.
fn bucket(name: &str) -> String {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let folded = hash ^ (hash >> 32);
    let byte = (folded ^ (folded >> 16) ^ (folded >> 8)) & 0xff;
    format!("{byte:02x}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn host(name: &str) -> VirtualHost {
        VirtualHost::new(name).unwrap()
    }

    fn queue_name(name: &str) -> QueueName {
        QueueName::new(name).unwrap()
    }

    #[test]
    fn awkward_names_become_one_harmless_segment_and_come_back() {
        for awkward in [
            "/",
            ".",
            "..",
            "...",
            "%",
            "%2E",
            "a/b",
            "zookeeper",
            "ü ö",
            "日本",
            "a\u{a0}b",
            "~-_.",
        ] {
            let path = name(&host(awkward), &queue_name(awkward));
            let segments: Vec<&str> = path.0.split('/').skip(1).collect();
            assert_eq!(segments.len(), 4, "{path}");
            assert!(segments.iter().all(|segment| !matches!(*segment, "" | "." | "..")), "{path}");
            assert!(path.0.bytes().all(|byte| byte.is_ascii_graphic()), "{path}");
            assert_eq!(parse(&path), Some(Place::Name(host(awkward), queue_name(awkward))));
        }
    }

    #[test]
    fn the_default_virtual_host_can_be_read_in_a_path() {
        let path = name(&VirtualHost::default(), &queue_name("orders.eu"));
        assert_eq!(path.0, "/names/%2F/50/orders.eu");
    }

    #[test]
    fn every_place_is_found_back_from_its_path() {
        let id = QueueId(Uuid::from_u128(0x3f00_0000_0000_4000_8000_0000_0000_0001));
        let life = BrokerLife { broker: BrokerId(7), incarnation: Incarnation(0xab) };
        let places = [
            (cluster(), Place::Cluster),
            (controller(), Place::Controller),
            (login(), Place::Login),
            (user(&UserName::new("a/b").unwrap()), Place::User(UserName::new("a/b").unwrap())),
            (broker_id(BrokerId(7)), Place::BrokerId(BrokerId(7))),
            (live_broker(life), Place::LiveBroker(life)),
            (drained(BrokerId(7)), Place::Drained(BrokerId(7))),
            (store(BrokerId(7)), Place::Store(BrokerId(7))),
            (settings(), Place::Settings),
            (queue(id), Place::Queue(id)),
            (queue_state(id), Place::QueueState(id)),
            (bindings(id), Place::Bindings(id)),
            (deleted(id), Place::Deleted(id)),
            (
                exchange(&host("/"), &ExchangeName::new("ev/ents").unwrap()),
                Place::Exchange(host("/"), ExchangeName::new("ev/ents").unwrap()),
            ),
        ];
        for (path, place) in places {
            assert_eq!(parse(&path), Some(place), "{path}");
        }
        assert_eq!(live_broker(life).0, "/brokers/live/7.00000000000000ab");
        assert_eq!(queue_state(id).0, "/queues/3f/3f000000-0000-4000-8000-000000000001/state");
    }

    #[test]
    fn what_names_nothing_is_not_taken_for_something() {
        let strange = [
            "/",
            "/queues",
            "/queues/3f",
            "/queues/3f/no-uuid",
            "/brokers/ids/01",
            "/brokers/live/1",
            "/new",
        ];
        for path in strange.into_iter().chain(folders().iter().map(|folder| folder.0.as_str())) {
            assert_eq!(parse(&Path(path.to_owned())), None, "{path}");
        }
    }

    #[test]
    fn no_child_list_comes_near_a_megabyte_with_100_000_queues_of_the_longest_names() {
        let mut lists: HashMap<Path, usize> = HashMap::new();
        for n in 0..100_000_u32 {
            // Each byte of these names takes three in the path.
            let path =
                name(&VirtualHost::default(), &queue_name(&format!("{n:06}{}", "/".repeat(249))));
            let bytes = path.0.len() - path.0.rfind('/').unwrap();
            *lists.entry(path.parent().unwrap()).or_default() += bytes + 4;
        }
        let largest = lists.values().max().unwrap();
        assert!(*largest < 400_000, "{largest} bytes");
        assert!(lists.len() <= BUCKETS);
    }

    #[test]
    fn a_prefix_covers_whole_segments_only() {
        let path = |text: &str| Path(text.to_owned());
        assert!(path("/queues/3f").is_within(&path("/queues")));
        assert!(path("/queues").is_within(&path("/queues")));
        assert!(path("/queues").is_within(&path("/")));
        assert!(!path("/queuesque").is_within(&path("/queues")));
        assert_eq!(path("/queues").parent(), Some(path("/")));
        assert_eq!(path("/").parent(), None);
        assert_eq!(path("/").child("a"), path("/a"));
    }
}
