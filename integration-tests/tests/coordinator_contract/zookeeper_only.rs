//! What only an ensemble has: chroots, access lists, servers that come and go one by one.

use std::time::Duration;

use bellwether_coordinator::coordinator::{
    ConnectError, Connector, ReadError, SessionEvent, Version, WriteError,
};
use bellwether_coordinator::zookeeper::{Digest, ZooKeeperConfig, ZooKeeperConnector};

use crate::world::*;

fn config(world: &World, chroot: &str) -> ZooKeeperConfig {
    ZooKeeperConfig::new(&format!("{}{chroot}", world.ensemble().connect_string()), TIMEOUT)
        .unwrap()
}

/// Chroots of stories with a login lie beside those of the others: what is made on the way to one is closed, too.
fn digest(password: &str) -> Digest {
    Digest { user: "bellwether".to_owned(), password: password.to_owned() }
}

async fn connect(config: ZooKeeperConfig) -> Session {
    ZooKeeperConnector::new(config).connect().await.unwrap()
}

#[tokio::test]
async fn a_chroot_that_does_not_exist_is_made_and_everything_lies_below_it() {
    let world = World::zookeeper("chroots").await;
    let inside = connect(config(&world, "/contract/made/on/demand")).await;
    done(&inside, create("/here", "")).await;
    let outside = connect(config(&world, "")).await;
    outside.sync().await.unwrap();
    assert!(read(&outside, "/contract/made/on/demand/here").await.is_some());
    let mut events = inside.watch(&[path("/")]).await.unwrap();
    done(&outside, create("/contract/made/on/demand/there", "")).await;
    assert_eq!(
        next(&mut events).await,
        SessionEvent::Changed(path("/there")),
        "told as seen from inside"
    );
}

#[tokio::test]
async fn what_is_made_with_a_login_is_closed_to_all_others() {
    let world = World::zookeeper("logins").await;
    let login = |password: &str| {
        let digest = Digest { user: "bellwether".to_owned(), password: password.to_owned() };
        config(&world, "/closed").with_digest(digest)
    };
    let holder = connect(login("right")).await;
    done(&holder, create("/secret", "x")).await;
    done(&holder, ephemeral("/mine")).await;
    let second_holder = connect(login("right")).await;
    second_holder.sync().await.unwrap();
    assert_eq!(text(&second_holder, "/secret").await, Some(("x".to_owned(), 0)));
    let wrong = ZooKeeperConnector::new(login("wrong")).connect().await;
    assert!(matches!(wrong, Err(ConnectError::Invalid(_))), "{wrong:?}");
    let stranger = connect(config(&world, "/closed")).await;
    stranger.sync().await.unwrap();
    assert!(matches!(stranger.read(&path("/secret")).await, Err(ReadError::Denied(_))));
    let refused = stranger.write(vec![set("/secret", 0, "y")]).await;
    assert!(matches!(refused, Err(WriteError::Invalid(_))), "{refused:?}");
    let refused = stranger.write(vec![create("/other", "y")]).await;
    assert!(matches!(refused, Err(WriteError::Invalid(_))), "{refused:?}");
    assert_eq!(text(&holder, "/secret").await, Some(("x".to_owned(), 0)));
}

/// A login protected only what was made with it: an administrator made before the brokers got one, in a tree open to anybody, let whoever
/// reached the ensemble make administrators for ever after.
#[tokio::test]
async fn what_was_open_before_there_was_a_login_is_closed_when_it_comes() {
    let world = World::zookeeper("closed-later").await;
    let chroot = "/closed-later";
    let before = connect(config(&world, chroot)).await;
    for folder in ["/users", "/queues/3f/one"] {
        before.make_parents(&path(folder)).await.unwrap();
    }
    for document in ["/users/root", "/config", "/queues/3f/one/state", "/cluster"] {
        done(&before, create(document, "x")).await;
    }
    let holder = connect(config(&world, chroot).with_digest(digest("right"))).await;
    holder.sync().await.unwrap();
    before.sync().await.unwrap();
    for closed in
        ["/", "/users", "/users/root", "/config", "/queues/3f/one", "/queues/3f/one/state"]
    {
        let read = before.read(&path(closed)).await;
        assert!(matches!(read, Err(ReadError::Denied(_))), "{closed}: {read:?}");
        assert!(read_by(&holder, closed).await, "{closed}");
    }
    let refused = before.write(vec![create("/users/mallory", "")]).await;
    assert!(matches!(refused, Err(WriteError::Invalid(_))), "{refused:?}");
}

#[tokio::test]
async fn a_chroot_that_is_a_strangers_is_refused_with_the_way_out() {
    let world = World::zookeeper("strangers").await;
    let chroot = "/strangers";
    let stranger = connect(config(&world, chroot).with_digest(digest("another"))).await;
    done(&stranger, create("/config", "x")).await;
    let refused = ZooKeeperConnector::new(config(&world, chroot).with_digest(digest("right")))
        .connect()
        .await;
    let Err(ConnectError::Invalid(words)) = refused else { panic!("{refused:?}") };
    for said in [chroot, "addauth digest bellwether:PASSWORD", "setAcl -R /strangers"] {
        assert!(words.contains(said), "{said:?} is missing in: {words}");
    }
    assert!(!words.contains("right"), "{words}");
}

/// They would be shut out of their own cluster, all at once.
#[tokio::test]
async fn nothing_is_closed_while_brokers_live_without_the_login() {
    let world = World::zookeeper("rolling").await;
    let chroot = "/rolling";
    let living = connect(config(&world, chroot)).await;
    living.make_parents(&path("/brokers/live")).await.unwrap();
    done(&living, ephemeral("/brokers/live/1.0000000000000abc")).await;
    let with_login = || {
        let config = config(&world, chroot).with_digest(digest("right"));
        async move { ZooKeeperConnector::new(config).connect().await }
    };
    let refused = with_login().await;
    let Err(ConnectError::Invalid(words)) = refused else { panic!("{refused:?}") };
    assert!(words.contains("1.0000000000000abc") && words.contains("stop all brokers"), "{words}");
    done(&living, create("/config", "still theirs")).await;

    living.close().await.unwrap();
    let holder = with_login().await.unwrap();
    assert!(read_by(&holder, "/config").await);
}

#[tokio::test]
async fn a_login_without_a_chroot_is_refused() {
    let world = World::zookeeper("no-chroot").await;
    let refused =
        ZooKeeperConnector::new(config(&world, "").with_digest(digest("right"))).connect().await;
    let Err(ConnectError::Invalid(words)) = refused else { panic!("{refused:?}") };
    assert!(words.contains("chroot") && words.contains("/bellwether"), "{words}");
}

async fn read_by(session: &Session, at: &str) -> bool {
    read(session, at).await.is_some()
}

#[tokio::test]
async fn the_login_holds_over_a_cut_connection() {
    let world = World::zookeeper("login-kept").await;
    let proxy = world.proxy().await;
    let digest = Digest { user: "u".to_owned(), password: "p".to_owned() };
    let config = ZooKeeperConfig::new(&format!("{}/login-kept", proxy.address()), TIMEOUT).unwrap();
    let session = connect(config.with_digest(digest)).await;
    done(&session, create("/secret", "x")).await;
    let mut events = session.watch(&[]).await.unwrap();
    proxy.cut();
    until_told(&mut events, &SessionEvent::Connected).await;
    assert_eq!(session.write(vec![set("/secret", 0, "y")]).await, Ok(vec![Some(Version(1))]));
}

#[tokio::test]
async fn servers_may_die_or_freeze_one_by_one_without_a_session_lost() {
    let world = World::zookeeper_of_its_own(3).await;
    let ensemble = world.ensemble();
    let sessions = [world.connect().await, world.connect().await, world.connect().await];
    let ids = sessions.each_ref().map(|session| session.session().id);
    for (n, session) in sessions.iter().enumerate() {
        done(session, ephemeral(&format!("/session-{n}"))).await;
    }
    let leader = ensemble.leader().await.unwrap();
    ensemble.kill(leader).unwrap();
    all_answer(&sessions).await;
    ensemble.restart(leader).await.unwrap();
    let leader = ensemble.leader().await.unwrap();
    ensemble.pause((leader + 1) % 3).unwrap();
    all_answer(&sessions).await;
    ensemble.resume((leader + 1) % 3).unwrap();
    all_answer(&sessions).await;
    assert_eq!(sessions.each_ref().map(|session| session.session().id), ids);
    for (n, session) in sessions.iter().enumerate() {
        assert!(read(session, &format!("/session-{n}")).await.unwrap().own_ephemeral);
    }
}

#[tokio::test]
async fn an_ensemble_restored_empty_ends_every_session() {
    let world = World::zookeeper_of_its_own(1).await;
    let session = world.connect().await;
    let mut events = session.watch(&[]).await.unwrap();
    done(&session, create("/kept", "")).await;
    world.go_away();
    world.ensemble().wipe(0).unwrap();
    world.come_back().await;
    until_told(&mut events, &SessionEvent::Expired).await;
    let next = world.connect().await;
    assert_eq!(read(&next, "/kept").await, None);
}

async fn all_answer(sessions: &[Session]) {
    for session in sessions {
        tokio::time::timeout(Duration::from_secs(20), answers(session)).await.unwrap();
    }
}
