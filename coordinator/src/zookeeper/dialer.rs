//! Gets connections for one ZooKeeper session. One attempt asks every server once, so that the pauses in between, and what a
//! failure means, are the keeper's to decide and not the client library's.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rand::seq::SliceRandom;
use zookeeper_client as zk;

use super::ZooKeeperConfig;
use super::closing::Closing;
use super::link::{Worker, ZooKeeperLink};
use crate::coordinator::SessionInfo;
use crate::session::{Attached, DialError, Dialer};

/// Shortest patience with one server, however short the time-out: an ensemble under load may be slow to answer.
const PATIENCE_MIN: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub(crate) struct ZooKeeperDialer {
    config: ZooKeeperConfig,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    /// The session, once there is one. Whatever the library says of it, it is over only when a server says so.
    session: Option<zk::SessionInfo>,
    /// What a server granted, so that patience follows it.
    granted: Option<Duration>,
    /// Tried last the next time: whatever was wrong with it may still be.
    used: Option<String>,
    /// Attempts in a row in which some server was too slow to answer.
    too_slow: u32,
}

impl ZooKeeperDialer {
    pub(crate) fn new(config: ZooKeeperConfig) -> Self {
        Self { config, progress: Mutex::default() }
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The servers in random order, but the one used last at the end.
    fn in_order(&self) -> Vec<String> {
        let mut servers = self.config.servers().to_vec();
        servers.shuffle(&mut rand::rng());
        let used = self.progress().used.clone();
        servers.sort_by_key(|server| Some(server) == used.as_ref());
        servers
    }

    fn connector(&self) -> zk::Connector {
        let session = self.progress().session.clone();
        let mut connector = zk::Client::connector()
            .with_session_timeout(self.config.session_timeout())
            .with_fail_eagerly();
        if let Some(digest) = self.config.digest() {
            connector = connector
                .with_auth("digest", format!("{}:{}", digest.user, digest.password).as_bytes());
        }
        if let Some(tls) = self.config.tls() {
            connector = connector.with_tls(tls.options());
        }
        match session {
            Some(session) => connector.with_session(session),
            None => connector,
        }
    }

    /// Short at first, so that one frozen server does not cost the session; then longer, so that servers that are merely slow
    /// get to answer. A new session costs the ensemble a commit, and it may still be waking up: more patience for that.
    fn patience(&self) -> Duration {
        let progress = self.progress();
        let timeout = progress.granted.unwrap_or(self.config.session_timeout());
        let patience = if progress.session.is_some() { timeout / 4 } else { timeout };
        (patience * 2_u32.pow(progress.too_slow.min(2))).min(timeout).max(PATIENCE_MIN)
    }

    async fn attach(&self, worker: &Worker, server: &str) -> Result<zk::Client, DialError> {
        let connector = self.connector();
        let secure = self.config.tls().is_some();
        let address = server.to_owned();
        let connecting = worker.run(async move {
            match secure {
                true => connector.secure_connect(&address).await,
                false => connector.connect(&address).await,
            }
        });
        let connected = tokio::time::timeout(self.patience(), connecting).await;
        let client = match connected {
            Ok(Some(Ok(client))) => client,
            Ok(Some(Err(error))) => return Err(refusal(server, &error)),
            Ok(None) => {
                return Err(DialError::Unreachable(format!(
                    "{server}: the connection was given up"
                )));
            }
            Err(_) => return Err(DialError::Unreachable(format!("{server} does not answer"))),
        };
        let mut progress = self.progress();
        progress.too_slow = 0;
        progress.session = Some(client.session().clone());
        progress.granted = Some(client.session_timeout());
        progress.used = Some(server.to_owned());
        Ok(client)
    }

    fn acls(&self) -> zk::Acls<'static> {
        if self.config.digest().is_some() {
            zk::Acls::creator_all()
        } else {
            zk::Acls::anyone_all()
        }
    }

    /// Makes the chroot where it is missing, and moves there. With a login, nothing is used that others may change.
    async fn enter_chroot(&self, client: zk::Client, first: bool) -> Result<zk::Client, DialError> {
        let chroot = self.config.chroot();
        if chroot.is_empty() {
            return Ok(client);
        }
        if first {
            let made =
                tokio::time::timeout(self.patience(), make_chroot(&client, chroot, self.acls()))
                    .await;
            made.map_err(|_| {
                DialError::Unreachable("no answer while the chroot was looked for".to_owned())
            })??;
        }
        let invalid =
            |_| DialError::Invalid(format!("ZooKeeper does not take {chroot:?} for a path"));
        let client = client.chroot(chroot.to_owned()).map_err(invalid)?;
        if let Some(digest) = self.config.digest().filter(|_| first) {
            let patience = self.patience();
            let closing = Closing { client: &client, chroot, digest, patience };
            closing.close_to_others().await?;
        }
        Ok(client)
    }
}

#[async_trait]
impl Dialer for ZooKeeperDialer {
    async fn dial(&self) -> Result<Attached, DialError> {
        let first = self.progress().granted.is_none();
        let mut failures = Vec::new();
        let begun = Instant::now();
        for server in self.in_order() {
            let worker =
                Worker::start().map_err(|error| DialError::Unreachable(error.to_string()))?;
            match self.attach(&worker, &server).await {
                Ok(client) => {
                    let timeout = client.session_timeout();
                    let id = client.session_id().0;
                    let client = match self.enter_chroot(client, first).await {
                        Ok(client) => client,
                        Err(error) => {
                            // The next attempt starts from the beginning; this session lapses.
                            *self.progress() = Progress::default();
                            return Err(error);
                        }
                    };
                    let info =
                        SessionInfo { id, timeout, timeout_asked: self.config.session_timeout() };
                    let (link, changes) = ZooKeeperLink::new(worker, client, self.acls());
                    return Ok(Attached { link: Arc::new(link), info, changes });
                }
                Err(DialError::Unreachable(reason)) => failures.push(reason),
                Err(error) => return Err(error),
            }
        }
        if begun.elapsed() >= self.patience() {
            self.progress().too_slow += 1;
        }
        Err(DialError::Unreachable(failures.join("; ")))
    }

    fn servers(&self) -> String {
        self.config.to_string()
    }
}

fn refusal(server: &str, error: &zk::Error) -> DialError {
    match error {
        zk::Error::SessionExpired => DialError::Expired,
        zk::Error::AuthFailed => DialError::AuthFailed(format!("{server}: {error}")),
        zk::Error::BadArguments(_) => DialError::Invalid(format!("{server}: {error}")),
        zk::Error::NoHosts => {
            DialError::Unreachable(format!("{server} does not take the connection"))
        }
        // What the library calls a time-out is its own impatience, not the ensemble's word.
        _ => DialError::Unreachable(format!("{server}: {error}")),
    }
}

async fn make_chroot(
    client: &zk::Client,
    chroot: &str,
    acls: zk::Acls<'static>,
) -> Result<(), DialError> {
    let failed = |path: &str, error: zk::Error| match error {
        zk::Error::NoAuth => DialError::Invalid(format!("not allowed to make the chroot {path}")),
        other => DialError::Unreachable(other.to_string()),
    };
    if client.check_stat(chroot).await.map_err(|error| failed(chroot, error))?.is_some() {
        return Ok(());
    }
    let ends = chroot.match_indices('/').map(|(at, _)| at).skip(1).chain([chroot.len()]);
    for end in ends {
        let path = &chroot[..end];
        if client.check_stat(path).await.map_err(|error| failed(path, error))?.is_some() {
            continue;
        }
        match client.create(path, b"", &zk::CreateMode::Persistent.with_acls(acls)).await {
            Ok(_) | Err(zk::Error::NodeExists) => {}
            Err(error) => return Err(failed(path, error)),
        }
    }
    Ok(())
}
