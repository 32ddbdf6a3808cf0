//! What a story of the contract happens in: one coordinator, embedded or an ensemble, and the ways to reach it.

use std::sync::Arc;
use std::time::Duration;

use bellwether_coordinator::coordinator::{
    ConnectError, Connector, Coordinator, Document, Path, ReadError, SessionEvent, Version, Write,
    WriteError,
};
use bellwether_coordinator::embedded::{
    Embedded, EmbeddedConfig, EmbeddedConnector, EmbeddedServer,
};
use bellwether_coordinator::zookeeper::{ZooKeeperConfig, ZooKeeperConnector};
use bellwether_integration_tests::zookeeper::Ensemble;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::{OnceCell, mpsc};

use crate::proxy::Proxy;

/// Long enough for a machine that is busy with other tests; no story takes it when all is well.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asked for in most stories: short, so that what waits for an expiry does not wait long; long enough that on a busy machine
/// nobody is taken for dead.
pub const TIMEOUT: Duration = Duration::from_secs(3);

pub type Session = Arc<dyn Coordinator>;

pub struct World {
    kind: Kind,
    /// Stories share an ensemble, so each lives under a chroot of its own.
    chroot: String,
}

enum Kind {
    Embedded { embedded: Embedded, server: EmbeddedServer },
    Shared(&'static Ensemble),
    Own(Ensemble),
}

impl World {
    pub async fn embedded() -> World {
        let embedded = Embedded::start(EmbeddedConfig::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = embedded.serve(listener).unwrap();
        World { kind: Kind::Embedded { embedded, server }, chroot: String::new() }
    }

    /// The ensemble of three that all stories share which do not hurt it.
    pub async fn zookeeper(story: &str) -> World {
        static SHARED: OnceCell<Ensemble> = OnceCell::const_new();
        let shared = SHARED.get_or_init(async || Ensemble::start(3).await.unwrap()).await;
        World { kind: Kind::Shared(shared), chroot: format!("/contract/{story}") }
    }

    /// An ensemble that a story may hurt.
    pub async fn zookeeper_of_its_own(servers: usize) -> World {
        World {
            kind: Kind::Own(Ensemble::start(servers).await.unwrap()),
            chroot: "/own".to_owned(),
        }
    }

    pub fn connector(&self, timeout: Duration) -> Box<dyn Connector> {
        match &self.kind {
            Kind::Embedded { server, .. } => {
                self.connector_by(&server.address().to_string(), timeout)
            }
            Kind::Shared(ensemble) => self.connector_by(&ensemble.connect_string(), timeout),
            Kind::Own(ensemble) => self.connector_by(&ensemble.connect_string(), timeout),
        }
    }

    fn connector_by(&self, servers: &str, timeout: Duration) -> Box<dyn Connector> {
        match &self.kind {
            Kind::Embedded { .. } => Box::new(EmbeddedConnector::new(servers, timeout)),
            Kind::Shared(_) | Kind::Own(_) => {
                let config =
                    ZooKeeperConfig::new(&format!("{servers}{}", self.chroot), timeout).unwrap();
                Box::new(ZooKeeperConnector::new(config))
            }
        }
    }

    pub async fn connect(&self) -> Session {
        connected(self.connector(TIMEOUT).connect().await)
    }

    pub async fn proxy(&self) -> Proxy {
        Proxy::start(match &self.kind {
            Kind::Embedded { server, .. } => server.address().to_string(),
            Kind::Shared(ensemble) => ensemble.address(0),
            Kind::Own(ensemble) => ensemble.address(0),
        })
        .await
    }

    pub async fn connect_through(&self, proxy: &Proxy) -> Session {
        connected(self.connector_by(&proxy.address(), TIMEOUT).connect().await)
    }

    /// Everything that serves is gone; what was written stays.
    pub fn go_away(&self) {
        match &self.kind {
            Kind::Embedded { embedded, .. } => embedded.faults().go_away(),
            Kind::Shared(_) => panic!("other stories need the ensemble"),
            Kind::Own(ensemble) => ensemble.kill_all().unwrap(),
        }
    }

    pub async fn come_back(&self) {
        match &self.kind {
            Kind::Embedded { embedded, .. } => embedded.faults().come_back(),
            Kind::Shared(_) => panic!("other stories need the ensemble"),
            Kind::Own(ensemble) => ensemble.start_all().await.unwrap(),
        }
    }

    pub fn ensemble(&self) -> &Ensemble {
        match &self.kind {
            Kind::Embedded { .. } => panic!("the embedded coordinator is no ensemble"),
            Kind::Shared(ensemble) => ensemble,
            Kind::Own(ensemble) => ensemble,
        }
    }
}

fn connected(session: Result<Session, ConnectError>) -> Session {
    session.unwrap()
}

pub fn path(text: &str) -> Path {
    Path(text.to_owned())
}

pub fn create(at: &str, text: &str) -> Write {
    Write::Create { path: path(at), bytes: Bytes::from(text.to_owned()), ephemeral: false }
}

pub fn ephemeral(at: &str) -> Write {
    Write::Create { path: path(at), bytes: Bytes::new(), ephemeral: true }
}

pub fn set(at: &str, version: i32, text: &str) -> Write {
    Write::Set { path: path(at), bytes: Bytes::from(text.to_owned()), version: Version(version) }
}

pub fn delete(at: &str) -> Write {
    Write::Delete { path: path(at), version: None }
}

pub fn check(at: &str, version: i32) -> Write {
    Write::Check { path: path(at), version: Version(version) }
}

/// Does it until it is decided, for stories in which that is not the point.
pub async fn done(session: &Session, write: Write) {
    session.write(vec![write]).await.unwrap();
}

pub async fn text(session: &Session, at: &str) -> Option<(String, i32)> {
    let document = read(session, at).await?;
    Some((String::from_utf8(document.bytes.to_vec()).unwrap(), document.version.0))
}

pub async fn read(session: &Session, at: &str) -> Option<Document> {
    session.read(&path(at)).await.unwrap()
}

/// Waits until `fact` holds, as far as a synced read can tell.
pub async fn until(
    session: &Session,
    what: &str,
    mut fact: impl AsyncFnMut(&Session) -> Result<bool, ReadError>,
) {
    let waiting = async {
        loop {
            if session.sync().await.is_ok() && matches!(fact(session).await, Ok(true)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

pub async fn until_gone(session: &Session, at: &str) {
    let at = path(at);
    until(session, &format!("{at} is gone"), async |session| {
        Ok(session.read(&at).await?.is_none())
    })
    .await;
}

/// The next event, within reason.
pub async fn next(events: &mut mpsc::Receiver<SessionEvent>) -> SessionEvent {
    tokio::time::timeout(PATIENCE, events.recv())
        .await
        .expect("an event in time")
        .expect("more events")
}

/// Skips what comes before `wanted`.
pub async fn until_told(events: &mut mpsc::Receiver<SessionEvent>, wanted: &SessionEvent) {
    let mut seen = Vec::new();
    loop {
        let event = tokio::time::timeout(PATIENCE, events.recv()).await;
        match event {
            Ok(Some(event)) if event == *wanted => return,
            Ok(Some(event)) => seen.push(event),
            Ok(None) => panic!("the events ended after {seen:?}, before {wanted:?}"),
            Err(_) => panic!("waited in vain for {wanted:?} after {seen:?}"),
        }
    }
}

/// Waits through disconnects until a request gets an answer.
pub async fn answers(session: &Session) {
    let waiting = async {
        while let Err(error) = session.sync().await {
            assert_ne!(error, ReadError::SessionOver);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the session answers again");
}

pub fn undecided(error: &WriteError) -> bool {
    matches!(error, WriteError::Undecided(_))
}
