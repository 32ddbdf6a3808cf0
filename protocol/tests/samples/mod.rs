//! One frame of each kind, request and answer, by the name under which golden.txt and docs/protocol.md show it.

mod broker;
mod client;
mod peer;

use std::sync::LazyLock;

use bellwether_protocol::client::Permissions;
use bellwether_protocol::error::{BrokerAddress, ErrorBody, ErrorCode};
use bellwether_protocol::headers::{HeaderValue, Headers};
use bellwether_protocol::ids::*;
use bellwether_protocol::message::MessageBlock;
use bellwether_protocol::names::*;
use bellwether_protocol::scram::{Credentials, Password};
use bytes::Bytes;
use uuid::Uuid;

pub use broker::broker_frames;
pub use client::client_frames;
pub use peer::peer_frames;

pub fn name<T: std::str::FromStr<Err = InvalidName>>(text: &str) -> T {
    text.parse().unwrap()
}

fn queue() -> QueueId {
    QueueId(Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff))
}

fn cluster() -> ClusterId {
    ClusterId(Uuid::from_u128(0xc0c0_c0c0_c0c0_40c0_80c0_c0c0_c0c0_c0c0))
}

fn store() -> StoreId {
    StoreId(Uuid::from_u128(0x5151_5151_5151_4151_8151_5151_5151_5151))
}

fn life() -> BrokerLife {
    BrokerLife { broker: BrokerId(1), incarnation: Incarnation(0x0123_4567_89ab_cdef) }
}

fn member() -> Member {
    Member { broker: BrokerId(2), store: store() }
}

fn address(broker: u32) -> BrokerAddress {
    BrokerAddress { broker: BrokerId(broker), address: format!("127.0.0.1:{}", 7670 + broker) }
}

fn messages() -> MessageBlock {
    let mut headers = Headers::default();
    headers.0.insert("trace".into(), HeaderValue::Text("t-1".into()));
    let headers = headers.encode().unwrap();
    MessageBlock::from_messages([
        (None, Bytes::from_static(b"hello")),
        (Some(headers), Bytes::from_static(b"world")),
    ])
}

fn not_leader() -> ErrorBody {
    ErrorBody {
        leader: Some(address(2)),
        ..ErrorBody::not_done(ErrorCode::NotLeader, "queue \"orders\" is led by broker 2")
    }
}

fn unconfirmed() -> ErrorBody {
    ErrorBody::unknown(ErrorCode::Unconfirmed, "the leader was lost")
}

/// Derived once: on purpose that takes its time.
static CREDENTIALS: LazyLock<Credentials> = LazyLock::new(|| {
    let salted = Password::new("pencil").unwrap().salted(b"0123456789abcdef", 4096).unwrap();
    Credentials::of(&salted, b"0123456789abcdef".to_vec(), 4096)
});

fn credentials() -> Credentials {
    CREDENTIALS.clone()
}

fn permissions() -> Permissions {
    Permissions { configure: String::new(), write: "invoices".into(), read: "orders-.*".into() }
}
