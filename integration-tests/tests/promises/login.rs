//! Logins and permissions on three brokers over a real ensemble whose nodes only the brokers may read.

use std::time::Duration;

use bellwether_client::{
    Client, ConnectError, Consumer, ErrorCode, Outcome, Password, Permissions, PublishError,
    QueryError, UserError, UserName, VirtualHost,
};
use bellwether_coordinator::coordinator::{Connector, Path, ReadError};
use bellwether_coordinator::zookeeper::{Digest, ZooKeeperConfig, ZooKeeperConnector};
use bellwether_integration_tests::broker::BrokerOptions;
use bellwether_integration_tests::cluster::{Cluster, Setup};
use bellwether_integration_tests::eventually::eventually;
use bellwether_integration_tests::users::{run_as, user};

use super::story::{PATIENCE, body, number};

const AUTH: (&str, &str) = ("brokers", "for-this-test");

/// Three brokers that want a login, and an administrator `root` who may do nothing else.
pub(super) struct Locked {
    pub cluster: Cluster,
    pub root: Client,
}

fn name(user: &str) -> UserName {
    UserName::new(user).unwrap()
}

pub(super) fn permissions(configure: &str, write: &str, read: &str) -> Permissions {
    let of = |pattern: &str| pattern.to_owned();
    Permissions { configure: of(configure), write: of(write), read: of(read) }
}

pub(super) async fn connect(
    cluster: &Cluster,
    user: &str,
    password: &str,
) -> Result<Client, ConnectError> {
    let builder = Client::builder().name(user).login(user, password).deadline(PATIENCE);
    builder.connect(cluster.addresses()).await
}

impl Locked {
    async fn begins() -> Locked {
        Locked::with_binary(None).await
    }

    /// With brokers of this binary.
    pub async fn with_binary(binary: Option<std::path::PathBuf>) -> Locked {
        let auth = format!("{}:{}", AUTH.0, AUTH.1);
        let flags = ["--login", "required", "--zookeeper-auth", &auth, "--leader-settle", "10m"];
        let arguments = flags.map(str::to_owned).to_vec();
        let options = BrokerOptions { arguments, binary, ..BrokerOptions::default() };
        let cluster = Cluster::start_with(Setup { options, ..Setup::default() }).await.unwrap();
        let ensemble = ["--zookeeper", &cluster.zookeeper(), "--zookeeper-auth", &auth];
        let add = [&["add", "root", "--tag", "administrator"][..], &ensemble[..]].concat();
        user(&add, Some("the first")).await.unwrap();
        let listed = user(&[&["list"][..], &ensemble[..]].concat(), None).await.unwrap();
        assert!(listed.contains("root") && listed.contains("administrator"), "{listed}");
        let root = eventually("root to be known", PATIENCE, async || {
            Ok(connect(&cluster, "root", "the first").await?)
        });
        let root = root.await.unwrap();
        Locked { cluster, root }
    }

    /// Made through a broker.
    pub async fn has(&self, user: &str, may: Permissions) -> Client {
        let password = Password::new(user).unwrap();
        self.root.add_user(&name(user), &password, vec![]).await.unwrap();
        self.permit(user, may).await;
        // Another broker hears of it a moment later.
        let known = eventually("the user to be known everywhere", PATIENCE, async || {
            Ok(connect(&self.cluster, user, user).await?)
        });
        known.await.unwrap()
    }

    async fn permit(&self, user: &str, may: Permissions) {
        let host = VirtualHost::default();
        self.root.set_permissions(&name(user), &host, Some(may)).await.unwrap();
    }
}

pub(super) async fn take(consumer: &mut Consumer) -> u64 {
    let delivery = tokio::time::timeout(PATIENCE, consumer.next()).await.expect("it comes in time");
    let delivery = delivery.expect("the consumer stays").unwrap();
    let taken = number(delivery.body());
    delivery.ack().await.unwrap();
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_turned_away_and_only_administrators_administrate() {
    let locked = Locked::begins().await;
    let anybody = Client::builder().deadline(PATIENCE).connect(locked.cluster.addresses()).await;
    let Err(ConnectError::Refused { code, .. }) = anybody else { panic!("{anybody:?}") };
    assert_eq!(code, ErrorCode::LoginRequired);
    let refused =
        async |user: &str, password: &str| match connect(&locked.cluster, user, password).await {
            Err(ConnectError::Refused { code, message, .. }) => (code, message),
            other => panic!("{other:?}"),
        };
    let wrong = refused("root", "the second").await;
    assert_eq!(wrong.0, ErrorCode::LoginRefused);
    assert_eq!(refused("nobody", "the first").await, wrong);

    let bob = locked.has("bob", permissions(".*", ".*", ".*")).await;
    assert!(matches!(
        bob.users().await,
        Err(QueryError::Refused { code: ErrorCode::AccessRefused, .. })
    ));
    let raise = bob.set_permissions(&name("bob"), &VirtualHost::default(), None).await;
    assert!(matches!(raise, Err(UserError::AccessRefused { .. })), "{raise:?}");
    let status = bob.cluster_status().await;
    assert!(matches!(status, Err(QueryError::Refused { .. })), "{status:?}");
    locked.root.cluster_status().await.unwrap();
    assert!(locked.root.declare("orders").await.is_err(), "administrators have no other right");
    locked.root.delete_user(&name("bob"), false).await.unwrap();
    let gone = eventually("bob to be gone everywhere", PATIENCE, async || {
        match connect(&locked.cluster, "bob", "bob").await {
            Err(ConnectError::Refused { code: ErrorCode::LoginRefused, .. }) => Ok(()),
            other => anyhow::bail!("{other:?}"),
        }
    });
    gone.await.unwrap();
}

/// The lists asked for marks of the whole cluster beside them, and were refused to whoever has no tag; who deleted itself heard
/// "unknown".
#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_a_tag_sees_what_is_its_own_and_an_administrator_that_goes_hears_so() {
    let locked = Locked::begins().await;
    let bob = locked.has("bob", permissions("bob-.*", "bob-.*", "bob-.*")).await;
    bob.declare("bob-1").await.unwrap();
    let addresses = locked.cluster.addresses();
    let says = async |who: (&str, &str), arguments: &[&str]| {
        run_as(who, &addresses, arguments).await.unwrap()
    };
    let bob = ("bob", "bob");
    for command in
        [&["queue", "list"][..], &["queue", "describe", "bob-1"], &["queue", "explain", "bob-1"]]
    {
        let (done, said) = says(bob, command).await;
        assert!(done && said.contains("bob-1"), "{command:?}: {said}");
    }
    let (done, said) = says(bob, &["exchange", "list"]).await;
    assert!(done && said.contains("(default)"), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("all.json");
    let (done, said) = says(bob, &["backup", file.to_str().unwrap()]).await;
    assert!(!done && said.contains("bellwether user tags bob monitoring"), "{said}");
    assert!(!file.exists(), "half a backup is none");

    let root = ("root", "the first");
    let (done, said) = says(root, &["user", "delete", "root"]).await;
    assert!(!done && said.contains("last administrator"), "{said}");
    let (done, said) = says(root, &["user", "tags", "bob", "--tag", "administrator"]).await;
    assert!(done && said.contains("bob has these tags now: administrator"), "{said}");
    // The broker that is asked may hear of the other administrator a moment later.
    let gone = eventually("root to be deleted", PATIENCE, async || {
        let (done, said) = says(root, &["user", "delete", "root"]).await;
        anyhow::ensure!(done && said.contains("user root is deleted"), "{said}");
        Ok(())
    });
    gone.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_revoked_in_mid_stream_stops_its_user_and_nobody_else_and_nothing_is_lost() {
    let locked = Locked::begins().await;
    let bob = locked.has("bob", permissions(".*", ".*", ".*")).await;
    for queue in ["orders", "alerts"] {
        bob.declare(queue).await.unwrap();
        locked_whole(&bob, queue).await;
    }
    let alice = locked.has("alice", permissions("", "orders", "alerts")).await;
    assert!(alice.declare("mine").await.is_err(), "she may not configure");
    let hers = alice.producer().to_queue("orders").start().await.unwrap();
    let his = bob.producer().to_queue("orders").start().await.unwrap();
    let alerts = bob.producer().to_queue("alerts").start().await.unwrap();
    let mut listening = alice.consumer("alerts").start().await.unwrap();
    alerts.send_and_confirm(body(0)).await.unwrap();
    assert_eq!(take(&mut listening).await, 0);

    let mut confirmed = Vec::new();
    let mut refused = None;
    for round in 0_u64.. {
        // Her numbers are odd, his are even.
        let (one, other) = tokio::join!(
            hers.send_and_confirm(body(2 * round + 1)),
            his.send_and_confirm(body(2 * round)),
        );
        other.expect("he goes on");
        confirmed.push(2 * round);
        match one {
            Ok(_) => confirmed.push(2 * round + 1),
            Err(error) => {
                refused = Some(error);
                if round > 40 {
                    break;
                }
            }
        }
        if round == 20 {
            locked.permit("alice", permissions("", "", "")).await;
        }
    }
    let refused = refused.expect("the loop ends with it");
    assert_eq!(refused.outcome(), Outcome::NotDone, "{refused}");
    assert!(
        matches!(refused, PublishError::Refused { code: ErrorCode::AccessRefused, .. }),
        "{refused}"
    );
    alerts.send_and_confirm(body(1)).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, listening.next()).await.expect("it ends in time");
    let error = ended.expect("it says why").expect_err("nothing is delivered any more");
    assert!(error.to_string().contains("may not read"), "{error}");

    let mut orders = bob.consumer("orders").start().await.unwrap();
    let mut taken = Vec::new();
    for _ in 0..confirmed.len() {
        taken.push(take(&mut orders).await);
    }
    taken.sort_unstable();
    confirmed.sort_unstable();
    assert_eq!(taken, confirmed, "what was confirmed is there, and nothing that was refused");
    let counts = bob.describe("alerts").await.unwrap().counts;
    assert_eq!(counts.ready, 1, "what she did not get waits for somebody who may read it");
}

pub(super) async fn locked_whole(client: &Client, queue: &str) {
    let whole = eventually("the queue to be whole", PATIENCE, async || {
        let seen = client.describe(queue).await?.queue;
        anyhow::ensure!(seen.leader.is_some() && seen.in_sync.len() == 3, "{seen:?}");
        Ok(())
    });
    whole.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_digest_every_node_that_brokers_make_is_closed_to_strangers() {
    let locked = Locked::begins().await;
    let bob = locked.has("bob", permissions(".*", ".*", ".*")).await;
    bob.declare("orders").await.unwrap();
    bob.declare_exchange("events", bellwether_client::ExchangeKind::Fanout).await.unwrap();
    bob.bind("events", "orders", "").await.unwrap();
    bob.declare("gone").await.unwrap();
    locked_whole(&bob, "gone").await;
    bob.delete("gone").await.unwrap();

    let config =
        || ZooKeeperConfig::new(&locked.cluster.zookeeper(), Duration::from_secs(10)).unwrap();
    let digest = Digest { user: AUTH.0.to_owned(), password: AUTH.1.to_owned() };
    let holder = ZooKeeperConnector::new(config().with_digest(digest)).connect().await.unwrap();
    let stranger = ZooKeeperConnector::new(config()).connect().await.unwrap();
    holder.sync().await.unwrap();
    stranger.sync().await.unwrap();
    let (mut open, mut seen) = (vec![Path("/".to_owned())], Vec::new());
    while let Some(path) = open.pop() {
        let children = holder.children(&path).await.unwrap();
        open.extend(children.iter().map(|child| path.child(child)));
        let read = stranger.read(&path).await;
        // What came and went meanwhile says nothing.
        assert!(matches!(read, Err(ReadError::Denied(_)) | Ok(None)), "{path}: {read:?}");
        if read.is_err() {
            seen.push(path.0);
        }
    }
    for folder in ["/users/bob", "/users/root", "/login", "/cluster", "/exchanges/", "/bindings/"] {
        assert!(seen.iter().any(|path| path.starts_with(folder)), "{folder}: {seen:?}");
    }
    for folder in ["/brokers/live/", "/brokers/ids/", "/controller", "/queues/", "/deleted/"] {
        assert!(seen.iter().any(|path| path.starts_with(folder)), "{folder}: {seen:?}");
    }
    for session in [holder, stranger] {
        session.close().await.unwrap();
    }
}
