//! The client's side of an exchange.

use subtle::ConstantTimeEq;

use super::keys::{self, Key, SaltedPassword, hash, hmac, xor};
use super::text::{attribute, decode, decode_key, encode, escape, text};
use super::{RANDOM_BYTES, ScramError};
use crate::names::UserName;

/// The header without channel binding, and the same in base64.
const HEADER: &str = "n,,";
const HEADER_BASE64: &str = "biws";

/// What the client says first.
#[derive(Clone, Debug)]
pub struct ClientFirst {
    bare: String,
    nonce: String,
}

impl ClientFirst {
    /// Begins an exchange; `nonce` are fresh random bytes.
    #[must_use]
    pub fn new(user: &UserName, nonce: [u8; RANDOM_BYTES]) -> ClientFirst {
        ClientFirst::with_nonce(user.as_str(), encode(&nonce))
    }

    pub(super) fn with_nonce(user: &str, nonce: String) -> ClientFirst {
        ClientFirst { bare: format!("n={},r={nonce}", escape(user)), nonce }
    }

    /// As it is sent.
    #[must_use]
    pub fn message(&self) -> String {
        format!("{HEADER}{}", self.bare)
    }

    /// Reads what the broker answers.
    ///
    /// # Errors
    /// It is not an answer to this message, or asks for fewer or more iterations than a client should compute.
    pub fn challenged(self, server_first: &[u8]) -> Result<Challenge, ScramError> {
        let server_first = text(server_first)?;
        let mut parts = server_first.split(',');
        let nonce = attribute(parts.next(), "r=")?.to_owned();
        let salt = decode(attribute(parts.next(), "s=")?)?;
        let iterations = attribute(parts.next(), "i=")?
            .parse()
            .map_err(|_| ScramError::Malformed("the number of iterations is no number"))?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError::Malformed("the nonce does not go on with the client's"));
        }
        // A broker that asks for few rounds wants a proof that is quickly guessed from, one that asks for many wants our time.
        keys::check(&salt, iterations)?;
        let without_proof = format!("c={HEADER_BASE64},r={nonce}");
        let signed = format!("{},{server_first},{without_proof}", self.bare);
        Ok(Challenge { salt, iterations, without_proof, signed })
    }
}

/// What the broker asks for: a proof with this salt and so many iterations.
#[derive(Clone, Debug)]
pub struct Challenge {
    /// The password's.
    pub salt: Vec<u8>,
    /// Rounds of key derivation.
    pub iterations: u32,
    without_proof: String,
    signed: String,
}

impl Challenge {
    /// The final message, and what the broker has to answer.
    #[must_use]
    pub fn answer(&self, salted: &SaltedPassword) -> (String, Expected) {
        let key = salted.client_key();
        let proof = xor(key, hmac(&hash(&key), self.signed.as_bytes()));
        let message = format!("{},p={}", self.without_proof, encode(&proof));
        (message, Expected(hmac(&salted.server_key(), self.signed.as_bytes())))
    }
}

/// The signature of a broker that holds the user's credentials.
#[derive(Clone, Debug)]
pub struct Expected(Key);

impl Expected {
    /// Checks the broker's last message.
    ///
    /// # Errors
    /// It is not signed with the user's credentials: this is not a broker of the cluster.
    pub fn check(&self, server_final: &[u8]) -> Result<(), ScramError> {
        let mut parts = text(server_final)?.split(',');
        let signature = decode_key(attribute(parts.next(), "v=")?)?;
        match bool::from(signature.ct_eq(&self.0)) {
            true => Ok(()),
            false => Err(ScramError::WrongProof),
        }
    }
}
