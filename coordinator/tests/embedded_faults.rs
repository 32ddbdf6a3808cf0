//! The embedded coordinator fails on demand as a real ensemble does, and keeps its folder over a restart. In process, on a paused
//! clock: nothing here takes time.

use std::sync::Arc;
use std::time::Duration;

use bellwether_coordinator::coordinator::{
    Conflict, Connector, Coordinator, Path, ReadError, SessionEvent, Version, Write, WriteError,
};
use bellwether_coordinator::embedded::{Embedded, EmbeddedConfig, StoreError};
use bytes::Bytes;
use tokio::sync::mpsc::Receiver;

const TIMEOUT: Duration = Duration::from_secs(2);

type Session = Arc<dyn Coordinator>;

fn embedded() -> Embedded {
    Embedded::start(EmbeddedConfig::default()).unwrap()
}

async fn connect(embedded: &Embedded) -> Session {
    embedded.connector(TIMEOUT).connect().await.unwrap()
}

fn path(text: &str) -> Path {
    Path(text.to_owned())
}

fn create(at: &str) -> Vec<Write> {
    vec![Write::Create { path: path(at), bytes: Bytes::new(), ephemeral: false }]
}

fn ephemeral(at: &str) -> Vec<Write> {
    vec![Write::Create { path: path(at), bytes: Bytes::new(), ephemeral: true }]
}

fn set(at: &str, version: i32) -> Vec<Write> {
    vec![Write::Set {
        path: path(at),
        bytes: Bytes::from_static(b"set"),
        version: Version(version),
    }]
}

async fn version(session: &Session, at: &str) -> Option<i32> {
    session.read(&path(at)).await.unwrap().map(|document| document.version.0)
}

async fn told(events: &mut Receiver<SessionEvent>) -> SessionEvent {
    events.recv().await.expect("the session is not over")
}

async fn back(events: &mut Receiver<SessionEvent>) {
    assert_eq!(told(events).await, SessionEvent::Disconnected);
    assert_eq!(told(events).await, SessionEvent::Connected);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_hides_a_write_that_was_applied_and_a_lost_request_one_that_was_not() {
    let embedded = embedded();
    let session = connect(&embedded).await;
    let mut events = session.watch(&[]).await.unwrap();
    session.write(create("/state")).await.unwrap();
    embedded.faults().lose_replies(1);
    assert!(matches!(session.write(set("/state", 0)).await, Err(WriteError::Undecided(_))));
    back(&mut events).await;
    assert_eq!(version(&session, "/state").await, Some(1));
    embedded.faults().lose_requests(1);
    assert!(matches!(session.write(set("/state", 1)).await, Err(WriteError::Undecided(_))));
    back(&mut events).await;
    assert_eq!(version(&session, "/state").await, Some(1));
    assert_eq!(session.write(set("/state", 1)).await, Ok(vec![Some(Version(2))]));
}

#[tokio::test(start_paused = true)]
async fn changes_come_late_or_never_when_so_ordered() {
    let embedded = embedded();
    let session = connect(&embedded).await;
    let mut events = session.watch(&[path("/")]).await.unwrap();
    embedded.faults().drop_changes();
    session.write(create("/dropped")).await.unwrap();
    embedded.faults().delay_changes();
    session.write(create("/late")).await.unwrap();
    assert!(version(&session, "/dropped").await.is_some(), "the read is the truth");
    assert!(events.try_recv().is_err());
    embedded.faults().tell_changes();
    assert_eq!(told(&mut events).await, SessionEvent::Changed(path("/late")));
}

#[tokio::test(start_paused = true)]
async fn reads_stay_stale_until_a_sync() {
    let embedded = embedded();
    let (reader, writer) = (connect(&embedded).await, connect(&embedded).await);
    writer.write(create("/state")).await.unwrap();
    embedded.faults().serve_stale();
    writer.write(set("/state", 0)).await.unwrap();
    assert_eq!(version(&reader, "/state").await, Some(0));
    reader.sync().await.unwrap();
    assert_eq!(version(&reader, "/state").await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn an_expired_session_is_over_and_its_ephemerals_are_gone() {
    let embedded = embedded();
    let (session, other) = (connect(&embedded).await, connect(&embedded).await);
    let mut events = session.watch(&[]).await.unwrap();
    let mut seen = other.watch(&[path("/mine")]).await.unwrap();
    session.write(ephemeral("/mine")).await.unwrap();
    assert_eq!(told(&mut seen).await, SessionEvent::Changed(path("/mine")));
    assert!(embedded.faults().expire(session.session().id));
    assert_eq!(told(&mut seen).await, SessionEvent::Changed(path("/mine")));
    assert_eq!(version(&other, "/mine").await, None);
    assert_eq!(told(&mut events).await, SessionEvent::Disconnected);
    assert_eq!(told(&mut events).await, SessionEvent::Expired);
    assert_eq!(events.recv().await, None);
    assert_eq!(session.read(&path("/mine")).await, Err(ReadError::SessionOver));
    assert!(!embedded.faults().expire(session.session().id), "over is over");
}

#[tokio::test(start_paused = true)]
async fn going_away_for_an_hour_expires_nobody_and_refuses_at_once() {
    let embedded = embedded();
    let session = connect(&embedded).await;
    let mut events = session.watch(&[]).await.unwrap();
    session.write(ephemeral("/mine")).await.unwrap();
    embedded.faults().go_away();
    assert_eq!(told(&mut events).await, SessionEvent::Disconnected);
    assert!(matches!(session.read(&path("/mine")).await, Err(ReadError::Unavailable(_))));
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    embedded.faults().come_back();
    assert_eq!(told(&mut events).await, SessionEvent::Connected);
    assert_eq!(version(&session, "/mine").await, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_stays_attached_lives_for_ever_and_one_let_go_does_not() {
    let embedded = embedded();
    let (session, other) = (connect(&embedded).await, connect(&embedded).await);
    session.write(ephemeral("/mine")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(version(&other, "/mine").await, Some(0));
    let mut seen = other.watch(&[path("/mine")]).await.unwrap();
    drop(session);
    assert_eq!(told(&mut seen).await, SessionEvent::Changed(path("/mine")));
    assert_eq!(version(&other, "/mine").await, None);
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_all_but_ephemerals_is_there_again_and_sessions_are_over() {
    let folder = tempfile::tempdir().unwrap();
    let config =
        EmbeddedConfig { data: Some(folder.path().to_owned()), ..EmbeddedConfig::default() };
    let embedded = Embedded::start(config.clone()).unwrap();
    let session = connect(&embedded).await;
    session.write(create("/state")).await.unwrap();
    session.write(set("/state", 0)).await.unwrap();
    session.write(ephemeral("/mine")).await.unwrap();
    assert!(matches!(Embedded::start(config.clone()), Err(StoreError::InUse { .. })));
    // The folder is free again when the session's last handle, its keeper's among them, is gone.
    drop((session, embedded));
    let again = loop {
        match Embedded::start(config.clone()) {
            Ok(embedded) => break embedded,
            Err(StoreError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("{error}"),
        }
    };
    let session = connect(&again).await;
    assert_eq!(version(&session, "/state").await, Some(1));
    assert_eq!(version(&session, "/mine").await, None);
    let refused = WriteError::Refused { index: 0, conflict: Conflict::VersionMoved };
    assert_eq!(session.write(set("/state", 0)).await, Err(refused));
}
