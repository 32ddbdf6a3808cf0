//! Which coordinator a broker is to use.

use std::sync::Arc;
use std::time::Duration;

use bellwether_coordinator::coordinator::Connector;
use bellwether_coordinator::embedded::EmbeddedConnector;
use bellwether_coordinator::zookeeper::{Digest, ZooKeeperConfig, ZooKeeperConnector};

use super::ServeArgs;
use crate::outcome::Failure;

/// The ensemble that was named, or the embedded coordinator of `dev` and `demo`.
pub fn connector(args: &ServeArgs) -> Result<Arc<dyn Connector>, Failure> {
    let timeout = Duration::from_millis(args.settings.timing.session_timeout_ms);
    if let Some(address) = &args.embedded_coordinator {
        return Ok(Arc::new(EmbeddedConnector::new(address.clone(), timeout)));
    }
    let Some(ensemble) = &args.settings.zookeeper else {
        return Err(Failure::usage(
            "no ZooKeeper ensemble: give --zookeeper h1:2181,h2:2181/chroot, BELLWETHER_ZOOKEEPER or `zookeeper = …` in the \
             configuration file; for a cluster without ZooKeeper, to try things out, use `bellwether dev`",
        ));
    };
    let config = ZooKeeperConfig::new(ensemble, timeout)
        .map_err(|error| Failure::usage(format!("--zookeeper: {error}")))?;
    let config = match &args.settings.zookeeper_auth {
        Some(auth) => config.with_digest(digest(auth)?),
        None => config,
    };
    let config = match args.settings.tls.zookeeper.open()? {
        Some(tls) => config.with_tls(tls),
        None => config,
    };
    Ok(Arc::new(ZooKeeperConnector::new(config)))
}

/// User and password, as `--zookeeper-auth` has them.
pub fn digest(auth: &str) -> Result<Digest, Failure> {
    match auth.split_once(':') {
        Some((user, password)) if !user.is_empty() && !password.is_empty() => {
            Ok(Digest { user: user.to_owned(), password: password.to_owned() })
        }
        // What was given is not shown: it may be a password.
        _ => Err(Failure::usage("--zookeeper-auth must be user:password")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_are_not_user_and_password_are_refused_and_not_shown() {
        for wrong in ["hunter2", ":hunter2", "hunter2:"] {
            let Err(Failure::Usage(words)) = digest(wrong) else { panic!("{wrong} was taken") };
            assert!(!words.contains("hunter2"), "{words}");
        }
        assert_eq!(digest("u:p:q").unwrap().password, "p:q");
    }
}
