//! What administrators do with users.

use bellwether_protocol::client::{Permissions, Request, Response, UserSummary, UserTag};
use bellwether_protocol::names::{UserName, VirtualHost};
use bellwether_protocol::scram::{Credentials, Password};

use crate::client::{Client, unexpected};
use crate::error::{QueryError, Trouble, UserError};

impl Client {
    /// Makes a user who may do nothing yet. The password stays here: what is sent can check it and not make it.
    ///
    /// # Errors
    /// [`UserError`].
    pub async fn add_user(
        &self,
        user: &UserName,
        password: &Password,
        tags: Vec<UserTag>,
    ) -> Result<(), UserError> {
        let (user, credentials) = (user.clone(), derive(password).await?);
        self.done(Request::AddUser { user, credentials, tags }).await
    }

    /// Gives a user another password. Connections by the old one end.
    ///
    /// # Errors
    /// [`UserError`].
    pub async fn set_password(
        &self,
        user: &UserName,
        password: &Password,
    ) -> Result<(), UserError> {
        let (user, credentials) = (user.clone(), derive(password).await?);
        self.done(Request::SetPassword { user, credentials }).await
    }

    /// Deletes a user. Its connections end. `force`: also the last administrator.
    ///
    /// # Errors
    /// [`UserError`].
    pub async fn delete_user(&self, user: &UserName, force: bool) -> Result<(), UserError> {
        // Asked again after a lost answer it would be "no such user".
        match self.ask_once(Request::DeleteUser { user: user.clone(), force }).await? {
            Response::Done => Ok(()),
            other => Err(unexpected(&other).into()),
        }
    }

    /// Gives a user other tags, in place of those it had. Holds for connections that are open, too. `force`: also when no
    /// administrator is left then.
    ///
    /// # Errors
    /// [`UserError`].
    pub async fn set_tags(
        &self,
        user: &UserName,
        tags: Vec<UserTag>,
        force: bool,
    ) -> Result<(), UserError> {
        self.done(Request::SetTags { user: user.clone(), tags, force }).await
    }

    /// What the passwords of all users are checked against, in order of name: for a backup. Whoever has it can guess passwords
    /// offline.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn credentials(&self) -> Result<Vec<(UserName, Credentials)>, QueryError> {
        match self.ask(Request::ListCredentials).await? {
            Response::Credentials(credentials) => Ok(credentials),
            other => Err(unexpected(&other).into()),
        }
    }

    /// Makes a user with the password that [`Client::credentials`] were of; it may do nothing yet.
    ///
    /// # Errors
    /// [`UserError`].
    pub async fn restore_user(
        &self,
        user: &UserName,
        credentials: Credentials,
        tags: Vec<UserTag>,
    ) -> Result<(), UserError> {
        self.done(Request::AddUser { user: user.clone(), credentials, tags }).await
    }

    /// Gives a user the password back that [`Client::credentials`] were of. Connections by the present one end.
    ///
    /// # Errors
    /// [`UserError`].
    pub async fn restore_password(
        &self,
        user: &UserName,
        credentials: Credentials,
    ) -> Result<(), UserError> {
        self.done(Request::SetPassword { user: user.clone(), credentials }).await
    }

    /// All users, in order of name.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn users(&self) -> Result<Vec<UserSummary>, QueryError> {
        match self.ask(Request::ListUsers).await? {
            Response::Users(users) => Ok(users),
            other => Err(unexpected(&other).into()),
        }
    }

    /// Says what a user may do in a virtual host; `None`: nothing. Holds for connections that are open, too.
    ///
    /// # Errors
    /// [`UserError`].
    pub async fn set_permissions(
        &self,
        user: &UserName,
        virtual_host: &VirtualHost,
        permissions: Option<Permissions>,
    ) -> Result<(), UserError> {
        let (user, virtual_host) = (user.clone(), virtual_host.clone());
        self.done(Request::SetPermissions { user, virtual_host, permissions }).await
    }

    async fn done(&self, request: Request) -> Result<(), UserError> {
        match self.ask(request).await? {
            Response::Done => Ok(()),
            other => Err(unexpected(&other).into()),
        }
    }
}

async fn derive(password: &Password) -> Result<Credentials, UserError> {
    let password = password.clone();
    let derived =
        tokio::task::spawn_blocking(move || Credentials::derive(&password, rand::random()));
    derived.await.map_err(|error| Trouble::Unknown(error.to_string()).into())
}
