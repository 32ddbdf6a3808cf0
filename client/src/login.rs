//! Who the client is, and the key derived from its password: derived once for all connections, beside the runtime's threads.

use std::sync::Arc;

use bellwether_protocol::names::UserName;
use bellwether_protocol::scram::{Password, SaltedPassword};

/// As whom a client logs in.
#[derive(Clone, Debug)]
pub(crate) enum Login {
    /// A user, by SCRAM-SHA-256.
    Password(PasswordLogin),
    /// Whom the certificate names that the client shows.
    Certificate,
}

/// A user and a password. Clones share the derived key.
#[derive(Clone, Debug)]
pub(crate) struct PasswordLogin {
    user: UserName,
    password: Password,
    derived: Arc<tokio::sync::Mutex<Option<Derived>>>,
}

/// The key for the last salt. A user has one salt, until the password is changed.
#[derive(Debug)]
struct Derived {
    salt: Vec<u8>,
    iterations: u32,
    salted: SaltedPassword,
}

impl PasswordLogin {
    pub(crate) fn new(user: UserName, password: Password) -> PasswordLogin {
        PasswordLogin { user, password, derived: Arc::default() }
    }

    pub(crate) fn user(&self) -> &UserName {
        &self.user
    }

    /// The salted password. Reconnecting costs no derivation, and connecting to all brokers at once costs one: the lock is held
    /// while it is made.
    pub(crate) async fn salted(
        &self,
        salt: &[u8],
        iterations: u32,
    ) -> Result<SaltedPassword, String> {
        let mut derived = self.derived.lock().await;
        if let Some(known) = derived.as_ref()
            && (known.salt.as_slice(), known.iterations) == (salt, iterations)
        {
            return Ok(known.salted.clone());
        }
        let (password, owned) = (self.password.clone(), salt.to_vec());
        let made = tokio::task::spawn_blocking(move || {
            password.salted(&owned, iterations).map(|salted| (owned, salted))
        });
        let (salt, salted) = made
            .await
            .map_err(|error| format!("the key could not be derived: {error}"))?
            .map_err(|error| error.to_string())?;
        *derived = Some(Derived { salt, iterations, salted: salted.clone() });
        Ok(salted)
    }
}
