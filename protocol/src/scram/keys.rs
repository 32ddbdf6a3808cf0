//! What is derived from a password: the salted password that a client may keep, and the credentials that the cluster keeps.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{ITERATIONS, ITERATIONS_MAX, ITERATIONS_MIN, RANDOM_BYTES, SALT_BYTES_MAX, ScramError};

/// Longest password in bytes of UTF-8.
const PASSWORD_BYTES_MAX: usize = 1_024;

pub(super) type Key = [u8; 32];

/// A password, prepared as SCRAM has it (SASLprep). Never shown, and wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

/// What is wrong with a password. Does not show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPassword {
    /// There is none.
    #[error("a password may not be empty")]
    Empty,
    /// Too long.
    #[error(
        "a password of {bytes} bytes is too long; {PASSWORD_BYTES_MAX} bytes of UTF-8 are allowed"
    )]
    TooLong {
        /// How long it was.
        bytes: usize,
    },
    /// SASLprep forbids a character of it.
    #[error(
        "a password may not contain control characters or code points that Unicode does not assign"
    )]
    Forbidden,
}

impl Password {
    /// Checks a password and takes it.
    ///
    /// # Errors
    /// [`InvalidPassword`] says what is wrong with it.
    pub fn new(password: &str) -> Result<Password, InvalidPassword> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(InvalidPassword::TooLong { bytes: password.len() });
        }
        let prepared = stringprep::saslprep(password).map_err(|_| InvalidPassword::Forbidden)?;
        if prepared.is_empty() {
            return Err(InvalidPassword::Empty);
        }
        Ok(Password(Zeroizing::new(prepared.into_owned())))
    }

    /// Derives the salted password: slow on purpose, see [`ITERATIONS`].
    ///
    /// # Errors
    /// Salt or iterations are out of their bounds.
    pub fn salted(&self, salt: &[u8], iterations: u32) -> Result<SaltedPassword, ScramError> {
        check(salt, iterations)?;
        let mut key = Zeroizing::new([0; 32]);
        pbkdf2::pbkdf2_hmac::<Sha256>(self.0.as_bytes(), salt, iterations, &mut key[..]);
        Ok(SaltedPassword(key))
    }
}

/// Whether a salt and a number of iterations are within their bounds.
pub(super) fn check(salt: &[u8], iterations: u32) -> Result<(), ScramError> {
    if salt.is_empty() || salt.len() > SALT_BYTES_MAX {
        return Err(ScramError::Malformed("the salt has no bytes, or too many"));
    }
    if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
        return Err(ScramError::Malformed("the number of iterations is too low or too high"));
    }
    Ok(())
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(not shown)")
    }
}

/// What a client may keep so that it need not derive it again. As good as the password for one salt.
#[derive(Clone, PartialEq, Eq)]
pub struct SaltedPassword(Zeroizing<Key>);

impl SaltedPassword {
    pub(super) fn client_key(&self) -> Key {
        hmac(&self.0[..], b"Client Key")
    }

    pub(super) fn server_key(&self) -> Key {
        hmac(&self.0[..], b"Server Key")
    }
}

impl fmt::Debug for SaltedPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SaltedPassword(not shown)")
    }
}

/// What the cluster keeps of a user: enough to check a proof, not enough to make one.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Random, of this password alone.
    pub salt: Vec<u8>,
    /// Rounds of key derivation.
    pub iterations: u32,
    /// Checks the client's proof.
    pub stored_key: Key,
    /// Signs, so that the client can check the broker.
    pub server_key: Key,
}

impl Credentials {
    /// Of a new password. `salt` are fresh random bytes. Slow on purpose.
    #[must_use]
    pub fn derive(password: &Password, salt: [u8; RANDOM_BYTES]) -> Credentials {
        let salted = password.salted(&salt, ITERATIONS).expect("both are within their bounds");
        Credentials::of(&salted, salt.to_vec(), ITERATIONS)
    }

    /// Of a salted password.
    #[must_use]
    pub fn of(salted: &SaltedPassword, salt: Vec<u8>, iterations: u32) -> Credentials {
        let (stored_key, server_key) = (hash(&salted.client_key()), salted.server_key());
        Credentials { salt, iterations, stored_key, server_key }
    }

    /// Stands in for a user who does not exist: the same salt each time, and no password fits. Who asks cannot tell the
    /// difference without `secret`.
    #[must_use]
    pub fn decoy(secret: &[u8], user: &str) -> Credentials {
        let drawn = |what: &[u8]| hmac(secret, &[what, b"\0", user.as_bytes()].concat());
        Credentials {
            salt: drawn(b"salt")[..RANDOM_BYTES].to_vec(),
            iterations: ITERATIONS,
            stored_key: drawn(b"stored key"),
            server_key: drawn(b"server key"),
        }
    }

    /// Whether they have the salt's length and the rounds that all users have. Others would tell whoever asks for a challenge that the user exists:
    /// a [`Credentials::decoy`] has these.
    #[must_use]
    pub fn are_like_all(&self) -> bool {
        self.salt.len() == RANDOM_BYTES && self.iterations == ITERATIONS
    }

    /// Whether they could have been made by this protocol.
    ///
    /// # Errors
    /// Salt or iterations are out of their bounds.
    pub fn check(&self) -> Result<(), ScramError> {
        check(&self.salt, self.iterations)
    }

    /// Whether `password` is theirs. Slow on purpose; takes the same time either way.
    #[must_use]
    pub fn fit(&self, password: &Password) -> bool {
        password
            .salted(&self.salt, self.iterations)
            .is_ok_and(|salted| hash(&salted.client_key()).ct_eq(&self.stored_key).into())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

pub(super) fn hash(bytes: &[u8]) -> Key {
    Sha256::digest(bytes).into()
}

pub(super) fn hmac(key: &[u8], message: &[u8]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

pub(super) fn xor(one: Key, other: Key) -> Key {
    std::array::from_fn(|at| one[at] ^ other[at])
}
