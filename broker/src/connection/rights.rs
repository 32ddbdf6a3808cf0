//! What a connection may do, looked at again while it lives: a user that is deleted or gets another password is cut off, and
//! consumers end when they may no longer read.

use std::sync::Arc;

use bellwether_protocol::error::{ErrorBody, ErrorCode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::session::Session;
use crate::shard::input::{ConsumerSink, ShardInput};

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Session<S> {
    /// Takes in what has changed of this connection's user. Costs one load when nothing has.
    ///
    /// # Errors
    /// It is not the user any more who logged in: the connection ends.
    pub(super) async fn heed_users(&mut self) -> Result<(), ErrorBody> {
        let version = self.service.catalog.users_version();
        if version == self.users_version {
            return Ok(());
        }
        let Some(before) = self.access.user().map(Arc::clone) else {
            self.users_version = version;
            return Ok(());
        };
        let users = self.service.catalog.users()?;
        self.users_version = users.version;
        let now = users.get(&before.name).filter(|now| now.is_same_login(&before));
        let Some(now) = now.filter(|now| now.may_enter(&self.host)).map(Arc::clone) else {
            return Err(logged_out(
                users.get(&before.name).is_some_and(|now| now.is_same_login(&before)),
            ));
        };
        if Arc::ptr_eq(&now, &before) {
            return Ok(());
        }
        self.access.replace(now);
        self.end_consumers_that_may_not_read().await;
        Ok(())
    }

    async fn end_consumers_that_may_not_read(&mut self) {
        let rights = Arc::clone(self.access.rights());
        // Settles that came before are still theirs.
        self.send_settles().await;
        for outlet in self.consumers.values().filter(|outlet| !outlet.is_closed()) {
            let Err(refused) = rights.may_read(&outlet.queue_name) else { continue };
            self.service.metrics.access_refused.increment();
            outlet.closed(refused);
            if let Some(queue) = outlet.queue() {
                let shard = self.service.shards.shard_of(queue);
                let detach = ShardInput::Detach { queue, consumer: outlet.key };
                self.service.shards.send(shard, detach).await;
            }
        }
    }
}

fn logged_out(same_login: bool) -> ErrorBody {
    if same_login {
        let words = "the user has no permission in this virtual host any more";
        return ErrorBody::not_done(ErrorCode::AccessRefused, words);
    }
    let words = "the user was deleted, or has another password now";
    ErrorBody::not_done(ErrorCode::LoginRefused, words)
}
