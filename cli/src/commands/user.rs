//! `bellwether user`: who may log in, and do what. Through a broker, for administrators; or directly at the ensemble, which is how
//! the first administrator is made.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bellwether_client::{Client, Permissions, UserName, UserSummary, UserTag};
use bellwether_coordinator::coordinator::{Connector as _, Coordinator, ReadError};
use bellwether_coordinator::paths;
use bellwether_coordinator::users::{ApplyError, UserChange, UserRecord, apply};
use bellwether_coordinator::zookeeper::{ZooKeeperConfig, ZooKeeperConnector};
use bellwether_protocol::scram::Credentials;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::ClientArgs;
use super::login::new_password;
use super::table::{listed, print_json, print_line, print_table, table};
use crate::outcome::Failure;
use crate::serve::coordination::digest;
use crate::serve::settings::ZooKeeperTlsArgs;

/// Session time-out asked of ZooKeeper: long enough for one change on a busy ensemble.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Flags of `user`.
#[derive(Args, Debug)]
pub struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
    /// Write to this ensemble instead of asking a broker: h1:2181,h2:2181/chroot. For the first administrator
    #[arg(long, global = true, value_name = "ENSEMBLE")]
    zookeeper: Option<String>,
    /// Digest credentials for ZooKeeper, user:password, as the brokers have them. Better in the environment
    #[arg(
        long,
        global = true,
        value_name = "AUTH",
        env = "BELLWETHER_ZOOKEEPER_AUTH",
        hide_env_values = true
    )]
    zookeeper_auth: Option<String>,
    #[command(flatten)]
    zookeeper_tls: ZooKeeperTlsArgs,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Subcommand, Debug)]
enum UserCommand {
    /// Make a user, who may do nothing yet; the password is asked for
    Add {
        name: UserName,
        /// What the user may do besides what its permissions say; may be given more than once
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<Tag>,
        #[command(flatten)]
        password: NewPassword,
    },
    /// Give a user another password; connections by the old one end
    Passwd {
        name: UserName,
        #[command(flatten)]
        password: NewPassword,
    },
    /// Say which tags a user has, in place of those it had; none: it has none any more
    Tags {
        name: UserName,
        /// What the user may do besides what its permissions say
        #[arg(value_name = "TAG")]
        tags: Vec<Tag>,
    },
    /// Delete a user; its connections end
    Delete { name: UserName },
    /// List the users and what they may do
    List,
    /// Say what a user may do in the virtual host (--vhost), in place of what it could before
    Permit {
        name: UserName,
        /// Queues and exchanges it may declare and delete: a regular expression over whole names
        #[arg(long, value_name = "PATTERN", default_value = "")]
        configure: String,
        /// Exchanges it may publish to; queues it may publish to by name, or bind
        #[arg(long, value_name = "PATTERN", default_value = "")]
        write: String,
        /// Queues it may consume and purge; exchanges it may bind queues to
        #[arg(long, value_name = "PATTERN", default_value = "")]
        read: String,
    },
    /// Take all of a user's permissions in the virtual host (--vhost) away
    Deny { name: UserName },
}

/// Where a new password comes from.
#[derive(Args, Debug)]
struct NewPassword {
    /// File with the new password in its first line; - is standard input [default: asked on the terminal]
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
}

/// What a user may do besides.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Tag {
    /// Everything that concerns brokers and users
    Administrator,
    /// Look at the cluster
    Monitoring,
}

impl From<Tag> for UserTag {
    fn from(tag: Tag) -> UserTag {
        match tag {
            Tag::Administrator => UserTag::Administrator,
            Tag::Monitoring => UserTag::Monitoring,
        }
    }
}

/// Carries a command out.
pub async fn run(args: UserArgs) -> Result<(), Failure> {
    let json = args.client.json;
    let (name, words, change) = match args.command {
        UserCommand::List => return list(&users(&args).await?, json),
        UserCommand::Add { ref name, ref tags, ref password } => {
            let password = new_password(name, password.new_password_file.as_deref())?;
            let tags: Vec<UserTag> = tags.iter().copied().map(UserTag::from).collect();
            let words = "is added; permit it something with `bellwether user permit`";
            (name, words, Change::Add(password, tags))
        }
        UserCommand::Passwd { ref name, ref password } => {
            let password = new_password(name, password.new_password_file.as_deref())?;
            (name, "has another password", Change::Password(password))
        }
        UserCommand::Tags { ref name, ref tags } => {
            let words = match tags.is_empty() {
                true => "has no tags any more",
                false => "has these tags now",
            };
            (name, words, Change::Tags(tags.iter().copied().map(UserTag::from).collect()))
        }
        UserCommand::Delete { ref name } => (name, "is deleted", Change::Delete),
        UserCommand::Permit { ref name, ref configure, ref write, ref read } => {
            let of = |pattern: &String| pattern.clone();
            let permissions =
                Permissions { configure: of(configure), write: of(write), read: of(read) };
            (name, "has these permissions now", Change::Permissions(Some(permissions)))
        }
        UserCommand::Deny { ref name } => {
            (name, "has no permission in this virtual host any more", Change::Permissions(None))
        }
    };
    match session(&args).await? {
        Some(session) => write(&args, &session, name, change).await?,
        None => ask(&args.client.client().await?, &args, name, change).await?,
    }
    match json {
        true => print_json(&json!({ "user": name.as_str(), "done": true })),
        false => print_line(&format!("user {name} {words}")),
    }
}

/// What is to be changed, with the password not derived yet.
enum Change {
    Add(bellwether_client::Password, Vec<UserTag>),
    Password(bellwether_client::Password),
    Tags(Vec<UserTag>),
    Delete,
    Permissions(Option<Permissions>),
}

async fn ask(
    client: &Client,
    args: &UserArgs,
    name: &UserName,
    change: Change,
) -> Result<(), Failure> {
    match change {
        Change::Add(password, tags) => client.add_user(name, &password, tags).await?,
        Change::Password(password) => client.set_password(name, &password).await?,
        Change::Tags(tags) => client.set_tags(name, tags).await?,
        Change::Delete => client.delete_user(name).await?,
        Change::Permissions(permissions) => {
            client.set_permissions(name, &args.client.vhost, permissions).await?;
        }
    }
    Ok(())
}

async fn write(
    args: &UserArgs,
    session: &Arc<dyn Coordinator>,
    name: &UserName,
    change: Change,
) -> Result<(), Failure> {
    let derive = |password| Credentials::derive(&password, rand::random());
    let change = match change {
        Change::Add(password, tags) => {
            UserChange::Add { credentials: derive(password), tags: tags.into_iter().collect() }
        }
        Change::Password(password) => UserChange::SetPassword(derive(password)),
        Change::Tags(tags) => UserChange::SetTags(tags.into_iter().collect()),
        Change::Delete => UserChange::Delete,
        Change::Permissions(permissions) => {
            UserChange::SetPermissions(args.client.vhost.clone(), permissions)
        }
    };
    let applied = within(args, apply(&**session, name, &change)).await.map_err(Failure::Unknown)?;
    close(session).await;
    applied.map_err(|error| match error {
        ApplyError::Undecided(_) => Failure::Unknown(error.to_string()),
        ApplyError::User(_) | ApplyError::Read(_) | ApplyError::Refused(_) => {
            Failure::not_done(error)
        }
    })
}

async fn users(args: &UserArgs) -> Result<Vec<UserSummary>, Failure> {
    let Some(session) = session(args).await? else {
        return Ok(args.client.client().await?.users().await?);
    };
    let read = within(args, read_users(&*session)).await.map_err(Failure::NotDone)?;
    close(&session).await;
    read.map_err(Failure::not_done)
}

async fn read_users(session: &dyn Coordinator) -> Result<Vec<UserSummary>, ReadError> {
    session.sync().await?;
    let folder = paths::users();
    let mut users = Vec::new();
    for child in session.children(&folder).await? {
        let path = folder.child(&child);
        let name = paths::decode(&child).and_then(|name| UserName::new(name).ok());
        let (Some(user), Some(document)) = (name, session.read(&path).await?) else { continue };
        let record = UserRecord::parse(&document.bytes)
            .map_err(|error| ReadError::Denied(format!("{path}: {error}")))?;
        let tags = record.tags.into_iter().collect();
        users.push(UserSummary {
            user,
            tags,
            permissions: record.permissions.into_iter().collect(),
        });
    }
    users.sort_by(|one, two| one.user.cmp(&two.user));
    Ok(users)
}

/// A session with the ensemble, if one was named.
async fn session(args: &UserArgs) -> Result<Option<Arc<dyn Coordinator>>, Failure> {
    let Some(ensemble) = &args.zookeeper else { return Ok(None) };
    let config = ZooKeeperConfig::new(ensemble, SESSION_TIMEOUT)
        .map_err(|error| Failure::usage(format!("--zookeeper: {error}")))?;
    let config = match &args.zookeeper_auth {
        Some(auth) => config.with_digest(digest(auth)?),
        None => config,
    };
    let config = match args.zookeeper_tls.open()? {
        Some(tls) => config.with_tls(tls),
        None => config,
    };
    let connected =
        within(args, ZooKeeperConnector::new(config).connect()).await.map_err(Failure::NotDone)?;
    connected.map(Some).map_err(Failure::not_done)
}

async fn within<T>(args: &UserArgs, done: impl Future<Output = T>) -> Result<T, String> {
    let patience = args.client.timeout;
    let done = tokio::time::timeout(patience.0, done).await;
    done.map_err(|_| format!("the ensemble did not answer within {patience}"))
}

/// It ends by itself a little later otherwise.
async fn close(session: &Arc<dyn Coordinator>) {
    if let Err(error) = session.close().await {
        tracing::debug!(%error, "the session was not closed");
    }
}

fn list(users: &[UserSummary], json: bool) -> Result<(), Failure> {
    if json {
        let rows = users.iter().map(|user| {
            let permissions = user.permissions.iter().map(|(host, permissions)| {
                let Permissions { configure, write, read } = permissions;
                json!({ "vhost": host.as_str(), "configure": configure, "write": write, "read": read })
            });
            let tags: Vec<&str> = user.tags.iter().map(|tag| tag.name()).collect();
            json!({ "user": user.user.as_str(), "tags": tags, "permissions": permissions.collect::<Vec<_>>() })
        });
        return print_json(&rows.collect());
    }
    let mut rows = table(&["user", "tags", "vhost", "configure", "write", "read"]);
    for user in users {
        let tags = listed(user.tags.iter().map(|tag| tag.name()));
        if user.permissions.is_empty() {
            rows.add_row([user.user.as_str(), &tags, "-", "-", "-", "-"]);
        }
        for (host, Permissions { configure, write, read }) in &user.permissions {
            let shown = |pattern: &str| format!("{pattern:?}");
            let (configure, write, read) = (shown(configure), shown(write), shown(read));
            rows.add_row([user.user.as_str(), &tags, host.as_str(), &configure, &write, &read]);
        }
    }
    print_table(&rows)
}
