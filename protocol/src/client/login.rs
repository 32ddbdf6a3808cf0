//! Who a client says it is, and the users that a cluster knows.

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::{Hello, Welcome};
use crate::frame::{FrameError, Problem};
use crate::names::{UserName, VirtualHost};
use crate::scram::Credentials;
use crate::wire::{Items, Reader, Wire, put_array, put_uint, wire_enum, wire_struct};

/// The password crosses the connection: only over TLS.
pub const PLAIN: &str = "PLAIN";
/// The client's certificate says who it is: only over TLS.
pub const EXTERNAL: &str = "EXTERNAL";

/// How a client wants to log in, in its [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginStart {
    /// [`crate::scram::MECHANISM`], [`PLAIN`] or [`EXTERNAL`].
    pub mechanism: String,
    /// The mechanism's first message.
    pub initial_response: LoginData,
}

/// A message of a login mechanism. Not shown: it may be a password.
#[derive(Clone, PartialEq, Eq)]
pub struct LoginData(pub Bytes);

impl fmt::Debug for LoginData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LoginData({} bytes, not shown)", self.0.len())
    }
}

impl From<String> for LoginData {
    fn from(text: String) -> LoginData {
        LoginData(Bytes::from(text))
    }
}

/// What a user may do besides what the permissions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UserTag {
    /// Everything that concerns brokers and users.
    Administrator,
    /// Look at the cluster.
    Monitoring,
}

impl UserTag {
    /// All there are.
    pub const ALL: [UserTag; 2] = [UserTag::Administrator, UserTag::Monitoring];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            UserTag::Administrator => "administrator",
            UserTag::Monitoring => "monitoring",
        }
    }
}

/// What a user may do in one virtual host: regular expressions, each over whole names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permissions {
    /// Queues and exchanges that may be made and deleted.
    pub configure: String,
    /// Exchanges that may be published to, queues that may be bound or published to by name.
    pub write: String,
    /// Queues that may be consumed and purged, exchanges that may be bound to.
    pub read: String,
}

/// A user, without anything that could be used to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSummary {
    /// The name.
    pub user: UserName,
    /// In order.
    pub tags: Vec<UserTag>,
    /// By virtual host, in order.
    pub permissions: Vec<(VirtualHost, Permissions)>,
}

wire_struct!(Permissions { configure, write, read });
wire_struct!(UserSummary { user, tags, permissions });

wire_enum!(UserTag "tag of a user" { Administrator = 1, Monitoring = 2 });

impl Wire for LoginData {
    fn put(&self, out: &mut BytesMut) {
        self.0.put(out);
    }

    fn take(reader: &mut Reader) -> Result<Self, FrameError> {
        Bytes::take(reader).map(LoginData)
    }
}

/// `[salt, iterations, stored key, server key]`
impl Wire for Credentials {
    fn put(&self, out: &mut BytesMut) {
        put_array(out, 4);
        Bytes::copy_from_slice(&self.salt).put(out);
        self.iterations.put(out);
        Bytes::copy_from_slice(&self.stored_key).put(out);
        Bytes::copy_from_slice(&self.server_key).put(out);
    }

    fn take(reader: &mut Reader) -> Result<Self, FrameError> {
        let mut items = Items::begin(reader)?;
        let salt: Bytes = items.next("Credentials.salt")?;
        let credentials = Credentials {
            salt: salt.to_vec(),
            iterations: items.next("Credentials.iterations")?,
            stored_key: items.next_with("Credentials.stored_key", take_key)?,
            server_key: items.next_with("Credentials.server_key", take_key)?,
        };
        items.end()?;
        Ok(credentials)
    }
}

fn take_key(reader: &mut Reader) -> Result<[u8; 32], FrameError> {
    let bytes = Bytes::take(reader)?;
    <[u8; 32]>::try_from(&bytes[..]).map_err(|_| {
        Problem::Limit { what: "bytes of a key", value: bytes.len() as u64, max: 32 }.into()
    })
}

/// The two last fields stand there only when somebody logs in: without them the frame is that of a client that knows no login.
pub(super) fn put_hello(out: &mut BytesMut, kind: u8, hello: &Hello) {
    put_array(out, if hello.login.is_some() { 8 } else { 6 });
    put_uint(out, kind.into());
    let fields: [&dyn Wire; 5] = [
        &hello.version_min,
        &hello.version_max,
        &hello.client_name,
        &hello.heartbeat_ms,
        &hello.virtual_host,
    ];
    fields.iter().for_each(|field| field.put(out));
    if let Some(login) = &hello.login {
        login.mechanism.put(out);
        login.initial_response.put(out);
    }
}

pub(super) fn take_hello(items: &mut Items<'_>) -> Result<Hello, FrameError> {
    let mut hello = Hello {
        version_min: items.next("Hello.version_min")?,
        version_max: items.next("Hello.version_max")?,
        client_name: items.next("Hello.client_name")?,
        heartbeat_ms: items.next("Hello.heartbeat_ms")?,
        virtual_host: items.next("Hello.virtual_host")?,
        login: None,
    };
    let mechanism: Option<String> = items.next_or_default("Hello.mechanism")?;
    if let Some(mechanism) = mechanism {
        let initial_response: Option<LoginData> =
            items.next_or_default("Hello.initial_response")?;
        let initial_response = initial_response.unwrap_or(LoginData(Bytes::new()));
        hello.login = Some(LoginStart { mechanism, initial_response });
    }
    Ok(hello)
}

pub(super) fn put_welcome(out: &mut BytesMut, kind: u8, welcome: &Welcome) {
    put_array(out, 8 + u32::from(welcome.proof.is_some()));
    put_uint(out, kind.into());
    let fields: [&dyn Wire; 7] = [
        &welcome.version,
        &welcome.cluster,
        &welcome.broker,
        &welcome.heartbeat_ms,
        &welcome.frame_bytes_max,
        &welcome.message_bytes_max,
        &welcome.brokers,
    ];
    fields.iter().for_each(|field| field.put(out));
    if let Some(proof) = &welcome.proof {
        proof.put(out);
    }
}

pub(super) fn take_welcome(items: &mut Items<'_>) -> Result<Welcome, FrameError> {
    Ok(Welcome {
        version: items.next("Welcome.version")?,
        cluster: items.next("Welcome.cluster")?,
        broker: items.next("Welcome.broker")?,
        heartbeat_ms: items.next("Welcome.heartbeat_ms")?,
        frame_bytes_max: items.next("Welcome.frame_bytes_max")?,
        message_bytes_max: items.next("Welcome.message_bytes_max")?,
        brokers: items.next("Welcome.brokers")?,
        proof: items.next_or_default("Welcome.proof")?,
    })
}
