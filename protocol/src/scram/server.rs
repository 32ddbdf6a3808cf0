//! The broker's side of an exchange. It costs a few HMACs, whether the user exists or not.

use subtle::ConstantTimeEq;

use super::keys::{Credentials, hash, hmac, xor};
use super::text::{attribute, decode_key, encode, text, unescape};
use super::{RANDOM_BYTES, ScramError};
use crate::names::UserName;

/// What a client has said first.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Who it says it is.
    pub user: UserName,
    bare: String,
    nonce: String,
    /// The header as the final message has to repeat it.
    header: String,
}

impl Asked {
    /// Reads the client's first message.
    ///
    /// # Errors
    /// It is none, asks for channel binding, or wants to act for another user.
    pub fn read(client_first: &[u8]) -> Result<Asked, ScramError> {
        let mut parts = text(client_first)?.splitn(3, ',');
        let binding = parts.next().unwrap_or_default();
        // `y`: the client could bind to a channel and believes that the broker cannot. It is right.
        if !matches!(binding, "n" | "y") {
            return Err(ScramError::Malformed("channel binding is not supported"));
        }
        let other_user = parts.next() != Some("");
        let bare = parts.next().ok_or(ScramError::Malformed("it ends too early"))?;
        if other_user {
            return Err(ScramError::Malformed("acting for another user is not supported"));
        }
        let mut attributes = bare.split(',');
        let name = unescape(attribute(attributes.next(), "n=")?)?;
        let user =
            UserName::new(name).map_err(|_| ScramError::Malformed("no user has such a name"))?;
        let nonce = attribute(attributes.next(), "r=")?;
        if nonce.is_empty() || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ScramError::Malformed("the nonce is empty or not printable"));
        }
        let (bare, nonce) = (bare.to_owned(), nonce.to_owned());
        Ok(Asked { user, bare, nonce, header: format!("{binding},,") })
    }

    /// The answer, and what the client's final message is checked with. `nonce` are fresh random bytes.
    #[must_use]
    pub fn challenge(
        self,
        credentials: Credentials,
        nonce: [u8; RANDOM_BYTES],
    ) -> (String, Pending) {
        self.challenge_with(credentials, &encode(&nonce))
    }

    pub(super) fn challenge_with(self, credentials: Credentials, nonce: &str) -> (String, Pending) {
        let nonce = format!("{}{nonce}", self.nonce);
        let (salt, iterations) = (encode(&credentials.salt), credentials.iterations);
        let message = format!("r={nonce},s={salt},i={iterations}");
        let signed = format!("{},{message}", self.bare);
        let without_proof = format!("c={},r={nonce}", encode(self.header.as_bytes()));
        (message, Pending { credentials, signed, without_proof })
    }
}

/// An exchange that waits for the client's final message.
#[derive(Clone, Debug)]
pub struct Pending {
    credentials: Credentials,
    signed: String,
    without_proof: String,
}

impl Pending {
    /// Checks the proof; gives the last message, which proves to the client that the broker holds its credentials.
    ///
    /// # Errors
    /// [`ScramError::WrongProof`]: it is not the user's password, or the messages were changed on their way.
    pub fn finish(&self, client_final: &[u8]) -> Result<String, ScramError> {
        let client_final = text(client_final)?;
        let (without_proof, proof) =
            client_final.rsplit_once(",p=").ok_or(ScramError::Malformed("the proof is missing"))?;
        let proof = decode_key(proof)?;
        let signed = format!("{},{without_proof}", self.signed);
        let signature = hmac(&self.credentials.stored_key, signed.as_bytes());
        let fits = hash(&xor(proof, signature)).ct_eq(&self.credentials.stored_key);
        // Extensions may stand between nonce and proof; what stands before them is given.
        let rest = without_proof.strip_prefix(self.without_proof.as_str());
        let repeats = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(','));
        if !bool::from(fits) || !repeats {
            return Err(ScramError::WrongProof);
        }
        let server_signature = hmac(&self.credentials.server_key, signed.as_bytes());
        Ok(format!("v={}", encode(&server_signature)))
    }
}
