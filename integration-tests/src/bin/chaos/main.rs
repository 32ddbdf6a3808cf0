//! Placeholder until the client crate is there.
fn main() {}
