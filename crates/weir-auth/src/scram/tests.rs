//! SCRAM against the RFC's example and PostgreSQL's verifiers, with every field altered in turn, and on random bytes.
//! Independent peers are in `peers`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use proptest::prelude::*;

use super::{
    ChannelBinding, Credential, Derivation, ITERATIONS_MAX, Keys, Mechanism, ScramError, Verifier, client,
    mock_salt, nonce, server,
};
use crate::Secret;

mod altered;
mod peers;

const NOT_BOUND: ChannelBinding = ChannelBinding::NotSupported;
const SALT: &[u8] = b"sixteen bytes ..";

fn bound() -> ChannelBinding {
    ChannelBinding::ServerEndPoint(vec![7; 32])
}

fn password(text: &str) -> Credential {
    Credential::Password { password: Secret::from(text), derived: None }
}

fn keys_of_pencil(salt: &[u8], iterations: u32) -> Keys {
    Derivation::new(Secret::from("pencil"), salt, iterations).run().keys
}

fn verifier() -> Verifier {
    Verifier::from_password(b"pencil", SALT, 64).unwrap()
}

/// The example of RFC 7677 section 3.
mod example {
    pub(super) const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    pub(super) const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    pub(super) const SALT: &[u8] =
        &[0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e, 0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36, 0xfa, 0x81];
    pub(super) const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    pub(super) const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    pub(super) const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    pub(super) const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
}

#[test]
fn the_server_role_speaks_the_rfc_example() {
    let verifier = Verifier::from_password(b"pencil", example::SALT, 4096).unwrap();
    let (exchange, challenge) = server::first(
        example::CLIENT_FIRST.as_bytes(),
        verifier,
        example::SERVER_NONCE,
        &NOT_BOUND,
        Mechanism::Sha256,
    )
    .unwrap();
    assert_eq!(String::from_utf8(challenge).unwrap(), example::SERVER_FIRST);
    let proven = exchange.finish(example::CLIENT_FINAL.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(proven.message).unwrap(), example::SERVER_FINAL);
    assert_eq!(proven.keys, keys_of_pencil(example::SALT, 4096));
}

#[test]
fn the_client_role_speaks_the_rfc_example() {
    let (first, message) =
        client::first_as("user", example::CLIENT_NONCE, &NOT_BOUND, Mechanism::Sha256).unwrap();
    assert_eq!(String::from_utf8(message).unwrap(), example::CLIENT_FIRST);
    let (last, message) = first.respond(example::SERVER_FIRST.as_bytes(), &password("pencil")).unwrap();
    assert_eq!(String::from_utf8(message).unwrap(), example::CLIENT_FINAL);
    let derived = last.verify(example::SERVER_FINAL.as_bytes()).unwrap();
    assert_eq!((derived.salt.as_slice(), derived.iterations), (example::SALT, 4096));
}

/// Verifiers that PostgreSQL 15 made (`SELECT rolpassword FROM pg_authid`).
#[test]
fn verifiers_made_by_postgresql_are_read_and_written_back() {
    let of_pencil = "SCRAM-SHA-256$4096:dNRwtCFVcbhvRruxmaX/hw==\
        $wmPvLamL3hBTTPeyHwcONznvUrL35U2LnaE6WnW3mO8=:nomW3BQOoLYFCx7YsxyBWz/NtXLiludnOdoiFShT204=";
    let read: Verifier = of_pencil.parse().unwrap();
    assert_eq!(read.to_postgres_string(), of_pencil);
    assert_eq!(Verifier::from_password(b"pencil", read.salt(), read.iterations()), Ok(read.clone()));
    assert!(read.accepts_password(b"pencil"));
    assert!(!read.accepts_password(b"Pencil"));

    // ALTER ROLE .. PASSWORD U&'I\00ADX caf\00E9': PostgreSQL drops the soft hyphen.
    let prepared: Verifier = "SCRAM-SHA-256$4096:21G/edm4+cRvqFPEEwIbDQ==\
        $6U5buvFnt1uN/0URODpreWkxNgsBKyFkMXmMAo6vNJ0=:Dj+kx/y/BBKwL6Iy9GN34tid/oE/mK2B9WtVQii6wtg="
        .parse()
        .unwrap();
    assert!(prepared.accepts_password("I\u{ad}X caf\u{e9}".as_bytes()));
    assert!(prepared.accepts_password("IX cafe\u{301}".as_bytes()));
    assert!(!prepared.accepts_password(b"IX cafe"));
}

#[test]
fn text_that_is_no_verifier_is_refused() {
    let good = verifier().to_postgres_string();
    let cases = [
        "".to_owned(),
        "SCRAM-SHA-256$".to_owned(),
        good.replace("SHA-256", "SHA-1"),
        good.replace("$64:", "$0:"),
        good.replace("$64:", "$+64:"),
        good.replace("$64:", "$1000001:"),
        good.replace("$64:", "$99999999999:"),
        good.replace("$64:", "$:"),
        good.replace(':', ";"),
        good.replace("=:", ":"),
        good[..good.len() - 1].to_owned(),
        format!("{good} "),
        "SCRAM-SHA-256$64:$AAAA:AAAA".to_owned(),
        "SCRAM-SHA-256$64:c2FsdA==$AAAA:AAAA".to_owned(),
    ];
    for text in cases {
        assert!(text.parse::<Verifier>().is_err(), "{text}");
    }
    assert!(Verifier::from_password(b"p", SALT, 0).is_err());
    assert!(Verifier::from_password(b"p", SALT, ITERATIONS_MAX + 1).is_err());
    assert!(Verifier::from_password(b"p", b"", 1).is_err());
    assert!(Verifier::from_password(b"p", &[0; 257], 1).is_err());
}

#[test]
fn nothing_secret_is_printed() {
    let keys = Keys { client_key: [0xab; 32], server_key: [0xcd; 32] };
    assert_eq!(format!("{keys:?}"), "Keys(..)");
    assert_eq!(format!("{:?}", verifier()), "Verifier { iterations: 64, .. }");
    let shown = format!("{:?}", password("hunter2"));
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn mock_verifiers_are_stable_and_belong_to_one_user_and_process() {
    let mock = Verifier::mock(b"process", "alice", 4096);
    assert_eq!(mock, Verifier::mock(b"process", "alice", 4096));
    assert_ne!(mock.salt(), Verifier::mock(b"process", "bob", 4096).salt());
    assert_ne!(mock.salt(), Verifier::mock(b"another", "alice", 4096).salt());
    assert_eq!(mock.salt(), mock_salt(b"process", "alice"));
    assert_eq!(mock.iterations(), 4096);
    assert!(!mock.accepts_password(b""));
}

#[test]
fn a_nonce_is_as_long_as_postgresql_makes_it() {
    assert_eq!(nonce([0xff; 18]), "////////////////////////");
}

/// One exchange of our two roles, with a chance to alter each message on its way.
fn exchange(
    credential: &Credential,
    alter: impl Fn(Step, Vec<u8>) -> Vec<u8>,
    binding: (&ChannelBinding, &ChannelBinding, Mechanism),
) -> Result<Keys, ScramError> {
    let nonces = ("fyko+d2lbbFgONRv9qkxdawL", "3rfcNHYJY1ZVvWVs7j");
    exchange_with(nonces, credential, &mut |step, message| alter(step, message), binding)
}

fn exchange_with(
    (client_nonce, server_nonce): (&str, &str),
    credential: &Credential,
    alter: &mut dyn FnMut(Step, Vec<u8>) -> Vec<u8>,
    (client_binding, server_binding, mechanism): (&ChannelBinding, &ChannelBinding, Mechanism),
) -> Result<Keys, ScramError> {
    let (first, message) = client::first(client_nonce, client_binding, mechanism)?;
    let message = alter(Step::ClientFirst, message);
    let (exchange, challenge) = server::first(&message, verifier(), server_nonce, server_binding, mechanism)?;
    let (last, message) = first.respond(&alter(Step::ServerFirst, challenge), credential)?;
    let proven = exchange.finish(&alter(Step::ClientFinal, message))?;
    let derived = last.verify(&alter(Step::ServerFinal, proven.message))?;
    assert_eq!(derived.keys, proven.keys);
    Ok(proven.keys)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Step {
    ClientFirst,
    ServerFirst,
    ClientFinal,
    ServerFinal,
}

const CLEAR: (&ChannelBinding, &ChannelBinding, Mechanism) = (&NOT_BOUND, &NOT_BOUND, Mechanism::Sha256);

fn unaltered(_: Step, message: Vec<u8>) -> Vec<u8> {
    message
}

#[test]
fn the_two_roles_understand_each_other() {
    let keys = exchange(&password("pencil"), unaltered, CLEAR).unwrap();
    // What the client revealed is enough to log in again: pass-through.
    assert_eq!(exchange(&Credential::Keys(keys.clone()), unaltered, CLEAR), Ok(keys));
    assert_eq!(exchange(&password("pen"), unaltered, CLEAR), Err(ScramError::WrongProof));
    assert_eq!(exchange(&password(""), unaltered, CLEAR), Err(ScramError::WrongProof));
}

#[test]
fn known_keys_are_used_only_for_their_own_salt_and_iterations() {
    let server_first = |salt: &str, iterations: u32| format!("r=abcdef,s={salt},i={iterations}").into_bytes();
    let start = || client::first("abc", &NOT_BOUND, Mechanism::Sha256).unwrap().0;
    let keys = Keys { client_key: [1; 32], server_key: [2; 32] };
    let known = super::DerivedKeys { salt: b"salt".to_vec(), iterations: 64, keys };
    let credential = Credential::Password { password: Secret::from("pencil"), derived: Some(known) };
    let cached = start().respond(&server_first("c2FsdA==", 64), &credential).unwrap().1;
    let fresh = start().respond(&server_first("c2FsdA==", 64), &password("pencil")).unwrap().1;
    assert_ne!(cached, fresh, "the known keys are used");
    for (salt, iterations) in [("c2FsdA==", 65), ("U2FsdA==", 64)] {
        let cached = start().respond(&server_first(salt, iterations), &credential).unwrap().1;
        let fresh = start().respond(&server_first(salt, iterations), &password("pencil")).unwrap().1;
        assert_eq!(cached, fresh, "{salt} {iterations}");
    }
}

#[test]
fn channel_binding_is_agreed_upon_or_the_exchange_ends() {
    let (plus, plain) = (Mechanism::Sha256Plus, Mechanism::Sha256);
    let other = ChannelBinding::ServerEndPoint(vec![8; 32]);
    let check = |setup: (&ChannelBinding, &ChannelBinding, Mechanism)| {
        exchange(&password("pencil"), unaltered, setup).map(|_| ())
    };
    assert_eq!(check((&bound(), &bound(), plus)), Ok(()));
    assert_eq!(check((&bound(), &other, plus)), Err(ScramError::BindingMismatch));
    // The client could bind, the server did not offer it: flag `y`.
    assert_eq!(check((&bound(), &NOT_BOUND, plain)), Ok(()));
    // The same flag towards a server that did offer it: the offer was removed on the way.
    assert_eq!(check((&bound(), &bound(), plain)), Err(ScramError::BindingDowngraded));
    // A client without TLS data may ignore the offer.
    assert_eq!(check((&NOT_BOUND, &bound(), plain)), Ok(()));
    assert_eq!(check((&NOT_BOUND, &bound(), plus)), Err(ScramError::UnsupportedBinding));
}

#[test]
fn the_mechanism_follows_the_offer() {
    let (plus, plain) = (b"SCRAM-SHA-256-PLUS".as_slice(), b"SCRAM-SHA-256".as_slice());
    assert_eq!(client::choose(&[plus, plain], &NOT_BOUND), Some(Mechanism::Sha256));
    assert_eq!(client::choose(&[plus, plain], &bound()), Some(Mechanism::Sha256Plus));
    assert_eq!(client::choose(&[plain], &bound()), Some(Mechanism::Sha256));
    assert_eq!(client::choose(&[plus], &NOT_BOUND), None);
    assert_eq!(client::choose(&[b"OAUTHBEARER"], &bound()), None);
    assert_eq!(Mechanism::of(b"SCRAM-SHA-1"), None);
}

/// What the server role makes of a client's first message.
fn server_says(message: &[u8], binding: &ChannelBinding, mechanism: Mechanism) -> Result<(), ScramError> {
    server::first(message, verifier(), "server", binding, mechanism).map(|_| ())
}

#[test]
fn first_messages_of_clients() {
    let (plain, plus) = (Mechanism::Sha256, Mechanism::Sha256Plus);
    let malformed = [
        "",
        "n",
        "n,",
        "n,,",
        "n,,n=",
        "n,,n=u",
        "n,,n=u,",
        "n,,n=u,r=",
        "n,,r=abc",
        "n,,n=u,r=a b",
        "x,,n=,r=abc",
        "n,b=x,n=,r=abc",
        "n,,n=,r=abc,",
        "n,,n=,r=abc,1=2",
        "n,,n=,r=abc,xyz",
        "n,,n=,r=a\u{e9}",
        "n,,n=,r=a\0c",
        "N,,n=,r=abc",
        ",,n=,r=abc",
        "nn,,n=,r=abc",
        "p=tls-server-end-point,,n=,r=abc",
        "p=,,n=,r=abc",
    ];
    for message in malformed {
        let outcome = server_says(message.as_bytes(), &NOT_BOUND, plain);
        assert!(matches!(outcome, Err(ScramError::Malformed(_))), "{message}: {outcome:?}");
    }
    let others = [
        ("n,,n=,r=abc", plain, Ok(())),
        ("n,,n=\u{e9}=2C,r=abc,x=y", plain, Ok(())),
        ("n,a=root,n=,r=abc", plain, Err(ScramError::AuthorizationIdentity)),
        ("n,,m=1,n=,r=abc", plain, Err(ScramError::MandatoryExtension)),
        ("y,,n=,r=abc", plain, Err(ScramError::BindingDowngraded)),
        ("p=tls-unique,,n=,r=abc", plus, Err(ScramError::UnsupportedBinding)),
        ("p=tls-server-end-point,,n=,r=abc", plus, Ok(())),
    ];
    for (message, mechanism, expected) in others {
        assert_eq!(server_says(message.as_bytes(), &bound(), mechanism), expected, "{message}");
    }
    for message in ["n,,n=,r=abc", "y,,n=,r=abc"] {
        let outcome = server_says(message.as_bytes(), &bound(), plus);
        assert!(matches!(outcome, Err(ScramError::Malformed(_))), "{message}: {outcome:?}");
    }
    let long = format!("n,,n={},r=abc", "u".repeat(5000));
    assert!(matches!(server_says(long.as_bytes(), &NOT_BOUND, plain), Err(ScramError::Malformed(_))));
}

#[test]
fn nonces_of_our_own_must_be_usable() {
    for bad in ["", "a,b", "a b", "\u{e9}"] {
        let client = client::first(bad, &NOT_BOUND, Mechanism::Sha256).map(|_| ());
        let server =
            server::first(b"n,,n=,r=abc", verifier(), bad, &NOT_BOUND, Mechanism::Sha256).map(|_| ());
        assert_eq!((client, server), (Err(ScramError::UnusableNonce), Err(ScramError::UnusableNonce)));
    }
}

#[test]
fn final_messages_of_clients() {
    let proof = "A".repeat(43) + "=";
    let cases = [
        (format!("c=biws,r=abcserver,p={proof}"), ScramError::WrongProof),
        (format!("c=biws,r=abcserver,x=y,p={proof}"), ScramError::WrongProof),
        (format!("c=biws,r=abcServer,p={proof}"), ScramError::NonceMismatch),
        (format!("c=biws,r=abc,p={proof}"), ScramError::NonceMismatch),
        (format!("c=eSws,r=abcserver,p={proof}"), ScramError::BindingMismatch),
        (format!("r=abcserver,c=biws,p={proof}"), ScramError::Malformed("the channel binding is missing")),
        (format!("c=biws,p={proof}"), ScramError::Malformed("the nonce is missing")),
        (format!("c=biws,r=abcserver,p={proof},x=y"), ScramError::Malformed("the proof is missing")),
        ("c=biws,r=abcserver".into(), ScramError::Malformed("the proof is missing")),
        ("".into(), ScramError::Malformed("the proof is missing")),
        ("c=biws,r=abcserver,p=AAAA".into(), ScramError::Malformed("the proof is not 32 bytes in base64")),
        ("c=biws,r=abcserver,p=@".into(), ScramError::Malformed("the proof is not 32 bytes in base64")),
    ];
    for (message, expected) in cases {
        let (exchange, _) =
            server::first(b"n,,n=,r=abc", verifier(), "server", &NOT_BOUND, Mechanism::Sha256).unwrap();
        assert_eq!(exchange.finish(message.as_bytes()).map(|_| ()), Err(expected), "{message}");
    }
}

#[test]
fn messages_of_servers() {
    let respond = |message: &str| {
        let (first, _) = client::first("abc", &NOT_BOUND, Mechanism::Sha256).unwrap();
        first.respond(message.as_bytes(), &password("pencil")).map(|_| ())
    };
    assert_eq!(respond("r=abcdef,s=c2FsdA==,i=1"), Ok(()));
    assert_eq!(respond("r=abcdef,s=c2FsdA==,i=1,x=y"), Ok(()));
    // A nonce that is not ours, or not longer than ours, is a replay.
    for message in
        ["r=zzz,s=c2FsdA==,i=1", "r=abc,s=c2FsdA==,i=1", "r=ab,s=c2FsdA==,i=1", "r=abc d,s=c2FsdA==,i=1"]
    {
        assert_eq!(respond(message), Err(ScramError::NonceMismatch), "{message}");
    }
    assert_eq!(respond("r=abcdef,s=c2FsdA==,i=0"), Err(ScramError::Iterations(0)));
    assert_eq!(respond("r=abcdef,s=c2FsdA==,i=1000001"), Err(ScramError::Iterations(1_000_001)));
    assert_eq!(respond("m=x,r=abcdef,s=c2FsdA==,i=1"), Err(ScramError::MandatoryExtension));
    for message in [
        "",
        "r=abcdef",
        "r=abcdef,s=c2FsdA==",
        "s=c2FsdA==,r=abcdef,i=1",
        "r=abcdef,s=,i=1",
        "r=abcdef,s=@,i=1",
        "r=abcdef,s=c2FsdA==,i=+1",
        "r=abcdef,s=c2FsdA==,i=",
        "r=abcdef,s=c2FsdA==,i=99999999999",
        "e=other-error",
    ] {
        assert!(matches!(respond(message), Err(ScramError::Malformed(_))), "{message}");
    }
    let verify = |message: &str| {
        let (first, _) = client::first("abc", &NOT_BOUND, Mechanism::Sha256).unwrap();
        let (last, _) = first.respond(b"r=abcdef,s=c2FsdA==,i=1", &password("pencil")).unwrap();
        last.verify(message.as_bytes()).map(|_| ())
    };
    assert_eq!(verify("e=invalid-proof"), Err(ScramError::RefusedByServer));
    assert_eq!(verify(&format!("v={}=", "A".repeat(43))), Err(ScramError::WrongServerProof));
    for message in ["", "v=", "v=AAAA", "x=y"] {
        assert!(matches!(verify(message), Err(ScramError::Malformed(_))), "{message}");
    }
}

proptest! {
    #[test]
    fn no_bytes_of_a_peer_make_us_panic(message in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = server::first(&message, verifier(), "server", &bound(), Mechanism::Sha256Plus);
        let (exchange, _) =
            server::first(b"n,,n=,r=abc", verifier(), "server", &NOT_BOUND, Mechanism::Sha256).unwrap();
        prop_assert!(exchange.finish(&message).is_err());
        let (first, _) = client::first("abc", &NOT_BOUND, Mechanism::Sha256).unwrap();
        prop_assert!(first.respond(&message, &password("pencil")).is_err());
    }

    #[test]
    fn no_shape_of_a_message_makes_us_panic(message in "[nyp]?[=,a-z]{0,6},?,?([a-z]=[a-zA-Z0-9+/=]{0,9},?){0,5}") {
        let _ = server::first(message.as_bytes(), verifier(), "server", &NOT_BOUND, Mechanism::Sha256);
        let (first, _) = client::first("abc", &NOT_BOUND, Mechanism::Sha256).unwrap();
        let _ = first.respond(message.as_bytes(), &Credential::Keys(Keys { client_key: [0; 32], server_key: [0; 32] }));
    }

    #[test]
    fn verifiers_survive_their_text(password: Vec<u8>, salt in proptest::collection::vec(any::<u8>(), 1..40)) {
        let verifier = Verifier::from_password(&password, &salt, 2).unwrap();
        prop_assert!(verifier.accepts_password(&password));
        prop_assert_eq!(verifier.to_postgres_string().parse(), Ok(verifier));
    }

    #[test]
    fn no_text_makes_the_verifier_panic(text in ".{0,80}", rest in "[0-9:$=A-Za-z+/]{0,80}") {
        let _ = text.parse::<Verifier>();
        let _ = format!("SCRAM-SHA-256${rest}").parse::<Verifier>();
    }
}
