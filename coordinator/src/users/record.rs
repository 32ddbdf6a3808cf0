//! The documents: `/users/<name>` and `/login`. No password is in them, and what is there makes none.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bellwether_protocol::client::{Permissions, UserTag};
use bellwether_protocol::names::VirtualHost;
use bellwether_protocol::scram::Credentials;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::records::{Later, RecordError, UnknownFields};

/// `/users/<name>`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    pub credentials: Credentials,
    pub tags: BTreeSet<UserTag>,
    /// Where it may do what; in virtual hosts that are not named it may do nothing.
    pub permissions: BTreeMap<VirtualHost, Permissions>,
    /// Fields of a later version inside single permissions.
    pub later: Later<(VirtualHost, Permissions)>,
    pub unknown: UnknownFields,
}

/// `/login`: what all brokers have to know for logins to look the same on each.
#[derive(Clone, PartialEq, Eq)]
pub struct LoginRecord {
    /// What the salts of users who do not exist are made of.
    pub decoys: [u8; 32],
    pub unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
struct UserJson {
    mechanism: String,
    salt: String,
    iterations: u32,
    stored_key: String,
    server_key: String,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    permissions: BTreeMap<String, PermissionsJson>,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
struct PermissionsJson {
    configure: String,
    write: String,
    read: String,
    #[serde(flatten)]
    unknown: UnknownFields,
}

#[derive(Serialize, Deserialize)]
struct LoginJson {
    decoys: String,
    #[serde(flatten)]
    unknown: UnknownFields,
}

impl UserRecord {
    /// As it is kept in the coordinator.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let permissions = self.permissions.iter().map(|(host, permissions)| {
            let unknown = self.later.of(&(host.clone(), permissions.clone()));
            let Permissions { configure, write, read } = permissions.clone();
            (host.to_string(), PermissionsJson { configure, write, read, unknown })
        });
        to_bytes(&UserJson {
            mechanism: bellwether_protocol::scram::MECHANISM.to_owned(),
            salt: STANDARD.encode(&self.credentials.salt),
            iterations: self.credentials.iterations,
            stored_key: STANDARD.encode(self.credentials.stored_key),
            server_key: STANDARD.encode(self.credentials.server_key),
            tags: self.tags.iter().map(|tag| tag.name().to_owned()).collect(),
            permissions: permissions.collect(),
            unknown: self.unknown.clone(),
        })
    }

    /// Reads what [`Self::to_bytes`], of this or another version, wrote.
    ///
    /// # Errors
    /// [`RecordError`] says what cannot be read. Such a user must not be let in: what cannot be read may be what was revoked.
    pub fn parse(bytes: &[u8]) -> Result<UserRecord, RecordError> {
        from_json(bytes).map_err(|reason| RecordError { what: "user", reason })
    }
}

fn from_json(bytes: &[u8]) -> Result<UserRecord, String> {
    let json: UserJson = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if json.mechanism != bellwether_protocol::scram::MECHANISM {
        return Err(format!("mechanism {:?} is not known", json.mechanism));
    }
    let credentials = Credentials {
        salt: decode("salt", &json.salt)?,
        iterations: json.iterations,
        stored_key: key("stored_key", &json.stored_key)?,
        server_key: key("server_key", &json.server_key)?,
    };
    credentials.check().map_err(|error| error.to_string())?;
    let tag = |name: String| {
        let known = UserTag::ALL.into_iter().find(|tag| tag.name() == name);
        known.ok_or_else(|| format!("tag {name:?} is not known"))
    };
    let mut later = Later::default();
    let permitted = |(host, json): (String, PermissionsJson)| {
        let host = VirtualHost::new(host).map_err(|error| error.to_string())?;
        let PermissionsJson { configure, write, read, unknown } = json;
        let permitted = (host, Permissions { configure, write, read });
        later.keep(permitted.clone(), unknown);
        Ok(permitted)
    };
    let permissions = json.permissions.into_iter().map(permitted).collect::<Result<_, String>>()?;
    Ok(UserRecord {
        credentials,
        tags: json.tags.into_iter().map(tag).collect::<Result<_, String>>()?,
        permissions,
        later,
        unknown: json.unknown,
    })
}

impl LoginRecord {
    /// As it is kept in the coordinator.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        to_bytes(&LoginJson { decoys: STANDARD.encode(self.decoys), unknown: self.unknown.clone() })
    }

    /// Reads what [`Self::to_bytes`], of this or another version, wrote.
    ///
    /// # Errors
    /// [`RecordError`] says what cannot be read.
    pub fn parse(bytes: &[u8]) -> Result<LoginRecord, RecordError> {
        let read = |bytes| {
            let json: LoginJson =
                serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
            Ok(LoginRecord { decoys: key("decoys", &json.decoys)?, unknown: json.unknown })
        };
        read(bytes).map_err(|reason: String| RecordError { what: "login record", reason })
    }
}

fn to_bytes(json: &impl Serialize) -> Bytes {
    // Maps with text keys, numbers and text: none of it is refused by the JSON writer, and memory does not fail to write.
    Bytes::from(serde_json::to_vec(json).expect("a record is always valid JSON"))
}

fn decode(what: &str, text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|_| format!("{what} is not base64"))
}

fn key(what: &str, text: &str) -> Result<[u8; 32], String> {
    decode(what, text)?.try_into().map_err(|_| format!("{what} has not 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellwether_protocol::scram::Password;

    fn record() -> UserRecord {
        let salted = Password::new("pencil").unwrap().salted(b"0123456789abcdef", 4096).unwrap();
        let all = Permissions { configure: String::new(), write: "a".into(), read: ".*".into() };
        UserRecord {
            credentials: Credentials::of(&salted, b"0123456789abcdef".to_vec(), 4096),
            tags: [UserTag::Administrator].into(),
            permissions: [(VirtualHost::default(), all)].into(),
            later: Later::default(),
            unknown: UnknownFields::new(),
        }
    }

    #[test]
    fn fields_of_a_later_version_survive_in_permissions_that_stay() {
        let mut json: serde_json::Value = serde_json::from_slice(&record().to_bytes()).unwrap();
        json["permissions"]["/"]["topic"] = "eu.*".into();
        let mut user = UserRecord::parse(json.to_string().as_bytes()).unwrap();
        let other = Permissions { configure: "x".into(), write: "x".into(), read: "x".into() };
        user.permissions.insert(VirtualHost::new("other").unwrap(), other.clone());
        let again: serde_json::Value = serde_json::from_slice(&user.to_bytes()).unwrap();
        assert_eq!(again["permissions"]["/"], json["permissions"]["/"]);
        assert_eq!(again["permissions"]["other"].get("topic"), None);
        // Permitted anew, it is what this version knows of.
        user.permissions.insert(VirtualHost::default(), other);
        let again: serde_json::Value = serde_json::from_slice(&user.to_bytes()).unwrap();
        assert_eq!(again["permissions"]["/"].get("topic"), None);
    }

    #[test]
    fn a_user_is_written_without_its_password_and_read_back() {
        let bytes = record().to_bytes();
        assert_eq!(UserRecord::parse(&bytes), Ok(record()));
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        assert!(!text.contains("pencil"), "{text}");
        assert!(
            text.contains(r#""tags":["administrator"],"permissions":{"/":{"configure":"""#),
            "{text}"
        );
    }

    #[test]
    fn fields_of_a_later_version_survive() {
        let text = String::from_utf8(record().to_bytes().to_vec()).unwrap();
        let later = text.replacen('{', r#"{"expires":7,"#, 1);
        let read = UserRecord::parse(later.as_bytes()).unwrap();
        assert!(String::from_utf8(read.to_bytes().to_vec()).unwrap().contains(r#""expires":7"#));
    }

    #[test]
    fn what_is_half_a_user_is_none() {
        let text = String::from_utf8(record().to_bytes().to_vec()).unwrap();
        for (from, to) in [
            ("SCRAM-SHA-256", "MD5"),
            ("\"iterations\":4096", "\"iterations\":1"),
            ("administrator", "root"),
            ("\"stored_key\":\"", "\"stored_key\":\"AA"),
            ("\"salt\":\"", "\"salt\":\"*"),
        ] {
            let wrong = text.replacen(from, to, 1);
            assert!(UserRecord::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_secret_of_decoys_is_read_back() {
        let record = LoginRecord { decoys: [7; 32], unknown: UnknownFields::new() };
        assert!(LoginRecord::parse(&record.to_bytes()).unwrap() == record);
        assert!(LoginRecord::parse(b"{\"decoys\":\"AA==\"}").is_err());
    }
}
