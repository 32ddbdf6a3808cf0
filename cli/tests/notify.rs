//! What a broker tells its service manager, over a socket as systemd has one.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bellwether_coordinator::embedded::{Embedded, EmbeddedConfig, EmbeddedServer};
use rustix::process::{Pid, Signal, kill_process};

/// Far more than any of this takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker under a service manager that is this test.
struct Service {
    broker: Child,
    manager: UnixDatagram,
    _coordinator: EmbeddedServer,
    _folder: tempfile::TempDir,
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Err(error) = self.broker.kill().and_then(|()| self.broker.wait().map(drop)) {
            eprintln!("the broker could not be ended: {error}");
        }
    }
}

impl Service {
    async fn start() -> Service {
        let folder = tempfile::tempdir().unwrap();
        let embedded = Embedded::start(EmbeddedConfig::default()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let coordinator = embedded.serve(listener).unwrap();
        let socket = folder.path().join("notify");
        let manager = UnixDatagram::bind(&socket).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bellwether"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("BELLWETHER_") {
                command.env_remove(name);
            }
        }
        command
            .args(["serve", "--id", "1", "--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0"])
            .args(["--embedded-coordinator", &coordinator.address().to_string(), "--data"])
            .arg(folder.path().join("data"))
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "2000000")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let broker = command.spawn().unwrap();
        Service { broker, manager, _coordinator: coordinator, _folder: folder }
    }

    /// What the manager hears next that begins with `words`.
    fn hears(&self, words: &str) -> String {
        let mut bytes = [0; 4096];
        loop {
            let length = self
                .manager
                .recv(&mut bytes)
                .unwrap_or_else(|error| panic!("{words} was not said: {error}"));
            let said = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if said.starts_with(words) {
                return said;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.broker.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_hears_that_a_broker_is_ready_lives_reloads_and_stops() {
    let mut service = Service::start().await;
    service.hears("READY=1");
    service.hears("WATCHDOG=1");
    service.hears("WATCHDOG=1");
    service.signal(Signal::HUP);
    assert!(service.hears("RELOADING=1").contains("MONOTONIC_USEC="));
    service.hears("READY=1");
    service.signal(Signal::TERM);
    service.hears("STOPPING=1");
    assert!(service.broker.wait().unwrap().success());
}
