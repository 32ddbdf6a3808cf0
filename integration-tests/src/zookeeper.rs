//! Real ZooKeeper ensembles for tests: plain Java processes from the distribution's jars, on free ports, in a temporary folder.
//! They end with the [`Ensemble`] or with the test process, however that ends, and leave nothing behind.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::eventually::eventually;
use crate::ports::Port;
use crate::process::{Process, tail};

const JARS: [&str; 2] = ["/usr/share/java/zookeeper.jar", "/usr/share/java/slf4j-simple.jar"];

/// What ZooKeeper needs to speak TLS.
const NETTY: [&str; 8] = [
    "/usr/share/java/netty-buffer.jar",
    "/usr/share/java/netty-codec.jar",
    "/usr/share/java/netty-common.jar",
    "/usr/share/java/netty-handler.jar",
    "/usr/share/java/netty-resolver.jar",
    "/usr/share/java/netty-transport.jar",
    "/usr/share/java/netty-transport-native-epoll.jar",
    "/usr/share/java/netty-transport-native-unix-common.jar",
];

/// A server that does not serve after so long, on a machine that is busy with tests, has failed.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A question to a server that hangs is asked again.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// What a server says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Leader,
    Follower,
    Standalone,
}

/// A running ensemble of one or more servers, numbered from zero.
#[derive(Debug)]
pub struct Ensemble {
    // In this order they are dropped: servers, then their folder.
    servers: Vec<Server>,
    tls: Option<(PathBuf, PathBuf)>,
    _janitor: Janitor,
    _folder: TempDir,
}

#[derive(Debug)]
struct Server {
    folder: PathBuf,
    client: Port,
    secure: Port,
    _quorum: [Port; 2],
    process: Mutex<Option<Process>>,
}

impl Ensemble {
    /// Starts `servers` servers and waits until all of them serve.
    ///
    /// # Errors
    /// When ZooKeeper is not installed, naming what to install; when a server does not come up, with the end of its log.
    pub async fn start(servers: usize) -> Result<Ensemble> {
        Ensemble::start_with(servers, None).await
    }

    /// The same where clients are to speak TLS and to show a certificate: `tls` is a file with the servers' certificate and key, and
    /// one with the authority of everybody's certificates.
    pub async fn start_with(servers: usize, tls: Option<(PathBuf, PathBuf)>) -> Result<Ensemble> {
        ensure_installed()?;
        let folder = tempfile::Builder::new().prefix("bellwether-zookeeper-").tempdir()?;
        let janitor = Janitor::start(folder.path())?;
        let servers = (0..servers)
            .map(|number| Server::new(folder.path(), number))
            .collect::<Result<Vec<_>>>()?;
        let ensemble = Ensemble { servers, tls, _janitor: janitor, _folder: folder };
        for number in 0..ensemble.servers.len() {
            ensemble.configure(number)?;
        }
        ensemble.start_all().await?;
        Ok(ensemble)
    }

    /// How many servers it has, running or not.
    #[must_use]
    pub fn servers(&self) -> usize {
        self.servers.len()
    }

    /// `h:p,h:p,h:p`; a chroot may be appended.
    #[must_use]
    pub fn connect_string(&self) -> String {
        (0..self.servers.len()).map(|server| self.address(server)).collect::<Vec<_>>().join(",")
    }

    /// `h:p` of one server.
    #[must_use]
    pub fn address(&self, server: usize) -> String {
        let server = &self.servers[server];
        if self.tls.is_some() { server.secure.address() } else { server.client.address() }
    }

    /// SIGKILL to one server, and waits until it is gone. Its data stays. Does nothing when it is not running.
    pub fn kill(&self, server: usize) -> Result<()> {
        match self.servers[server].process().take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// SIGSTOP to one server.
    pub fn pause(&self, server: usize) -> Result<()> {
        self.servers[server].running(Process::pause)
    }

    /// SIGCONT to one server.
    pub fn resume(&self, server: usize) -> Result<()> {
        self.servers[server].running(Process::resume)
    }

    /// Starts one server that was killed, and waits until it serves, for which a majority must be running.
    pub async fn restart(&self, server: usize) -> Result<()> {
        self.launch(server)?;
        self.serves(server).await.map(drop)
    }

    /// Starts one server that was killed and does not wait for it.
    pub fn launch(&self, server: usize) -> Result<()> {
        let server = &self.servers[server];
        let mut process = server.process();
        if process.is_none() {
            *process = Some(server.launch()?);
        }
        Ok(())
    }

    /// SIGKILL to all servers.
    pub fn kill_all(&self) -> Result<()> {
        (0..self.servers.len()).try_for_each(|server| self.kill(server))
    }

    /// Starts every server that is not running, and waits until all of them serve.
    pub async fn start_all(&self) -> Result<()> {
        for server in 0..self.servers.len() {
            self.launch(server)?;
        }
        self.ready().await
    }

    /// Waits until every running server serves.
    pub async fn ready(&self) -> Result<()> {
        for server in 0..self.servers.len() {
            if self.servers[server].process().is_some() {
                self.serves(server).await?;
            }
        }
        Ok(())
    }

    /// Forgets everything that one server, which must have been killed, has stored: as if its disk were new.
    pub fn wipe(&self, server: usize) -> Result<()> {
        ensure!(self.servers[server].process().is_none(), "server {server} is running");
        std::fs::remove_dir_all(self.servers[server].folder.join("data"))?;
        self.configure(server)
    }

    /// Copies what all servers, which must have been killed, have stored, for [`Ensemble::restore`].
    pub fn save(&self, name: &str) -> Result<()> {
        for server in &self.servers {
            ensure!(server.process().is_none(), "a server is running");
            copy_folder(&server.folder.join("data"), &server.folder.join(name))?;
        }
        Ok(())
    }

    /// Puts back what was saved, as an operator with a backup would. All servers must have been killed.
    pub fn restore(&self, name: &str) -> Result<()> {
        for server in &self.servers {
            ensure!(server.process().is_none(), "a server is running");
            std::fs::remove_dir_all(server.folder.join("data"))?;
            copy_folder(&server.folder.join(name), &server.folder.join("data"))?;
        }
        Ok(())
    }

    /// Copies the servers' logs into `folder`: they go with the ensemble.
    pub fn keep_logs(&self, folder: &Path) -> Result<()> {
        for (number, server) in self.servers.iter().enumerate() {
            std::fs::copy(server.log(), folder.join(format!("zookeeper-{number}.log")))?;
        }
        Ok(())
    }

    /// The server that leads, or stands alone, now.
    pub async fn leader(&self) -> Result<usize> {
        for server in 0..self.servers.len() {
            if let Ok(Mode::Leader | Mode::Standalone) = self.servers[server].mode().await {
                return Ok(server);
            }
        }
        bail!("no server of the ensemble leads")
    }

    /// Waits until one server serves.
    pub async fn serves(&self, server: usize) -> Result<Mode> {
        let server = &self.servers[server];
        let ready = eventually("a ZooKeeper server to serve", READY_WITHIN, async || {
            server.running(|process| match process.ended()? {
                Some(status) => bail!("the server has ended: {status}"),
                None => Ok(()),
            })?;
            server.mode().await
        });
        ready.await.with_context(|| format!("{}\n{}", server.client.address(), tail(&server.log())))
    }

    fn configure(&self, number: usize) -> Result<()> {
        let server = &self.servers[number];
        let data = server.folder.join("data");
        std::fs::create_dir_all(&data)?;
        std::fs::write(data.join("myid"), format!("{}\n", number + 1))?;
        let mut config = format!(
            "tickTime=200\ninitLimit=50\nsyncLimit=25\nminSessionTimeout=400\nmaxSessionTimeout=60000\n\
             dataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n\
             4lw.commands.whitelist=*\nmaxClientCnxns=0\nextendedTypesEnabled=true\n",
            data.display(),
            server.client.number()
        );
        if let Some((certificate, ca)) = &self.tls {
            config += &format!(
                "secureClientPort={}\nsecureClientPortAddress=127.0.0.1\n\
                 serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
                 ssl.keyStore.location={}\nssl.keyStore.type=PEM\n\
                 ssl.trustStore.location={}\nssl.trustStore.type=PEM\nssl.clientAuth=need\n\
                 ssl.hostnameVerification=false\n",
                server.secure.number(),
                certificate.display(),
                ca.with_extension("pem").display(),
            );
            // The server tells a PEM file by its name.
            std::fs::copy(ca, ca.with_extension("pem"))?;
        }
        if self.servers.len() > 1 {
            for (number, Server { _quorum: [peers, election], .. }) in
                self.servers.iter().enumerate()
            {
                let (number, peers, election) = (number + 1, peers.number(), election.number());
                config += &format!("server.{number}=127.0.0.1:{peers}:{election}\n");
            }
        }
        Ok(std::fs::write(server.folder.join("zoo.cfg"), config)?)
    }
}

impl Server {
    fn new(folder: &Path, number: usize) -> Result<Server> {
        let folder = folder.join(format!("server-{number}"));
        let quorum = [Port::take()?, Port::take()?];
        let (client, secure) = (Port::take()?, Port::take()?);
        Ok(Server { folder, client, secure, _quorum: quorum, process: Mutex::new(None) })
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn launch(&self) -> Result<Process> {
        let mut java = Command::new("java");
        java.args(["-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg([JARS.as_slice(), &NETTY].concat().join(":"))
            // A killed process loses nothing that it wrote: without syncs the tests run two to three times as fast.
            .args(["-Dzookeeper.forceSync=no", "-Dzookeeper.preAllocSize=1024"])
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=info")
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(self.folder.join("zoo.cfg"))
            .current_dir(&self.folder);
        Process::start("a ZooKeeper server", &java, &self.log())
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running<T>(&self, act: impl FnOnce(&mut Process) -> Result<T>) -> Result<T> {
        act(self.process().as_mut().context("the ZooKeeper server is not running")?)
    }

    /// What it says it is; an error while it does not serve.
    async fn mode(&self) -> Result<Mode> {
        let asked = tokio::time::timeout(ANSWER_WITHIN, ask(self.client.number(), "srvr")).await;
        let answer = asked.context("no answer")??;
        let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: "));
        match mode {
            Some("leader") => Ok(Mode::Leader),
            Some("follower") => Ok(Mode::Follower),
            Some("standalone") => Ok(Mode::Standalone),
            _ => bail!("it does not serve: {:?}", answer.lines().next().unwrap_or_default()),
        }
    }
}

/// One of the four-letter commands.
async fn ask(port: u16, command: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(command.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn ensure_installed() -> Result<()> {
    let jars = JARS.into_iter().chain(NETTY);
    let missing: Vec<&str> = jars.filter(|jar| !Path::new(jar).exists()).collect();
    ensure!(
        missing.is_empty() && on_path("java") && on_path("setpriv"),
        "ZooKeeper is not installed{}: run ./test.sh, which installs it, or \
         `apt-get install -y --no-install-recommends zookeeper libnetty-java util-linux`",
        if missing.is_empty() {
            String::new()
        } else {
            format!(" ({} is missing)", missing.join(", "))
        }
    );
    Ok(())
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).exists())
    })
}

/// Removes the folder also when this process is killed, or keeps the ensemble to its very end: a shell that waits until
/// its input, which only this process holds, is closed.
#[derive(Debug)]
struct Janitor {
    shell: Child,
}

impl Janitor {
    fn start(folder: &Path) -> Result<Janitor> {
        // The servers die with this process too, but may still be writing: until then the folder does not stay away.
        let script = r#"cat; for attempt in 1 2 3 4 5; do sleep 0.2; rm -rf "$0"; done"#;
        let shell = Command::new("sh")
            .args(["-c", script])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting sh")?;
        Ok(Janitor { shell })
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        // The folder is removed by its owner. Both fail only when the shell is gone already.
        self.shell.kill().ok();
        self.shell.wait().ok();
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_ensemble_of_one_comes_and_goes_and_leaves_nothing() {
        let ensemble = Ensemble::start(1).await.unwrap();
        assert_eq!(ensemble.serves(0).await.unwrap(), Mode::Standalone);
        ensemble.kill_all().unwrap();
        assert!(ensemble.leader().await.is_err());
        ensemble.wipe(0).unwrap();
        ensemble.start_all().await.unwrap();
        assert_eq!(ensemble.leader().await.unwrap(), 0);
        let folder = ensemble._folder.path().to_owned();
        drop(ensemble);
        assert!(!folder.exists());
    }
}
