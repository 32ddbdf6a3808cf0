//! `bellwether user`: who may log in, and do what. Through a broker, for administrators; or directly at the ensemble, which is how
//! the first administrator is made.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bellwether_broker::words::in_shell;
use bellwether_client::{Client, Permissions, UserName, UserSummary, UserTag, VirtualHost};
use bellwether_coordinator::coordinator::{Connector as _, Coordinator, ReadError};
use bellwether_coordinator::paths;
use bellwether_coordinator::users::{ApplyError, UserChange, UserError, UserRecord, apply};
use bellwether_coordinator::zookeeper::{ZooKeeperConfig, ZooKeeperConnector};
use bellwether_protocol::scram::Credentials;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::ClientArgs;
use super::login::new_password;
use super::patterns;
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
    /// Write to this ensemble instead of asking a broker: h1:2181,h2:2181/chroot. For the first administrator; nobody logs in,
    /// and brokers write down what was changed but not by whom
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
        /// The new user's name
        name: UserName,
        /// What the user may do besides what its permissions say; may be given more than once
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<Tag>,
        #[command(flatten)]
        password: NewPassword,
    },
    /// Give a user another password; connections by the old one end
    Passwd {
        /// The user's name
        name: UserName,
        #[command(flatten)]
        password: NewPassword,
    },
    /// Say which tags a user has, in place of those it had; none: it has none any more
    Tags {
        /// The user's name
        name: UserName,
        /// What the user may do besides what its permissions say
        #[arg(value_name = "TAG")]
        tags: Vec<Tag>,
        /// The same, as `user add` takes it; may be given more than once
        #[arg(long = "tag", value_name = "TAG")]
        more: Vec<Tag>,
        /// Also when no administrator is left then
        #[arg(long)]
        force: bool,
    },
    /// Delete a user; its connections end
    Delete {
        /// The user's name
        name: UserName,
        /// Also the last administrator
        #[arg(long)]
        force: bool,
    },
    /// List the users and what they may do
    List,
    /// Say what a user may do in the virtual host (--vhost), in place of what it could before
    #[command(
        after_help = "A PATTERN is a regular expression over whole names: orders is just that, orders.* all that begin with it, .* everything. What is not given permits nothing."
    )]
    Permit {
        /// The user's name
        name: UserName,
        /// Queues and exchanges it may declare and delete
        #[arg(long, value_name = "PATTERN", default_value = "", hide_default_value = true)]
        configure: String,
        /// Exchanges it may publish to; queues it may publish to by name, or bind
        #[arg(long, value_name = "PATTERN", default_value = "", hide_default_value = true)]
        write: String,
        /// Queues it may consume, browse and purge; exchanges it may bind queues to
        #[arg(long, value_name = "PATTERN", default_value = "", hide_default_value = true)]
        read: String,
    },
    /// Take all of a user's permissions in the virtual host (--vhost) away
    Deny {
        /// The user's name
        name: UserName,
    },
}

/// Where a new password comes from.
#[derive(Args, Debug)]
struct NewPassword {
    /// File with the new password in its first line; - is standard input [default: asked on the terminal, or else standard
    /// input]. Not --password-file, which is of who logs in
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
    let Some((name, change)) = wanted(&args)? else {
        return list(&users(&args).await?, json);
    };
    let words = change.words(name, &args.client.vhost);
    for pattern in change.patterns() {
        if let Some(warning) = patterns::not_a_regular_expression(pattern) {
            eprintln!("warning: {warning}");
        }
    }
    let value = change.as_json(name, &args.client.vhost);
    let itself = change.cuts_off() && args.client.login.user.as_ref() == Some(name);
    match session(&args).await? {
        Some(session) => write(&args, &session, name, change).await?,
        None => ask(&args.client.client().await?, &args, name, change).await?,
    }
    if json {
        return print_json(&value);
    }
    print_line(&words)?;
    if args.zookeeper.is_some() {
        eprintln!(
            "Written at the ensemble itself: the brokers' audit lines say what was changed of user {name}, and not by whom."
        );
    }
    if itself && args.zookeeper.is_none() {
        print_line("This command was logged in as that user: its connections have ended")?;
    }
    Ok(())
}

/// Who is to be changed, and how; nothing for a list.
fn wanted(args: &UserArgs) -> Result<Option<(&UserName, Change)>, Failure> {
    let tags_of = |tags: &[Tag]| tags.iter().copied().map(UserTag::from).collect::<Vec<_>>();
    Ok(Some(match &args.command {
        UserCommand::List => return Ok(None),
        UserCommand::Add { name, tags, password } => {
            let password = password.take(args, name)?;
            (name, Change::Add(password, tags_of(tags)))
        }
        UserCommand::Passwd { name, password } => {
            (name, Change::Password(password.take(args, name)?))
        }
        UserCommand::Tags { name, tags, more, force } => {
            let mut all = tags_of(tags);
            all.extend(tags_of(more));
            all.sort_unstable();
            all.dedup();
            (name, Change::Tags(all, *force))
        }
        UserCommand::Delete { name, force } => (name, Change::Delete(*force)),
        UserCommand::Permit { name, configure, write, read } => {
            let of = |pattern: &String| pattern.clone();
            let permissions =
                Permissions { configure: of(configure), write: of(write), read: of(read) };
            (name, Change::Permissions(Some(permissions)))
        }
        UserCommand::Deny { name } => (name, Change::Permissions(None)),
    }))
}

impl NewPassword {
    /// The password, from where it was said to be.
    fn take(
        &self,
        args: &UserArgs,
        user: &UserName,
    ) -> Result<bellwether_client::Password, Failure> {
        let login = args.client.login.password_file.as_ref();
        // The variable is for whoever logs in, and may be there for other commands; the flag was meant for this one.
        let given = login.filter(|file| {
            std::env::var_os("BELLWETHER_PASSWORD_FILE").is_none_or(|set| set != file.as_os_str())
        });
        if self.new_password_file.is_none()
            && (args.zookeeper.is_some() || args.client.login.user.is_none())
            && let Some(file) = given
        {
            return Err(Failure::usage(format!(
                "--password-file is of the user who logs in, and nobody does here: for the new password of {user} give --new-password-file {}",
                in_shell(&file.display().to_string())
            )));
        }
        new_password(user, self.new_password_file.as_deref())
    }
}

/// What is to be changed, with the password not derived yet.
enum Change {
    Add(bellwether_client::Password, Vec<UserTag>),
    Password(bellwether_client::Password),
    /// And whether no administrator may be left.
    Tags(Vec<UserTag>, bool),
    Delete(bool),
    Permissions(Option<Permissions>),
}

impl Change {
    /// What holds when it is done.
    fn words(&self, name: &UserName, host: &VirtualHost) -> String {
        let tags = |tags: &[UserTag]| listed(tags.iter().map(|tag| tag.name()));
        match self {
            Change::Add(_, given) if given.is_empty() => format!(
                "user {name} is added, and may do nothing yet: permit it something with `bellwether user permit {}`",
                in_shell(name.as_str())
            ),
            Change::Add(_, given) => format!(
                "user {name} is added, with the {} {}; what it may do with queues and exchanges is said by `bellwether user permit {}`",
                if given.len() == 1 { "tag" } else { "tags" },
                tags(given),
                in_shell(name.as_str())
            ),
            Change::Password(_) => format!("user {name} has another password"),
            Change::Tags(given, _) if given.is_empty() => {
                format!("user {name} has no tags any more")
            }
            Change::Tags(given, _) => format!("user {name} has these tags now: {}", tags(given)),
            Change::Delete(_) => format!("user {name} is deleted"),
            Change::Permissions(Some(Permissions { configure, write, read })) => {
                let may = |what: &str, pattern: &str| match pattern {
                    "" => format!("{what} nothing"),
                    pattern => format!("{what} {pattern:?}"),
                };
                format!(
                    "user {name} may in virtual host {host} from now on, and no more: {}, {}, {}",
                    may("configure", configure),
                    may("write", write),
                    may("read", read)
                )
            }
            Change::Permissions(None) => {
                format!("user {name} has no permission in virtual host {host} any more")
            }
        }
    }

    fn as_json(&self, name: &UserName, host: &VirtualHost) -> serde_json::Value {
        let mut value = json!({ "user": name.as_str(), "done": true });
        match self {
            Change::Add(_, tags) | Change::Tags(tags, _) => {
                value["tags"] = tags.iter().map(|tag| tag.name()).collect();
            }
            Change::Permissions(permissions) => {
                value["vhost"] = host.as_str().into();
                value["permissions"] = permissions.as_ref().map(|may| {
                    json!({ "configure": may.configure, "write": may.write, "read": may.read })
                }).into();
            }
            Change::Password(_) | Change::Delete(_) => {}
        }
        value
    }

    fn patterns(&self) -> Vec<&str> {
        match self {
            Change::Permissions(Some(Permissions { configure, write, read })) => {
                vec![configure, write, read]
            }
            _ => Vec::new(),
        }
    }

    /// Whether the user's connections end.
    fn cuts_off(&self) -> bool {
        matches!(self, Change::Password(_) | Change::Delete(_))
    }
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
        Change::Tags(tags, force) => client.set_tags(name, tags, force).await?,
        Change::Delete(force) => client.delete_user(name, force).await?,
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
    let (change, force) = match change {
        Change::Add(password, tags) => {
            let (credentials, tags) = (derive(password), tags.into_iter().collect());
            (UserChange::Add { credentials, tags }, true)
        }
        Change::Password(password) => (UserChange::SetPassword(derive(password)), true),
        Change::Tags(tags, force) => (UserChange::SetTags(tags.into_iter().collect()), force),
        Change::Delete(force) => (UserChange::Delete, force),
        Change::Permissions(permissions) => {
            (UserChange::SetPermissions(args.client.vhost.clone(), permissions), true)
        }
    };
    if !force {
        let users = within(args, read_users(&**session)).await.map_err(Failure::NotDone)?;
        if ends_last_administrator(&users.map_err(Failure::not_done)?, name, &change) {
            close(session).await;
            return Err(Failure::not_done(UserError::LastAdministrator(name.clone())));
        }
    }
    let applied = within(args, apply(&**session, name, &change)).await.map_err(Failure::Unknown)?;
    close(session).await;
    applied.map_err(|error| match error {
        ApplyError::Undecided(_) => Failure::Unknown(error.to_string()),
        ApplyError::User(UserError::Pattern(_)) => Failure::usage(error),
        ApplyError::User(_) | ApplyError::Read(_) | ApplyError::Refused(_) => {
            Failure::not_done(error)
        }
    })
}

/// Whether nobody could administrate through a broker any more.
fn ends_last_administrator(users: &[UserSummary], name: &UserName, change: &UserChange) -> bool {
    let stays = match change {
        UserChange::Delete => false,
        UserChange::SetTags(tags) => tags.contains(&UserTag::Administrator),
        UserChange::Add { .. } | UserChange::SetPassword(_) | UserChange::SetPermissions(..) => {
            true
        }
    };
    let mut administrators =
        users.iter().filter(|user| user.tags.contains(&UserTag::Administrator));
    !stays
        && administrators.next().is_some_and(|one| one.user == *name)
        && administrators.next().is_none()
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
    let ensemble = args.zookeeper.as_deref().unwrap_or_default();
    done.map_err(|_| format!("the ensemble {ensemble} did not answer within {patience}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserName {
        UserName::new(name).unwrap()
    }

    fn summary(name: &str, tags: &[UserTag]) -> UserSummary {
        UserSummary { user: user(name), tags: tags.to_vec(), permissions: Vec::new() }
    }

    #[test]
    fn what_a_user_may_do_from_now_on_is_said_as_a_whole() {
        let host = VirtualHost::default();
        let may = |configure: &str, write: &str, read: &str| {
            let of = |pattern: &str| pattern.to_owned();
            let all = Permissions { configure: of(configure), write: of(write), read: of(read) };
            Change::Permissions(Some(all))
        };
        assert_eq!(
            may("", "orders.*", ".*").words(&user("bob"), &host),
            "user bob may in virtual host / from now on, and no more: configure nothing, write \"orders.*\", read \".*\""
        );
        let json = may("", "a", "b").as_json(&user("bob"), &host);
        assert_eq!(json["permissions"]["write"], "a");
        let added = Change::Add(bellwether_client::Password::new("x").unwrap(), Vec::new());
        let words = added.words(&user("bill ing"), &host);
        assert!(words.ends_with("`bellwether user permit 'bill ing'`"), "{words}");
    }

    #[test]
    fn only_the_last_of_the_administrators_is_kept() {
        let root = summary("root", &[UserTag::Administrator]);
        let eye = summary("eye", &[UserTag::Monitoring]);
        let alone = [root.clone(), eye.clone()];
        let ends = |users: &[UserSummary], name: &str, change: &UserChange| {
            ends_last_administrator(users, &user(name), change)
        };
        let untag = UserChange::SetTags([UserTag::Monitoring].into());
        assert!(ends(&alone, "root", &UserChange::Delete) && ends(&alone, "root", &untag));
        assert!(!ends(&alone, "eye", &UserChange::Delete));
        let keeps = UserChange::SetTags(UserTag::ALL.into_iter().collect());
        assert!(!ends(&alone, "root", &keeps));
        let two = [root, summary("second", &[UserTag::Administrator]), eye];
        assert!(!ends(&two, "root", &UserChange::Delete));
    }
}
