//! The contract, told once for every coordinator.

use std::time::{Duration, Instant};

use bellwether_coordinator::WRITE_BYTES_MAX;
use bellwether_coordinator::coordinator::{
    Conflict, ReadError, SessionEvent, Version, Write, WriteError,
};
use bellwether_coordinator::paths;
use bellwether_protocol::names::{QueueName, VirtualHost};
use bytes::Bytes;
use futures::future::join_all;

use crate::world::*;

fn refused(index: usize, conflict: Conflict) -> WriteError {
    WriteError::Refused { index, conflict }
}

pub async fn of_several_that_name_the_same_version_one_wins(world: World) {
    let (one, other) = (world.connect().await, world.connect().await);
    done(&one, create("/state", "a")).await;
    let attempts = (0..20).map(|n| {
        let session = if n % 2 == 0 { &one } else { &other };
        session.write(vec![set("/state", 0, &n.to_string())])
    });
    let outcomes = join_all(attempts).await;
    let won = outcomes.iter().filter(|outcome| **outcome == Ok(vec![Some(Version(1))])).count();
    let lost = outcomes
        .iter()
        .filter(|outcome| **outcome == Err(refused(0, Conflict::VersionMoved)))
        .count();
    assert_eq!((won, lost), (1, 19), "{outcomes:?}");
    assert_eq!(text(&one, "/state").await.unwrap().1, 1);
}

pub async fn a_write_of_many_steps_is_carried_out_whole_or_not_at_all(world: World) {
    let session = world.connect().await;
    done(&session, create("/a", "")).await;
    done(&session, create("/b", "")).await;
    done(&session, create("/b/child", "")).await;
    for (last, conflict) in [
        (set("/b", 7, ""), Conflict::VersionMoved),
        (check("/b", 7), Conflict::VersionMoved),
        (create("/b", ""), Conflict::Exists),
        (create("/none/child", ""), Conflict::Missing),
        (check("/none", 0), Conflict::Missing),
        (delete("/none"), Conflict::Missing),
        (delete("/b"), Conflict::HasChildren),
    ] {
        let writes = vec![set("/a", 0, "new"), create("/c", ""), last.clone()];
        assert_eq!(session.write(writes).await, Err(refused(2, conflict)), "{last:?}");
    }
    assert_eq!(text(&session, "/a").await, Some((String::new(), 0)));
    assert_eq!(read(&session, "/c").await, None);
    let writes = vec![
        check("/b", 0),
        set("/a", 0, "new"),
        create("/c", ""),
        set("/c", 0, "set"),
        delete("/b/child"),
    ];
    let versions = session.write(writes).await.unwrap();
    assert_eq!(
        versions,
        [None, Some(1), Some(0), Some(1), None].map(|version| version.map(Version))
    );
    assert_eq!(text(&session, "/c").await, Some(("set".to_owned(), 1)));
    assert_eq!(session.write(vec![]).await, Ok(vec![]));
}

pub async fn reads_come_back_in_the_order_in_which_they_were_asked(world: World) {
    let session = world.connect().await;
    let names: Vec<String> = (0..600).map(|n| format!("/d{n}")).collect();
    let creates = names.iter().step_by(2).map(|name| session.write(vec![create(name, name)]));
    assert!(join_all(creates).await.iter().all(Result::is_ok));
    let paths: Vec<_> = names.iter().map(|name| path(name)).collect();
    let documents = session.read_many(&paths).await.unwrap();
    for (n, document) in documents.iter().enumerate() {
        let bytes = document.as_ref().map(|document| document.bytes.clone());
        assert_eq!(bytes, (n % 2 == 0).then(|| Bytes::from(names[n].clone())));
    }
    assert_eq!(session.read_many(&[]).await, Ok(vec![]));
}

pub async fn an_ephemeral_is_gone_when_its_session_is_closed(world: World) {
    let (one, other) = (world.connect().await, world.connect().await);
    done(&one, ephemeral("/mine")).await;
    other.sync().await.unwrap();
    assert!(read(&one, "/mine").await.unwrap().own_ephemeral);
    assert!(!read(&other, "/mine").await.unwrap().own_ephemeral);
    assert_eq!(
        one.write(vec![create("/mine/child", "")]).await,
        Err(refused(0, Conflict::Missing))
    );
    let mut events = one.watch(&[]).await.unwrap();
    one.close().await.unwrap();
    other.sync().await.unwrap();
    assert_eq!(read(&other, "/mine").await, None, "gone by the time that close returns");
    assert_eq!(one.read(&path("/mine")).await, Err(ReadError::SessionOver));
    assert_eq!(one.write(vec![create("/late", "")]).await, Err(WriteError::SessionOver));
    assert_eq!(one.close().await, Ok(()), "closing twice does no harm");
    while events.recv().await.is_some() {}
}

pub async fn a_session_that_nobody_holds_lapses_by_its_time_out(world: World) {
    let (one, other) = (world.connect().await, world.connect().await);
    done(&one, ephemeral("/mine")).await;
    drop(one);
    until_gone(&other, "/mine").await;
}

pub async fn a_session_expires_when_the_coordinator_hears_nothing_of_it(world: World) {
    let proxy = world.proxy().await;
    let (cut_off, other) = (world.connect_through(&proxy).await, world.connect().await);
    done(&cut_off, ephemeral("/mine")).await;
    let mut events = cut_off.watch(&[path("/")]).await.unwrap();
    proxy.freeze();
    until_told(&mut events, &SessionEvent::Disconnected).await;
    until_gone(&other, "/mine").await;
    // Until the coordinator itself says so, it is only disconnected: it might be the coordinator that is gone.
    assert!(matches!(cut_off.sync().await, Err(ReadError::Unavailable(_))));
    proxy.cut();
    proxy.pass();
    until_told(&mut events, &SessionEvent::Expired).await;
    assert_eq!(events.recv().await, None, "nothing follows");
    assert_eq!(cut_off.sync().await, Err(ReadError::SessionOver));
    assert_eq!(cut_off.write(vec![create("/late", "")]).await, Err(WriteError::SessionOver));
    assert!(matches!(cut_off.watch(&[]).await, Err(ReadError::SessionOver)));
    // The next life is a new session.
    let next = world.connect_through(&proxy).await;
    assert_ne!(next.session().id, cut_off.session().id);
    assert_eq!(read(&next, "/late").await, None);
}

pub async fn a_cut_connection_costs_neither_the_session_nor_its_ephemerals(world: World) {
    let proxy = world.proxy().await;
    let session = world.connect_through(&proxy).await;
    let mut events = session.watch(&[]).await.unwrap();
    done(&session, ephemeral("/mine")).await;
    for _ in 0..3 {
        proxy.cut();
        assert_eq!(next(&mut events).await, SessionEvent::Disconnected);
        assert_eq!(next(&mut events).await, SessionEvent::Connected);
        assert!(read(&session, "/mine").await.unwrap().own_ephemeral);
    }
}

pub async fn a_request_made_while_disconnected_fails_at_once_and_is_never_sent(world: World) {
    let proxy = world.proxy().await;
    let session = world.connect_through(&proxy).await;
    let mut events = session.watch(&[]).await.unwrap();
    proxy.refuse();
    assert_eq!(next(&mut events).await, SessionEvent::Disconnected);
    let asked = Instant::now();
    assert!(matches!(session.read(&path("/x")).await, Err(ReadError::Unavailable(_))));
    assert!(undecided(&session.write(vec![create("/x", "")]).await.unwrap_err()));
    assert!(asked.elapsed() < TIMEOUT / 2);
    proxy.pass();
    assert_eq!(next(&mut events).await, SessionEvent::Connected);
    session.sync().await.unwrap();
    assert_eq!(read(&session, "/x").await, None);
}

pub async fn a_reply_lost_after_the_write_was_applied_leaves_it_undecided_until_it_is_read(
    world: World,
) {
    let proxy = world.proxy().await;
    let (session, other) = (world.connect_through(&proxy).await, world.connect().await);
    done(&session, create("/state", "old")).await;
    proxy.swallow_answers();
    let outcome = tokio::spawn({
        let session = session.clone();
        async move { session.write(vec![set("/state", 0, "new")]).await }
    });
    let state = path("/state");
    until(&other, "the write is applied", async |other| {
        Ok(other.read(&state).await?.is_some_and(|state| state.version == Version(1)))
    })
    .await;
    proxy.cut();
    // Only when the connection is known to be gone: an answer that was still on its way would get through.
    assert!(undecided(&outcome.await.unwrap().unwrap_err()), "applied, but its author cannot know");
    proxy.pass();
    answers(&session).await;
    // Sent again it can win once at most: here the version has moved on, which decides it.
    let again = session.write(vec![set("/state", 0, "new")]).await;
    assert_eq!(again, Err(refused(0, Conflict::VersionMoved)));
    assert_eq!(text(&session, "/state").await, Some(("new".to_owned(), 1)));
}

pub async fn a_change_below_a_watched_prefix_is_told_and_no_other(world: World) {
    let (watcher, writer) = (world.connect().await, world.connect().await);
    let mut events = watcher.watch(&[path("/queues"), path("/brokers")]).await.unwrap();
    let told = |at: &str| SessionEvent::Changed(path(at));
    for write in [
        create("/queues", ""),
        create("/queuesque", ""),
        create("/queues/a", ""),
        set("/queues/a", 0, "x"),
        create("/brokers", ""),
        delete("/queues/a"),
    ] {
        done(&writer, write).await;
    }
    // In order below each prefix; between two of them there is none.
    let (mut queues, mut brokers) = (Vec::new(), Vec::new());
    while queues.len() < 4 || brokers.is_empty() {
        match next(&mut events).await {
            event if event == told("/brokers") => brokers.push(event),
            event => queues.push(event),
        }
    }
    assert_eq!(queues, ["/queues", "/queues/a", "/queues/a", "/queues/a"].map(told));
    assert_eq!(brokers, [told("/brokers")]);
}

pub async fn a_second_subscriber_hears_what_it_watches_itself(world: World) {
    let (watcher, writer) = (world.connect().await, world.connect().await);
    let mut a = watcher.watch(&[path("/a")]).await.unwrap();
    let mut both = watcher.watch(&[path("/a"), path("/b")]).await.unwrap();
    done(&writer, create("/b", "")).await;
    done(&writer, create("/a", "")).await;
    assert_eq!(next(&mut a).await, SessionEvent::Changed(path("/a")));
    let mut seen = [next(&mut both).await, next(&mut both).await];
    seen.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(seen, ["/a", "/b"].map(|at| SessionEvent::Changed(path(at))));
}

pub async fn after_a_gap_what_was_missed_can_be_read_and_watches_are_set_again(world: World) {
    let proxy = world.proxy().await;
    let (watcher, writer) = (world.connect_through(&proxy).await, world.connect().await);
    done(&writer, create("/state", "a")).await;
    let mut events = watcher.watch(&[path("/state")]).await.unwrap();
    for round in 0..3 {
        proxy.refuse();
        until_told(&mut events, &SessionEvent::Disconnected).await;
        done(&writer, set("/state", round * 2, &format!("missed {round}"))).await;
        proxy.pass();
        until_told(&mut events, &SessionEvent::Connected).await;
        // No sync needed: nothing older than the gap is ever shown after it.
        let missed = (format!("missed {round}"), round * 2 + 1);
        assert_eq!(text(&watcher, "/state").await, Some(missed));
        done(&writer, set("/state", round * 2 + 1, "seen")).await;
        until_told(&mut events, &SessionEvent::Changed(path("/state"))).await;
    }
}

pub async fn a_watch_asked_for_while_disconnected_is_set_on_return(world: World) {
    let proxy = world.proxy().await;
    let (watcher, writer) = (world.connect_through(&proxy).await, world.connect().await);
    let mut state = watcher.watch(&[]).await.unwrap();
    proxy.refuse();
    assert_eq!(next(&mut state).await, SessionEvent::Disconnected);
    let mut events = watcher.watch(&[path("/late")]).await.unwrap();
    assert_eq!(next(&mut events).await, SessionEvent::Disconnected, "where it stands");
    proxy.pass();
    until_told(&mut events, &SessionEvent::Connected).await;
    done(&writer, create("/late", "")).await;
    until_told(&mut events, &SessionEvent::Changed(path("/late"))).await;
}

pub async fn after_a_sync_everything_committed_before_can_be_read(world: World) {
    let (reader, writer) = (world.connect().await, world.connect().await);
    done(&writer, create("/counter", "")).await;
    for n in 0..50 {
        done(&writer, set("/counter", n, &n.to_string())).await;
        reader.sync().await.unwrap();
        assert_eq!(text(&reader, "/counter").await, Some((n.to_string(), n + 1)));
    }
}

pub async fn after_a_sync_every_change_before_has_been_told(world: World) {
    let (watcher, writer) = (world.connect().await, world.connect().await);
    done(&writer, create("/counter", "")).await;
    let mut events = watcher.watch(&[path("/counter")]).await.unwrap();
    for n in 0..50 {
        done(&writer, set("/counter", n, "")).await;
        watcher.sync().await.unwrap();
        assert_eq!(events.try_recv(), Ok(SessionEvent::Changed(path("/counter"))), "change {n}");
    }
}

pub async fn calls_of_one_session_are_carried_out_in_order(world: World) {
    let session = world.connect().await;
    done(&session, create("/n", "")).await;
    let writes = (0..200).map(|n| session.write(vec![set("/n", n, &n.to_string())]));
    let outcomes = join_all(writes).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

pub async fn a_thousand_of_the_longest_names_make_no_child_list_too_long(world: World) {
    let session = world.connect().await;
    let host = VirtualHost::default();
    let name = |n: u32| QueueName::new(format!("{n:05}{}", "/".repeat(250))).unwrap();
    let folder = paths::names_in(&host).child("all");
    session.make_parents(&folder).await.unwrap();
    let creates = (0..1_000).map(|n| {
        let path = folder.child(&paths::encode(name(n).as_str()));
        session.write(vec![Write::Create { path, bytes: Bytes::new(), ephemeral: false }])
    });
    let outcomes = join_all(creates).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let mut children = session.children(&folder).await.unwrap();
    children.sort();
    assert_eq!(children.len(), 1_000, "three quarters of a megabyte are no trouble");
    assert_eq!(paths::decode(&children[999]).unwrap(), name(999).as_str());
}

pub async fn any_name_that_users_choose_can_be_written_and_read_back(world: World) {
    let session = world.connect().await;
    for awkward in ["/", ".", "..", "%2F", "a/b", "zookeeper", "ü ö", "日本", "\u{fffd}", " "] {
        let (host, queue) = (VirtualHost::new(awkward).unwrap(), QueueName::new(awkward).unwrap());
        let path = paths::name(&host, &queue);
        session.make_parents(&path.parent().unwrap()).await.unwrap();
        let bytes = Bytes::from(awkward);
        session
            .write(vec![Write::Create { path: path.clone(), bytes, ephemeral: false }])
            .await
            .unwrap();
        assert_eq!(session.read(&path).await.unwrap().unwrap().bytes, awkward);
        let children = session.children(&path.parent().unwrap()).await.unwrap();
        assert!(
            children.iter().any(|child| paths::decode(child).unwrap() == awkward),
            "{children:?}"
        );
        assert_eq!(paths::parse(&path), Some(paths::Place::Name(host, queue)));
    }
}

pub async fn parents_are_made_once_by_however_many(world: World) {
    let (one, other) = (world.connect().await, world.connect().await);
    let deep = path("/x/y/z");
    let (made, also_made) = tokio::join!(one.make_parents(&deep), other.make_parents(&deep));
    assert_eq!((made, also_made), (Ok(()), Ok(())));
    assert_eq!(one.make_parents(&deep).await, Ok(()));
    assert_eq!(one.children(&path("/x/y")).await.unwrap(), ["z"]);
    assert_eq!(one.children(&path("/nothing/here")).await.unwrap(), Vec::<String>::new());
    assert_eq!(one.make_parents(&path("/")).await, Ok(()));
}

pub async fn a_write_over_the_limit_is_refused_before_it_is_sent(world: World) {
    let session = world.connect().await;
    let mut events = session.watch(&[]).await.unwrap();
    let too_long = "x".repeat(WRITE_BYTES_MAX);
    let error = session.write(vec![create("/big", &too_long)]).await.unwrap_err();
    assert!(
        matches!(&error, WriteError::Invalid(why) if why.contains("over the limit")),
        "{error}"
    );
    let just_right = "x".repeat(WRITE_BYTES_MAX - 1_000);
    done(&session, create("/big", &just_right)).await;
    assert_eq!(read(&session, "/big").await.unwrap().bytes.len(), just_right.len());
    assert!(events.try_recv().is_err(), "the connection stays");
}

pub async fn the_time_out_granted_is_shown_beside_the_one_asked_for(world: World) {
    for (asked, granted) in [(3_000, 3_000), (100, 400), (90_000, 60_000)]
        .map(|(asked, granted)| (Duration::from_millis(asked), Duration::from_millis(granted)))
    {
        let session = world.connector(asked).connect().await.unwrap();
        assert_eq!((session.session().timeout, session.session().timeout_asked), (granted, asked));
        session.close().await.unwrap();
    }
}

pub async fn an_outage_longer_than_the_time_out_costs_no_session(world: World) {
    let session = world.connect().await;
    let id = session.session().id;
    let mut events = session.watch(&[path("/state")]).await.unwrap();
    done(&session, ephemeral("/mine")).await;
    done(&session, create("/state", "")).await;
    world.go_away();
    until_told(&mut events, &SessionEvent::Disconnected).await;
    // Longer than any clock of a client library lets a session live on. The one place where time must pass.
    tokio::time::sleep(TIMEOUT * 2).await;
    world.come_back().await;
    until_told(&mut events, &SessionEvent::Connected).await;
    assert_eq!(session.session().id, id, "no new incarnation");
    assert!(read(&session, "/mine").await.unwrap().own_ephemeral);
    done(&session, set("/state", 0, "after")).await;
    until_told(&mut events, &SessionEvent::Changed(path("/state"))).await;
}

pub async fn one_who_connects_before_there_is_anything_waits_for_it(world: World) {
    world.go_away();
    let connector = world.connector(TIMEOUT);
    let connecting = tokio::spawn(async move { connector.connect().await });
    // Long enough for many attempts to have failed.
    tokio::time::sleep(TIMEOUT / 2).await;
    assert!(!connecting.is_finished());
    world.come_back().await;
    let session = tokio::time::timeout(PATIENCE, connecting).await.unwrap().unwrap().unwrap();
    done(&session, create("/here", "")).await;
}

pub async fn requests_given_up_by_their_author_do_not_clog_the_session(world: World) {
    let session = world.connect().await;
    done(&session, create("/n", "")).await;
    // More than may be outstanding at once, each sent and then forgotten.
    for _ in 0..2_000 {
        let write = session.write(vec![set("/n", 999, "never")]);
        tokio::pin!(write);
        let outcome = futures::poll!(&mut write);
        assert!(!matches!(outcome, std::task::Poll::Ready(Ok(_))), "{outcome:?}");
    }
    done(&session, set("/n", 0, "after")).await;
    assert_eq!(text(&session, "/n").await, Some(("after".to_owned(), 1)));
}
