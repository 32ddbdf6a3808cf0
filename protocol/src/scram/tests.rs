//! The example of RFC 7677, and what must never pass.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::names::UserName;

const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

/// Salt and iterations of the example.
static SALTED: LazyLock<(SaltedPassword, Vec<u8>)> = LazyLock::new(|| {
    let salt = text::decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    (Password::new("pencil").unwrap().salted(&salt, 4096).unwrap(), salt)
});

fn salted() -> (SaltedPassword, Vec<u8>) {
    SALTED.clone()
}

fn exchange() -> (Challenge, Pending) {
    let (salted, salt) = salted();
    let first = ClientFirst::with_nonce("user", CLIENT_NONCE.to_owned());
    assert_eq!(first.message(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    let asked = Asked::read(first.message().as_bytes()).unwrap();
    assert_eq!(asked.user.as_str(), "user");
    let (server_first, pending) =
        asked.challenge_with(Credentials::of(&salted, salt, 4096), SERVER_NONCE);
    assert_eq!(
        server_first,
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    (first.challenged(server_first.as_bytes()).unwrap(), pending)
}

#[test]
fn the_example_of_rfc_7677_comes_out_to_the_byte() {
    let (challenge, pending) = exchange();
    let (client_final, expected) = challenge.answer(&salted().0);
    assert_eq!(client_final, CLIENT_FINAL);
    assert_eq!(pending.finish(client_final.as_bytes()).unwrap(), SERVER_FINAL);
    expected.check(SERVER_FINAL.as_bytes()).unwrap();
}

proptest! {
    #[test]
    fn one_changed_byte_of_the_clients_final_message_fails(at in 0..CLIENT_FINAL.len(), to: u8) {
        let mut changed = CLIENT_FINAL.as_bytes().to_vec();
        prop_assume!(changed[at] != to);
        changed[at] = to;
        prop_assert!(exchange().1.finish(&changed).is_err());
    }

    #[test]
    fn one_changed_byte_of_the_brokers_final_message_fails(at in 0..SERVER_FINAL.len(), to: u8) {
        let mut changed = SERVER_FINAL.as_bytes().to_vec();
        prop_assume!(changed[at] != to);
        changed[at] = to;
        let expected = exchange().0.answer(&salted().0).1;
        prop_assert!(expected.check(&changed).is_err());
    }

    #[test]
    fn no_bytes_are_taken_for_a_proof_and_none_make_it_panic(bytes: Vec<u8>) {
        prop_assert!(exchange().1.finish(&bytes).is_err());
        let first = ClientFirst::with_nonce("user", CLIENT_NONCE.to_owned());
        prop_assert!(first.challenged(&bytes).is_err());
        if let Ok(asked) = Asked::read(&bytes) {
            prop_assert!(bytes.starts_with(b"n,,n=") || bytes.starts_with(b"y,,n="), "{asked:?}");
        }
    }

    #[test]
    fn a_name_survives_its_escapes(name in "[a-z=,ü]{1,20}") {
        let user = UserName::new(&name).unwrap();
        let first = ClientFirst::new(&user, [7; RANDOM_BYTES]);
        prop_assert_eq!(Asked::read(first.message().as_bytes()).unwrap().user, user);
    }
}

#[test]
fn a_final_message_of_one_exchange_is_worth_nothing_in_another() {
    let asked = Asked::read(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO").unwrap();
    let (salted, salt) = salted();
    let (_, other) = asked.challenge_with(Credentials::of(&salted, salt, 4096), "another nonce");
    assert_eq!(other.finish(CLIENT_FINAL.as_bytes()), Err(ScramError::WrongProof));
}

#[test]
fn a_client_computes_neither_too_few_iterations_nor_too_many() {
    for iterations in ["1", "4095", "2000001", "4294967295", "99999999999", "-1", ""] {
        let first = ClientFirst::with_nonce("user", "abc".to_owned());
        let message = format!("r=abcdef,s=W22ZaJ0SNY7soEsUEjb6gQ==,i={iterations}");
        assert!(first.challenged(message.as_bytes()).is_err(), "{iterations}");
    }
}

#[test]
fn a_broker_that_repeats_the_clients_nonce_or_brings_its_own_is_not_answered() {
    for nonce in ["abc", "xyzabc", ""] {
        let first = ClientFirst::with_nonce("user", "abc".to_owned());
        let message = format!("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        assert!(first.challenged(message.as_bytes()).is_err(), "{nonce}");
    }
}

#[test]
fn what_is_not_supported_is_refused() {
    for first in
        ["p=tls-unique,,n=u,r=a", "n,a=other,n=u,r=a", "n,,m=x,n=u,r=a", "n,,n=,r=a", "n,,n=u,r="]
    {
        assert!(Asked::read(first.as_bytes()).is_err(), "{first}");
    }
}

#[test]
fn a_decoy_is_the_same_each_time_and_different_for_each_user_and_secret() {
    let decoy = Credentials::decoy(b"secret", "nobody");
    assert_eq!(decoy, Credentials::decoy(b"secret", "nobody"));
    assert_ne!(decoy.salt, Credentials::decoy(b"secret", "somebody").salt);
    assert_ne!(decoy.salt, Credentials::decoy(b"other", "nobody").salt);
    assert_eq!((decoy.salt.len(), decoy.iterations), (RANDOM_BYTES, ITERATIONS));
}

#[test]
fn a_password_is_prepared_checked_and_never_shown() {
    let fits = |one: &str, other: &str| {
        let salted = Password::new(one).unwrap().salted(b"salt", 4096).unwrap();
        let credentials = Credentials::of(&salted, b"salt".to_vec(), 4096);
        credentials.fit(&Password::new(other).unwrap())
    };
    assert!(fits("pencil", "pencil") && !fits("pencil", "pencils"));
    // SASLprep: a soft hyphen is nothing, a Roman numeral is its letters.
    assert!(fits("IX", "I\u{ad}X") && fits("IX", "\u{2168}"));
    assert_eq!(Password::new(""), Err(InvalidPassword::Empty));
    assert_eq!(Password::new("a\u{7}"), Err(InvalidPassword::Forbidden));
    let (salted, salt) = salted();
    let credentials = Credentials::of(&salted, salt, 4096);
    let shown = format!("{:?} {salted:?} {credentials:?}", Password::new("pencil").unwrap());
    assert!(!shown.contains("pencil"), "{shown}");
}
