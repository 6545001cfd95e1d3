//! Both roles against implementations that were not written by us: scram-rs in both roles, postgres-protocol (the one
//! in tokio-postgres) as client, and its verifiers, pgwire in both roles (without channel binding, which its client lacks).

use std::num::NonZeroU32;

use pgwire::api::auth::sasl::scram::{ScramClientAuth, ScramSecret, ScramServerAuth, gen_salted_password};
use postgres_protocol::authentication::sasl as postgres;
use scram_rs::scram_sync::{SyncScramClient, SyncScramServer};
use scram_rs::{
    ChannelBindType, SCRAM_TYPES, ScramAuthClient, ScramAuthServer, ScramCbHelper, ScramNonce, ScramPassword,
    ScramResult, ScramResultServer, ScramServerDyn, ScramSha256Ring,
};

use super::{
    ChannelBinding, Credential, Keys, Mechanism, NOT_BOUND, SALT, ScramError, Verifier, bound, client,
    keys_of_pencil, password, server, verifier,
};

/// A scram-rs user: a name, a password, and a certificate's hash.
#[derive(Debug, Clone, Copy)]
struct Peer {
    password: &'static str,
    end_point: u8,
}

const PEER: Peer = Peer { password: "pencil", end_point: 7 };

impl ScramAuthClient for Peer {
    fn get_username(&self) -> &str {
        "user"
    }

    fn get_password(&self) -> &str {
        self.password
    }
}

impl ScramAuthServer<ScramSha256Ring> for Peer {
    fn get_password_for_user(&self, _user: &str, _as: Option<&str>) -> ScramResult<ScramPassword> {
        let rounds = NonZeroU32::new(4096).unwrap();
        ScramPassword::found_plaintext_password_with_iterations::<ScramSha256Ring>(
            self.password.as_bytes(),
            rounds,
            None,
        )
    }
}

impl ScramCbHelper for Peer {
    fn get_tls_server_endpoint(&self) -> ScramResult<Vec<u8>> {
        Ok(vec![self.end_point; 32])
    }
}

/// A scram-rs client logs in to our server role.
fn scram_rs_logs_in(peer: Peer, binding: &ChannelBinding, mechanism: Mechanism) -> Result<Keys, ScramError> {
    let bind = match mechanism {
        Mechanism::Sha256 => ChannelBindType::n(),
        Mechanism::Sha256Plus => ChannelBindType::tls_server_endpoint(),
    };
    let mut client =
        SyncScramClient::<ScramSha256Ring, _, _>::new(peer, ScramNonce::none().unwrap(), bind, peer, true)
            .unwrap();
    let message = client.init_client().unwrap_output().unwrap();
    let (exchange, challenge) =
        server::first(message.as_bytes(), verifier(), "3rfcNHYJY1ZVvWVs7j", binding, mechanism)?;
    let text = String::from_utf8(challenge).unwrap();
    let message = client.parse_response(&text).unwrap().unwrap_output().unwrap();
    let proven = exchange.finish(message.as_bytes())?;
    let text = String::from_utf8(proven.message).unwrap();
    assert!(client.parse_response(&text).unwrap().is_final());
    Ok(proven.keys)
}

#[test]
fn scram_rs_as_client() {
    let keys = keys_of_pencil(SALT, 64);
    assert_eq!(scram_rs_logs_in(PEER, &NOT_BOUND, Mechanism::Sha256), Ok(keys.clone()));
    assert_eq!(scram_rs_logs_in(PEER, &bound(), Mechanism::Sha256Plus), Ok(keys));
    let guess = Peer { password: "guess", ..PEER };
    assert_eq!(scram_rs_logs_in(guess, &NOT_BOUND, Mechanism::Sha256), Err(ScramError::WrongProof));
    let elsewhere = Peer { end_point: 8, ..PEER };
    assert_eq!(
        scram_rs_logs_in(elsewhere, &bound(), Mechanism::Sha256Plus),
        Err(ScramError::BindingMismatch)
    );
}

/// Our client role logs in to a scram-rs server.
fn log_in_to_scram_rs(
    credential: &Credential,
    binding: &ChannelBinding,
    mechanism: Mechanism,
) -> Result<super::super::DerivedKeys, String> {
    let kind = SCRAM_TYPES.get_scramtype(mechanism.name()).unwrap();
    let mut server =
        SyncScramServer::<ScramSha256Ring, _, _>::new(PEER, PEER, ScramNonce::none().unwrap(), kind, true)
            .unwrap();
    let (first, message) = client::first_as("user", "rOprNGfwEbeRWgbNEkqO", binding, mechanism).unwrap();
    let challenge = answer(server.parse_response(std::str::from_utf8(&message).unwrap()))?;
    let (last, message) = first.respond(challenge.as_bytes(), credential).unwrap();
    let outcome = answer(server.parse_response(std::str::from_utf8(&message).unwrap()))?;
    last.verify(outcome.as_bytes()).map_err(|error| error.to_string())
}

fn answer(result: ScramResultServer) -> Result<String, String> {
    match result {
        ScramResultServer::Data(text) | ScramResultServer::Final(text) => Ok(text),
        ScramResultServer::Error(error) => Err(error.to_string()),
    }
}

#[test]
fn scram_rs_as_server() {
    let derived = log_in_to_scram_rs(&password("pencil"), &NOT_BOUND, Mechanism::Sha256).unwrap();
    assert_eq!(derived.iterations, 4096);
    assert_eq!(derived.keys, keys_of_pencil(&derived.salt, 4096));
    assert!(log_in_to_scram_rs(&password("pencil"), &bound(), Mechanism::Sha256Plus).is_ok());
    assert!(log_in_to_scram_rs(&password("guess"), &NOT_BOUND, Mechanism::Sha256).is_err());
    let other = ChannelBinding::ServerEndPoint(vec![8; 32]);
    assert!(log_in_to_scram_rs(&password("pencil"), &other, Mechanism::Sha256Plus).is_err());
}

/// The client of tokio-postgres logs in to our server role; like libpq it sends no user name.
fn postgres_protocol_logs_in(
    typed: &str,
    theirs: postgres::ChannelBinding,
    binding: &ChannelBinding,
    mechanism: Mechanism,
) -> Result<Keys, ScramError> {
    let mut client = postgres::ScramSha256::new(typed.as_bytes(), theirs);
    let (exchange, challenge) =
        server::first(client.message(), verifier(), "3rfcNHYJY1ZVvWVs7j", binding, mechanism)?;
    client.update(&challenge).unwrap();
    let proven = exchange.finish(client.message())?;
    client.finish(&proven.message).unwrap();
    Ok(proven.keys)
}

#[test]
fn postgres_protocol_as_client() {
    let keys = keys_of_pencil(SALT, 64);
    let end_point = || postgres::ChannelBinding::tls_server_end_point(vec![7; 32]);
    let unsupported = postgres::ChannelBinding::unsupported;
    let plain = Mechanism::Sha256;
    assert_eq!(postgres_protocol_logs_in("pencil", unsupported(), &NOT_BOUND, plain), Ok(keys.clone()));
    let bound_login = postgres_protocol_logs_in("pencil", end_point(), &bound(), Mechanism::Sha256Plus);
    assert_eq!(bound_login, Ok(keys.clone()));
    let unrequested = postgres::ChannelBinding::unrequested;
    assert_eq!(postgres_protocol_logs_in("pencil", unrequested(), &NOT_BOUND, plain), Ok(keys));
    assert_eq!(
        postgres_protocol_logs_in("pencil", unrequested(), &bound(), plain),
        Err(ScramError::BindingDowngraded)
    );
    assert_eq!(
        postgres_protocol_logs_in("guess", unsupported(), &NOT_BOUND, plain),
        Err(ScramError::WrongProof)
    );
}

#[test]
fn postgres_protocol_makes_the_same_verifiers() {
    for typed in ["pencil", "", "I\u{ad}X caf\u{e9}", "\u{2168}"] {
        let theirs: Verifier = postgres_protocol::password::scram_sha_256(typed.as_bytes()).parse().unwrap();
        assert!(theirs.accepts_password(typed.as_bytes()), "{typed:?}");
    }
}

/// pgwire's client logs in to our server role.
fn pgwire_logs_in(user: &str, typed: &str) -> Result<Keys, ScramError> {
    let client = ScramClientAuth::new(user.to_owned(), typed.to_owned());
    let (message, waiting) = client.build_client_first().unwrap();
    let (exchange, challenge) =
        server::first(message.as_bytes(), verifier(), "3rfcNHYJY1ZVvWVs7j", &NOT_BOUND, Mechanism::Sha256)?;
    let (message, waiting) = waiting.build_client_final(&challenge).unwrap();
    let proven = exchange.finish(message.as_bytes())?;
    waiting.verify_server_final(&proven.message).unwrap();
    Ok(proven.keys)
}

#[test]
fn pgwire_as_client() {
    let keys = keys_of_pencil(SALT, 64);
    for user in ["", "user", "a b"] {
        assert_eq!(pgwire_logs_in(user, "pencil"), Ok(keys.clone()), "{user:?}");
    }
    assert_eq!(pgwire_logs_in("user", "guess"), Err(ScramError::WrongProof));
}

/// Our client role logs in to pgwire's server, which holds a password or only its verifier.
fn log_in_to_pgwire(
    credential: &Credential,
    secret: ScramSecret,
) -> Result<super::super::DerivedKeys, String> {
    let mut server = ScramServerAuth::new();
    server.set_iterations(64);
    let (first, message) = client::first("rOprNGfwEbeRWgbNEkqO", &NOT_BOUND, Mechanism::Sha256).unwrap();
    let answer = server.on_client_first_message_with_secret(&message, secret);
    let (challenge, waiting) = answer.map_err(|error| error.to_string())?;
    let (last, message) = first.respond(challenge.as_bytes(), credential).unwrap();
    let outcome = waiting.on_client_final_message(&message).map_err(|error| error.to_string())?;
    last.verify(outcome.as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn pgwire_as_server() {
    let salted = |typed: &str| gen_salted_password(typed, SALT, 64);
    let plain = || ScramSecret::SaltedPassword { salt: SALT.to_vec(), salted_password: salted("pencil") };
    let stored = || ScramSecret::verifier_from_salted_password(SALT.to_vec(), salted("pencil"), 64);
    let keys = keys_of_pencil(SALT, 64);
    for secret in [&plain as &dyn Fn() -> ScramSecret, &stored] {
        let derived = log_in_to_pgwire(&password("pencil"), secret()).unwrap();
        assert_eq!((&derived.keys, derived.iterations), (&keys, 64));
        assert!(log_in_to_pgwire(&Credential::Keys(keys.clone()), secret()).is_ok(), "passed through");
        assert!(log_in_to_pgwire(&password("guess"), secret()).is_err());
    }
}

/// What a client may type is prepared in the same way everywhere (RFC 4013).
#[test]
fn peers_prepare_passwords_as_we_do() {
    for typed in ["pencil", "I\u{ad}X", "\u{2168}", "\u{aa}", "caf\u{e9}", "cafe\u{301}", "a\u{a0}b"] {
        let verifier = Verifier::from_password(typed.as_bytes(), SALT, 64).unwrap();
        let salted = gen_salted_password(typed, SALT, 64);
        let theirs = ScramSecret::verifier_from_salted_password(SALT.to_vec(), salted, 64);
        let credential = Credential::Password { password: crate::Secret::from(typed), derived: None };
        assert!(log_in_to_pgwire(&credential, theirs).is_ok(), "{typed:?}");
        let mut client =
            postgres::ScramSha256::new(typed.as_bytes(), postgres::ChannelBinding::unsupported());
        let (exchange, challenge) =
            server::first(client.message(), verifier, "server", &NOT_BOUND, Mechanism::Sha256).unwrap();
        client.update(&challenge).unwrap();
        assert!(exchange.finish(client.message()).is_ok(), "{typed:?}");
    }
}
