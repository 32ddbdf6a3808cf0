//! Prints the bytes of every frame as this version writes them, in the form of tests/golden.txt, for a deliberate change
//! of the protocol: `cargo run -p bellwether-protocol --example golden_table`.

#[path = "../tests/samples/mod.rs"]
mod samples;

use std::fmt::Write;

use bellwether_protocol::Frame;
use bytes::BytesMut;

fn print<F: Frame>(direction: &str, frames: &[(&'static str, F)]) {
    for (name, frame) in frames {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        let mut hex = String::with_capacity(bytes.len() * 2);
        for byte in &bytes {
            write!(hex, "{byte:02x}").expect("a string takes everything");
        }
        println!("{direction} {name}: {hex}");
    }
}

fn main() {
    print("client", &samples::client_frames());
    print("broker", &samples::broker_frames());
    print("peer", &samples::peer_frames());
}
