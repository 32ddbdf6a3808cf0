//! The login in a connection's handshake: from the client's hello to who it is. A refusal says the same for a wrong password and
//! an unknown user, after the same work.

use std::sync::Arc;

use bellwether_protocol::FrameCodec;
use bellwether_protocol::client::{
    BrokerFrame, ClientFrame, EXTERNAL, Hello, LoginData, LoginStart, PLAIN,
};
use bellwether_protocol::error::{ErrorBody, ErrorCode};
use bellwether_protocol::names::UserName;
use bellwether_protocol::scram::{self, Asked, Credentials, Password, ScramError};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::warn;

use super::Service;
use super::handshake::{Refusal, next_frame, send};
use crate::login::{Attempt, Origin, User, Users};

/// Whom a client has proved to be.
pub(super) struct Entry {
    /// None: nobody in particular, where that is enough.
    pub user: Option<Arc<User>>,
    /// The last message of the login.
    pub proof: Option<LoginData>,
}

/// A connection in its handshake.
pub(super) struct Door<'a, S> {
    pub socket: &'a mut S,
    pub codec: &'a mut FrameCodec<ClientFrame>,
    pub arrived: &'a mut BytesMut,
    pub service: &'a Service,
    pub origin: &'a Origin,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Door<'a, S> {
    /// Lets the client in, or says why not.
    pub async fn admit(&mut self, hello: &Hello) -> Result<Entry, Refusal> {
        let Some(start) = &hello.login else {
            return match self.service.login.required {
                true => Err(required("this broker wants a login")),
                false => Ok(Entry { user: None, proof: None }),
            };
        };
        let users = self.service.catalog.users().map_err(Refusal::Said)?;
        let admitted = self.prove(&users, start).await?;
        if let Some(user) =
            admitted.user.as_ref().filter(|user| !user.may_enter(&hello.virtual_host))
        {
            self.service.metrics.access_refused.increment();
            let words = format!(
                "user {} has no permission in virtual host {}; an administrator can give it some with `bellwether user permit`",
                user.name, hello.virtual_host
            );
            return Err(Refusal::Said(ErrorBody::not_done(ErrorCode::AccessRefused, words)));
        }
        self.service.metrics.logins.increment();
        Ok(admitted)
    }

    async fn prove(&mut self, users: &Users, start: &LoginStart) -> Result<Entry, Refusal> {
        let message = &start.initial_response.0;
        match start.mechanism.as_str() {
            scram::MECHANISM => self.scram(users, message).await,
            // Before the password is looked at: a client that gets used to sending it in the clear has given it away.
            PLAIN if !self.origin.secured => {
                Err(required("PLAIN sends the password as it is, and this connection has no TLS"))
            }
            PLAIN => self.plain(users, message).await,
            EXTERNAL => self.external(users, message).await,
            _ => Err(required("this kind of login is not known")),
        }
    }

    async fn scram(&mut self, users: &Users, first: &[u8]) -> Result<Entry, Refusal> {
        let asked = Asked::read(first).map_err(not_understood)?;
        let name = asked.user.clone();
        let _attempt = self.wait(&name).await?;
        let (user, credentials) = users.credentials(&name);
        let (challenge, pending) = asked.challenge(credentials, rand::random());
        let challenge = BrokerFrame::Challenge(challenge.into());
        send(self.socket, &challenge).await.map_err(|_| Refusal::Gone)?;
        let answer = match next_frame(self.socket, self.codec, self.arrived).await? {
            ClientFrame::Authenticate(answer) => answer,
            _ => {
                let words = "a Challenge has to be answered with Authenticate";
                return Err(Refusal::Said(ErrorBody::not_done(ErrorCode::UnexpectedFrame, words)));
            }
        };
        match (pending.finish(&answer.0), user) {
            (Ok(proof), Some(user)) => {
                self.service.login.succeeded(self.origin.address, &name);
                Ok(Entry { user: Some(user), proof: Some(proof.into()) })
            }
            (Err(ScramError::Malformed(_) | ScramError::WrongProof), _) | (Ok(_), None) => {
                Err(self.failed(&name))
            }
        }
    }

    async fn plain(&mut self, users: &Users, message: &[u8]) -> Result<Entry, Refusal> {
        let (name, password) = read_plain(message).map_err(not_understood)?;
        let _attempt = self.wait(&name).await?;
        let (user, credentials) = users.credentials(&name);
        let fits = self.fits(credentials, password).await?;
        match user.filter(|_| fits) {
            Some(user) => {
                self.service.login.succeeded(self.origin.address, &name);
                Ok(Entry { user: Some(user), proof: None })
            }
            None => Err(self.failed(&name)),
        }
    }

    /// Derives the key beside the connections, a few at a time.
    async fn fits(&self, credentials: Credentials, password: Password) -> Result<bool, Refusal> {
        let derivations = Arc::clone(&self.service.login.derivations);
        let permit = derivations.acquire_owned().await.map_err(|_| Refusal::Gone)?;
        let derived = tokio::task::spawn_blocking(move || {
            let fits = credentials.fit(&password);
            // Not before: a handshake that has run out of time does not end the derivation, and the next client would begin another.
            drop(permit);
            fits
        });
        derived.await.map_err(|error| {
            tracing::error!(%error, "a password could not be checked");
            let words = "the password could not be checked; try again";
            Refusal::Said(ErrorBody::not_done(ErrorCode::LoginUnavailable, words))
        })
    }

    async fn external(&mut self, users: &Users, message: &[u8]) -> Result<Entry, Refusal> {
        let Some(identity) = &self.origin.certificate else {
            return Err(required(
                "EXTERNAL takes the user from a client certificate, and there is none",
            ));
        };
        let name = UserName::new(&identity.name).map_err(|error| {
            Refusal::Said(ErrorBody::not_done(ErrorCode::LoginRefused, error.to_string()))
        })?;
        // No turn has to be waited for: whoever has the certificate need not guess, and is not to wait for those who do.
        let meant = message.is_empty() || message == name.as_str().as_bytes();
        match users.get(&name).filter(|_| meant) {
            Some(user) => Ok(Entry { user: Some(Arc::clone(user)), proof: None }),
            None => Err(self.refused(&name)),
        }
    }

    /// Makes who has failed before wait.
    async fn wait(&self, user: &UserName) -> Result<Attempt<'a>, Refusal> {
        let service = self.service;
        match service.login.turn(self.origin.address, user).await {
            Some(attempt) => Ok(attempt),
            None => {
                self.service.metrics.logins_failed.increment();
                let words = "there were too many failed logins from this address; try again in some seconds";
                Err(Refusal::Said(ErrorBody::not_done(ErrorCode::LoginUnavailable, words)))
            }
        }
    }

    fn failed(&self, user: &UserName) -> Refusal {
        self.service.login.failed(self.origin.address, user);
        self.refused(user)
    }

    fn refused(&self, user: &UserName) -> Refusal {
        self.service.metrics.logins_failed.increment();
        if let Some(times) = self.service.login.failures_told.happened() {
            warn!(%user, from = ?self.origin.address, times, "a login failed");
        }
        Refusal::Said(login_refused())
    }
}

/// An empty authorisation id, the user and the password, with a zero byte before each of the last two.
fn read_plain(message: &[u8]) -> Result<(UserName, Password), ScramError> {
    let text =
        std::str::from_utf8(message).map_err(|_| ScramError::Malformed("it is not UTF-8"))?;
    let mut parts = text.split('\0');
    let (Some(""), Some(user), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(ScramError::Malformed(
            "a zero byte, a user, a zero byte and a password are expected",
        ));
    };
    let user = UserName::new(user).map_err(|_| ScramError::Malformed("no user has such a name"))?;
    let password = Password::new(password)
        .map_err(|_| ScramError::Malformed("it is no password that a user can have"))?;
    Ok((user, password))
}

fn not_understood(error: ScramError) -> Refusal {
    Refusal::Said(ErrorBody::not_done(ErrorCode::LoginRefused, error.to_string()))
}

fn required(why: &str) -> Refusal {
    let words = format!(
        "{why}; log in with {} (user and password), {PLAIN} (the same, over TLS) or {EXTERNAL} (client certificate)",
        scram::MECHANISM
    );
    Refusal::Said(ErrorBody::not_done(ErrorCode::LoginRequired, words))
}

/// The same words whether it is the user or the password.
fn login_refused() -> ErrorBody {
    let words = "the login was refused: there is no such user, or the password is another";
    ErrorBody::not_done(ErrorCode::LoginRefused, words)
}
