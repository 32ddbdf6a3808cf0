//! A session with the embedded coordinator of this same process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::core::{Over, Secret};
use super::hub::{Connection, Hub, Refusal};
use super::tree::SessionId;
use crate::coordinator::{Document, Path, ReadError, SessionInfo, Version, Write, WriteError};
use crate::session::{Attached, DialError, Dialer, Link};

#[derive(Debug)]
pub(crate) struct LocalDialer {
    hub: Arc<Hub>,
    asked: Duration,
    session: Mutex<Option<(SessionId, Secret)>>,
}

impl LocalDialer {
    pub(crate) fn new(hub: Arc<Hub>, asked: Duration) -> Self {
        Self { hub, asked, session: Mutex::new(None) }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

#[async_trait]
impl Dialer for LocalDialer {
    async fn dial(&self) -> Result<Attached, DialError> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let connected = self.hub.connect(*session, self.asked, true);
        let (connection, changes) = connected.map_err(|refusal| match refusal {
            Refusal::Away => DialError::Unreachable("it is away".to_owned()),
            Refusal::Over => DialError::Expired,
        })?;
        *session = Some((connection.session, connection.secret));
        let (id, timeout) = (connection.session.0, connection.timeout);
        let info = SessionInfo { id, timeout, timeout_asked: self.asked };
        Ok(Attached { link: Arc::new(LocalLink { connection }), info, changes })
    }

    fn servers(&self) -> String {
        "the embedded coordinator in this process".to_owned()
    }
}

#[derive(Debug)]
struct LocalLink {
    connection: Connection,
}

impl From<Over> for ReadError {
    fn from(Over: Over) -> Self {
        ReadError::SessionOver
    }
}

#[async_trait]
impl Link for LocalLink {
    async fn read_many(&self, paths: Vec<Path>) -> Result<Vec<Option<Document>>, ReadError> {
        Ok(self.connection.read_many(&paths)?)
    }

    async fn children(&self, path: Path) -> Result<Vec<String>, ReadError> {
        Ok(self.connection.children(&path)?)
    }

    async fn sync(&self) -> Result<(), ReadError> {
        Ok(self.connection.sync()?)
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Option<Version>>, WriteError> {
        self.connection.write(&writes)
    }

    async fn watch(&self, prefix: Path) -> Result<(), ReadError> {
        Ok(self.connection.watch(prefix)?)
    }

    async fn lost(&self) -> String {
        self.connection.cut.cancelled().await;
        "cut by the embedded coordinator".to_owned()
    }

    async fn close(&self) -> Result<(), ReadError> {
        Ok(self.connection.close()?)
    }

    fn cut(&self) {
        self.connection.leave();
    }
}
