//! Users in a backup of definitions: with their permissions in all virtual hosts, and what their passwords are checked against, as it
//! stands in the coordinator. The passwords themselves nobody has.

use std::collections::{BTreeMap, BTreeSet};

use bellwether_client::{Client, UserName};
use bellwether_coordinator::records::UnknownFields;
use bellwether_coordinator::users::UserRecord;
use serde_json::Value;

use crate::outcome::Failure;

/// Users by name, each as its document in the coordinator.
pub type Users = BTreeMap<String, Value>;

/// What has to be done to a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    Made(UserName, UserRecord),
    /// It is there as it was, but for permissions that it lacks: as a restore leaves it that was interrupted.
    Permitted(UserName, UserRecord),
    /// It is there and differs: what it is now, and what it becomes.
    Replaced(UserName, Box<UserRecord>, UserRecord),
}

/// All users of the cluster.
pub async fn read(client: &Client) -> Result<BTreeMap<UserName, UserRecord>, Failure> {
    let credentials: BTreeMap<_, _> = client.credentials().await?.into_iter().collect();
    let mut users = BTreeMap::new();
    for summary in client.users().await? {
        // One that was made or deleted in between belongs to the next backup.
        let Some(credentials) = credentials.get(&summary.user).cloned() else { continue };
        let record = UserRecord {
            later: Default::default(),
            credentials,
            tags: summary.tags.into_iter().collect(),
            permissions: summary.permissions.into_iter().collect(),
            unknown: UnknownFields::new(),
        };
        users.insert(summary.user, record);
    }
    Ok(users)
}

/// As they stand in a backup.
pub fn to_json(users: &BTreeMap<UserName, UserRecord>) -> Result<Users, Failure> {
    let one = |(name, record): (&UserName, &UserRecord)| {
        Ok((name.to_string(), serde_json::from_slice(&record.to_bytes())?))
    };
    users.iter().map(one).collect::<Result<_, serde_json::Error>>().map_err(Failure::not_done)
}

/// What is missing, and what is there and differs.
///
/// # Errors
/// A user of the backup that cannot be read: restored in part it would be another.
pub fn plan(
    wanted: &Users,
    found: &BTreeMap<UserName, UserRecord>,
) -> Result<Vec<Restored>, String> {
    let mut plan = Vec::new();
    for (name, json) in wanted {
        let unreadable = |why: String| format!("user {name} of the backup cannot be read: {why}");
        let user = UserName::new(name).map_err(|error| unreadable(error.to_string()))?;
        let record = UserRecord::parse(json.to_string().as_bytes())
            .map_err(|error| unreadable(error.to_string()))?;
        match found.get(&user) {
            None => plan.push(Restored::Made(user, record)),
            Some(there) if is_same(there, &record) => {}
            Some(there) if lacks_permissions_alone(there, &record) => {
                plan.push(Restored::Permitted(user, record));
            }
            Some(there) => {
                plan.push(Restored::Replaced(user, Box::new(there.clone()), record));
            }
        }
    }
    Ok(plan)
}

fn is_same(one: &UserRecord, other: &UserRecord) -> bool {
    let parts =
        |user: &UserRecord| (user.credentials.clone(), user.tags.clone(), user.permissions.clone());
    parts(one) == parts(other)
}

/// Whether nothing is there that is not in the backup, and nothing is missing but permissions.
fn lacks_permissions_alone(there: &UserRecord, wanted: &UserRecord) -> bool {
    let mut permissions = there.permissions.iter();
    there.credentials == wanted.credentials
        && there.tags == wanted.tags
        && permissions.all(|(host, permissions)| wanted.permissions.get(host) == Some(permissions))
}

impl Restored {
    /// What differs, for who has not said --replace.
    pub fn difference(&self) -> Option<String> {
        let Restored::Replaced(name, there, wanted) = self else { return None };
        let mut what = Vec::new();
        if there.credentials != wanted.credentials {
            what.push("another password");
        }
        if there.tags != wanted.tags {
            what.push("other tags");
        }
        if there.permissions != wanted.permissions {
            what.push("other permissions");
        }
        Some(format!("user {name} has {} here than in the backup", what.join(", ")))
    }

    /// Makes it so. Each step can be done again, so that an interrupted restore can.
    pub async fn carry_out(&self, client: &Client) -> Result<(), Failure> {
        let (name, wanted) = match self {
            Restored::Made(name, wanted) => {
                let (credentials, tags) = (wanted.credentials.clone(), tags(wanted));
                client.restore_user(name, credentials, tags).await?;
                (name, wanted)
            }
            Restored::Permitted(name, wanted) => (name, wanted),
            Restored::Replaced(name, there, wanted) => {
                let kept: BTreeSet<_> = wanted.permissions.keys().collect();
                for host in there.permissions.keys().filter(|host| !kept.contains(host)) {
                    client.set_permissions(name, host, None).await?;
                }
                if there.tags != wanted.tags {
                    client.set_tags(name, tags(wanted), false).await?;
                }
                (name, wanted)
            }
        };
        for (host, permissions) in &wanted.permissions {
            client.set_permissions(name, host, Some(permissions.clone())).await?;
        }
        // Last: it cuts off who is logged in by the present password, and that may be who restores.
        if let Restored::Replaced(name, there, wanted) = self
            && there.credentials != wanted.credentials
        {
            client.restore_password(name, wanted.credentials.clone()).await?;
        }
        Ok(())
    }

    /// Whose.
    pub fn user(&self) -> &UserName {
        match self {
            Restored::Made(name, _)
            | Restored::Permitted(name, _)
            | Restored::Replaced(name, ..) => name,
        }
    }
}

fn tags(record: &UserRecord) -> Vec<bellwether_client::UserTag> {
    record.tags.iter().copied().collect()
}

#[cfg(test)]
mod tests {
    use bellwether_client::{Credentials, Password, Permissions, UserTag, VirtualHost};

    use super::*;

    fn record(password: &str, write: &str) -> UserRecord {
        let salt = *b"0123456789abcdef";
        let salted = Password::new(password).unwrap().salted(&salt, 4096).unwrap();
        let permissions =
            Permissions { configure: String::new(), write: write.into(), read: String::new() };
        UserRecord {
            later: Default::default(),
            credentials: Credentials::of(&salted, salt.to_vec(), 4096),
            tags: [UserTag::Monitoring].into(),
            permissions: [(VirtualHost::default(), permissions)].into(),
            unknown: UnknownFields::new(),
        }
    }

    fn users(records: &[(&str, UserRecord)]) -> BTreeMap<UserName, UserRecord> {
        records
            .iter()
            .map(|(name, record)| (UserName::new(name).unwrap(), record.clone()))
            .collect()
    }

    #[test]
    fn what_is_there_is_left_alone_what_is_missing_is_made_and_what_differs_is_named() {
        let ours = users(&[("a", record("one", "x")), ("b", record("one", "x"))]);
        let wanted = to_json(&ours).unwrap();
        assert!(!serde_json::to_string(&wanted).unwrap().contains("\"one\""));
        assert_eq!(plan(&wanted, &ours), Ok(Vec::new()));
        let missing = plan(&wanted, &users(&[("a", record("one", "x"))])).unwrap();
        assert!(matches!(&missing[..], [Restored::Made(name, _)] if name.as_str() == "b"));
        let there = users(&[("a", record("two", "y")), ("b", record("one", "x"))]);
        let different = plan(&wanted, &there).unwrap();
        let words = different[0].difference().unwrap();
        for part in ["user a", "another password", "other permissions"] {
            assert!(words.contains(part), "{words}");
        }
        assert!(!words.contains("tags"), "{words}");
    }

    /// It was "different" at the second run of a restore that was interrupted between the two steps, and everything was refused.
    #[test]
    fn a_user_that_was_made_and_not_yet_permitted_is_no_other_user() {
        let ours = users(&[("a", record("one", "x"))]);
        let wanted = to_json(&ours).unwrap();
        let mut half = ours.clone();
        for record in half.values_mut() {
            record.permissions.clear();
        }
        let plan_of = |there| plan(&wanted, there).unwrap();
        let again = plan_of(&half);
        assert!(matches!(&again[..], [Restored::Permitted(name, _)] if name.as_str() == "a"));
        assert_eq!(again[0].difference(), None);
        // With a permission that the backup does not know it is another one.
        let more = users(&[("a", record("one", "y"))]);
        assert!(plan_of(&more)[0].difference().is_some());
    }

    #[test]
    fn half_a_user_is_none() {
        let mut wanted = to_json(&users(&[("a", record("one", "x"))])).unwrap();
        wanted.get_mut("a").unwrap()["tags"] = serde_json::json!(["root"]);
        let error = plan(&wanted, &BTreeMap::new()).unwrap_err();
        assert!(error.contains("user a") && error.contains("root"), "{error}");
    }
}
