//! SCRAM-SHA-256 (RFC 5802, RFC 7677) without channel binding: how a client proves that it knows a password without sending
//! it, and how the broker proves that it holds the password's verifier. Pure: nonces come in, messages go out.
//!
//! ```text
//! client                                              broker
//!   first:  n,,n=user,r=NONCE ─────────────────────────>
//!   <──────────────────── server first: r=NONCE…,s=SALT,i=N
//!   final:  c=biws,r=NONCE…,p=PROOF ───────────────────>
//!   <────────────────────────── server final: v=SIGNATURE
//! ```

mod client;
mod keys;
mod server;
mod text;

#[cfg(test)]
mod tests;

pub use client::{Challenge, ClientFirst, Expected};
pub use keys::{Credentials, InvalidPassword, Password, SaltedPassword};
pub use server::{Asked, Pending};

/// The mechanism's name in [`crate::client::LoginStart`].
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// Rounds of key derivation for new passwords: some tens of milliseconds of a processor for one guess, also for whoever has
/// stolen the verifiers.
pub const ITERATIONS: u32 = 100_000;

/// Fewest rounds that a verifier may have, as RFC 7677 has it.
pub const ITERATIONS_MIN: u32 = 4_096;

/// Most rounds that a client computes: a broker that asks for billions would keep it busy for hours.
pub const ITERATIONS_MAX: u32 = 2_000_000;

/// Bytes of a new salt, and of a nonce before it is written as text.
pub const RANDOM_BYTES: usize = 18;

/// Longest salt that is taken, in bytes.
pub const SALT_BYTES_MAX: usize = 64;

/// Longest message of an exchange, in bytes: names, nonces and proofs with much to spare.
pub const MESSAGE_BYTES_MAX: usize = 2_048;

/// Why an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// The message is not one of SCRAM, or asks for something that is not supported.
    #[error("the SCRAM message is not understood: {0}")]
    Malformed(&'static str),
    /// The proof, or the signature, is not of the password.
    #[error("the proof does not fit the password")]
    WrongProof,
}
