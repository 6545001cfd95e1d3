//! Client logins, step by step: every way in, every way to be refused, and that nobody learns who exists.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use proptest::prelude::*;
use weir_auth::scram::{Credential, Verifier, client, mock_salt, server};
use weir_protocol::backend::read::{self, Authentication};
use weir_protocol::sqlstate::SqlState;
use weir_protocol::startup::SecretKey;
use weir_protocol::tag::FromServer;

use super::*;

mod passwords;

const SCRAM: LoginPolicy = LoginPolicy { tls: ClientTls::Off };
const TLS: LoginPolicy = LoginPolicy { tls: ClientTls::Allowed };
const TLS_ONLY: LoginPolicy = LoginPolicy { tls: ClientTls::Required };
const MD5_SALT: [u8; 4] = [7; 4];
const MOCK: &[u8] = b"the process's own secret";
const NOT_BOUND: ChannelBinding = ChannelBinding::NotSupported;

fn bytes(fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    fill(&mut out);
    out
}

fn startup_of(minor: u16, parameters: &[(&str, &str)]) -> Vec<u8> {
    bytes(|out| frontend::startup(ProtocolVersion { major: 3, minor }, parameters, out))
}

fn app() -> Vec<u8> {
    startup_of(0, &[("user", "app"), ("database", "shop")])
}

fn plain(password: &str) -> StoredSecret {
    StoredSecret::Plain(Secret::from(password))
}

fn verifier() -> StoredSecret {
    StoredSecret::Scram(Verifier::from_password(b"pencil", b"of PostgreSQL", 16).unwrap())
}

/// Feeds a login and collects what it says.
struct Talk {
    login: ClientLogin,
    policy: LoginPolicy,
    said: Vec<u8>,
}

impl Talk {
    fn new(policy: LoginPolicy) -> Self {
        Self { login: ClientLogin::new(), policy, said: Vec::new() }
    }

    /// One read that holds all of this; what is to be computed is computed.
    fn hear(&mut self, bytes: &[u8]) -> LoginStep {
        let step = self.hear_only(bytes);
        self.compute(step)
    }

    fn hear_only(&mut self, bytes: &[u8]) -> LoginStep {
        self.said.clear();
        self.login.received(bytes, &self.policy, &mut self.said)
    }

    fn compute(&mut self, step: LoginStep) -> LoginStep {
        let LoginStep::Derive(derivation) = step else { return step };
        self.login.derived(&derivation.run(), &mut self.said)
    }

    fn give(&mut self, secret: Option<StoredSecret>) -> LoginStep {
        self.give_for(Method::Scram, secret)
    }

    fn give_for(&mut self, method: Method, secret: Option<StoredSecret>) -> LoginStep {
        self.said.clear();
        let fresh = Fresh {
            nonce: "the-server-nonce",
            md5_salt: MD5_SALT,
            iterations: 4096,
            derived: None,
            mock_secret: MOCK,
        };
        self.login.ask(method, secret, fresh, &mut self.said)
    }

    /// Sends a PasswordMessage.
    fn answer(&mut self, password: &[u8]) -> LoginStep {
        self.hear(&bytes(|out| frontend::password(password, out)))
    }

    /// Body of the only message that was said.
    fn only(&self, tag: FromServer) -> &[u8] {
        let header = frame::peek(&self.said, frame::MESSAGE_BYTES_MAX).unwrap().unwrap();
        assert_eq!((header.tag, header.total), (tag.byte(), self.said.len()), "{:?}", self.said);
        &self.said[frame::HEADER_BYTES..]
    }

    fn authentication(&self) -> Authentication<'_> {
        read::authentication(self.only(FromServer::Authentication)).unwrap()
    }

    /// Starts with this packet and this secret; the mechanisms have been offered.
    fn offered(policy: LoginPolicy, packet: &[u8], secret: Option<StoredSecret>) -> Self {
        let mut talk = Self::new(policy);
        assert!(matches!(talk.hear(packet), LoginStep::Named { .. }));
        assert_eq!(talk.give(secret), LoginStep::Wait);
        talk
    }

    /// Runs SCRAM as a client that types `password`.
    fn prove(&mut self, password: &str, binding: &ChannelBinding, mechanism: Mechanism) -> LoginStep {
        let credential = Credential::Password { password: Secret::from(password), derived: None };
        let (first, message) = client::first("the-client-nonce", binding, mechanism).unwrap();
        let step = self.hear(&bytes(|out| frontend::sasl_initial_response(mechanism.name(), &message, out)));
        if step != LoginStep::Wait {
            return step;
        }
        let Authentication::SaslContinue(challenge) = self.authentication() else { panic!("no challenge") };
        let (last, message) = first.respond(challenge, &credential).unwrap();
        let step = self.hear(&bytes(|out| frontend::sasl_response(&message, out)));
        if let LoginStep::Admitted(_) = step {
            let Authentication::SaslFinal(outcome) = self.authentication() else { panic!("no outcome") };
            assert!(last.verify(outcome).is_ok());
        }
        step
    }
}

#[track_caller]
fn admitted(step: LoginStep) -> Admitted {
    let LoginStep::Admitted(admitted) = step else { panic!("{step:?}") };
    *admitted
}

/// Checks code and message of a refusal, and that the login is over.
#[track_caller]
fn refused(talk: &mut Talk, step: LoginStep, code: SqlState, message: &str) -> Report {
    let LoginStep::Refused(report) = step else { panic!("{step:?}") };
    assert_eq!((report.code, report.severity), (code, weir_protocol::message::Severity::Fatal), "{report}");
    assert!(report.message.contains(message), "{report}");
    assert_eq!(talk.hear(&app()), LoginStep::Close);
    assert_eq!(talk.give(None), LoginStep::Close);
    report
}

#[test]
fn trust_admits_at_once_and_keeps_what_came_behind() {
    let query = bytes(|out| frontend::query(b"SELECT 1", out));
    let mut talk = Talk::new(SCRAM);
    assert!(matches!(talk.hear(&[app(), query.clone()].concat()), LoginStep::Named { .. }));
    let guest = admitted(talk.login.admit(None));
    assert_eq!((guest.user.as_str(), guest.database.as_str(), guest.minor), ("app", "shop", 0));
    assert_eq!((guest.keys, guest.password, guest.rest), (None, None, query));
    assert!(talk.said.is_empty());
    assert_eq!(talk.hear(b""), LoginStep::Close);
}

#[test]
fn the_database_defaults_to_the_user() {
    let mut talk = Talk::new(SCRAM);
    assert!(matches!(talk.hear(&startup_of(0, &[("user", "app")])), LoginStep::Named { .. }));
    let guest = admitted(talk.login.admit(None));
    assert_eq!(guest.database, "app");
}

#[test]
fn a_verifier_yields_the_clients_keys() {
    let mut talk = Talk::offered(SCRAM, &app(), Some(verifier()));
    assert_eq!(talk.authentication(), Authentication::Sasl(vec![b"SCRAM-SHA-256"]));
    let guest = admitted(talk.prove("pencil", &NOT_BOUND, Mechanism::Sha256));
    assert_eq!(guest.password, None);

    // With these keys alone one can log in wherever the same verifier is stored.
    let keys = guest.keys.unwrap();
    let (first, message) = client::first("abc", &NOT_BOUND, Mechanism::Sha256).unwrap();
    let StoredSecret::Scram(stored) = verifier() else { panic!() };
    let (exchange, challenge) =
        server::first(&message, stored, "def", &NOT_BOUND, Mechanism::Sha256).unwrap();
    let (_, message) = first.respond(&challenge, &Credential::Keys(keys)).unwrap();
    assert!(exchange.finish(&message).is_ok());
}

#[test]
fn a_plain_password_yields_itself_and_no_keys() {
    let mut talk = Talk::offered(SCRAM, &app(), Some(plain("pencil")));
    let guest = admitted(talk.prove("pencil", &NOT_BOUND, Mechanism::Sha256));
    assert_eq!((guest.keys, guest.password), (None, Some(Secret::from("pencil"))));
}

#[test]
fn bytes_may_come_one_by_one() {
    let mut talk = Talk::new(SCRAM);
    let packet = app();
    let (last, head) = packet.split_last().unwrap();
    for byte in head {
        assert_eq!(talk.hear(&[*byte]), LoginStep::Wait);
    }
    let wanted = LoginStep::Named { user: "app".into(), database: "shop".into() };
    assert_eq!(talk.hear(&[*last]), wanted);
    assert_eq!(talk.give(Some(plain("pencil"))), LoginStep::Wait);
    let response = bytes(|out| frontend::sasl_initial_response("SCRAM-SHA-256", b"n,,n=,r=abc", out));
    for byte in &response {
        assert!(talk.said.is_empty() || byte == &response[0]);
        assert_eq!(talk.hear(&[*byte]), LoginStep::Wait);
    }
    assert!(matches!(talk.authentication(), Authentication::SaslContinue(_)));
}

/// All that a client sees of a login that ends with 28P01: two challenges' worth of bytes and the report.
fn failed_login(user: &str, secret: Option<StoredSecret>) -> (Vec<u8>, Vec<u8>, Report) {
    let mut talk = Talk::offered(SCRAM, &startup_of(0, &[("user", user)]), secret);
    let offer = talk.said.clone();
    let (_, message) = client::first("abc", &NOT_BOUND, Mechanism::Sha256).unwrap();
    talk.hear(&bytes(|out| frontend::sasl_initial_response("SCRAM-SHA-256", &message, out)));
    let challenge = talk.said.clone();
    let proof = format!("c=biws,r=abcthe-server-nonce,p={}=", "A".repeat(43));
    let step = talk.hear(&bytes(|out| frontend::sasl_response(proof.as_bytes(), out)));
    assert!(talk.said.is_empty());
    let report = refused(&mut talk, step, SqlState::INVALID_PASSWORD, "password authentication failed");
    (offer, challenge, report)
}

#[test]
fn an_unknown_user_looks_like_a_wrong_password() {
    let salted = Verifier::from_password(b"pencil", &mock_salt(MOCK, "app"), 4096).unwrap();
    let unknown = failed_login("app", None);
    assert_eq!(unknown.2.message, "password authentication failed for user \"app\"");
    assert_eq!((unknown.2.detail.clone(), unknown.2.hint.clone()), (None, None));
    assert_eq!(unknown, failed_login("app", None), "a second try shows the same salt");
    assert_eq!(unknown, failed_login("app", Some(StoredSecret::Scram(salted))));
    assert_eq!(unknown, failed_login("app", Some(plain("pencil"))));
    assert_eq!(unknown, failed_login("app", Some(StoredSecret::Md5(Secret::from("md5 of something")))));
    let known =
        failed_login("app", Some(StoredSecret::Scram(Verifier::mock(b"as PostgreSQL's", "app", 4096))));
    assert_eq!((known.0, known.1.len(), known.2), (unknown.0, unknown.1.len(), unknown.2));
    let other = failed_login("bob", None);
    assert_ne!(other.1, unknown.1, "another user has another salt");
}

/// What comes with the right proof, and with a query behind it.
fn last_words(talk: &mut Talk, password: &str) -> Vec<u8> {
    let credential = Credential::Password { password: Secret::from(password), derived: None };
    let (first, message) = client::first("abc", &NOT_BOUND, Mechanism::Sha256).unwrap();
    talk.hear(&bytes(|out| frontend::sasl_initial_response("SCRAM-SHA-256", &message, out)));
    let Authentication::SaslContinue(challenge) = talk.authentication() else { panic!("no challenge") };
    let (_, message) = first.respond(challenge, &credential).unwrap();
    bytes(|out| {
        frontend::sasl_response(&message, out);
        frontend::query(b"SELECT 1", out);
    })
}

#[test]
fn the_verifier_of_a_stored_password_is_computed_when_there_is_a_proof_to_hold_against_it() {
    for (typed, fits) in [("pencil", true), ("Pencil", false)] {
        let mut talk = Talk::offered(SCRAM, &app(), Some(plain("pencil")));
        let words = last_words(&mut talk, typed);
        let step = talk.hear_only(&words);
        let LoginStep::Derive(derivation) = step else { panic!("{step:?}") };
        assert_eq!(derivation.password(), &Secret::from("pencil"));
        assert_eq!(talk.hear_only(b"more"), LoginStep::Wait, "nothing happens meanwhile");
        let step = talk.compute(LoginStep::Derive(derivation));
        if fits {
            let guest = admitted(step);
            assert_eq!(guest.password, Some(Secret::from("pencil")));
            assert!(guest.rest.starts_with(b"Q") && guest.rest.ends_with(b"more"));
        } else {
            assert!(matches!(step, LoginStep::Refused(_)), "{step:?}");
        }
    }
    // Known from an earlier login, it costs nothing.
    let mut talk = Talk::new(SCRAM);
    talk.hear(&app());
    let derived = Verifier::from_password(b"pencil", &mock_salt(MOCK, "app"), 16).ok();
    let fresh = Fresh { nonce: "n", md5_salt: MD5_SALT, iterations: 4096, derived, mock_secret: MOCK };
    assert_eq!(talk.login.ask(Method::Scram, Some(plain("pencil")), fresh, &mut talk.said), LoginStep::Wait);
    let words = last_words(&mut talk, "pencil");
    assert!(matches!(talk.hear_only(&words), LoginStep::Admitted(_)));
}

#[test]
fn a_result_that_nobody_asked_for_changes_nothing() {
    let derived = || Derivation::new(Secret::from("pencil"), b"of PostgreSQL", 16).run();
    let mut talk = Talk::offered(SCRAM, &app(), Some(verifier()));
    assert_eq!(talk.login.derived(&derived(), &mut talk.said), LoginStep::Wait);
    admitted(talk.prove("pencil", &NOT_BOUND, Mechanism::Sha256));
    assert_eq!(talk.login.derived(&derived(), &mut talk.said), LoginStep::Close);
}

#[test]
fn a_wrong_password_is_refused_with_postgresqls_words() {
    for (secret, typed) in [(plain("pencil"), "Pencil"), (verifier(), ""), (plain(""), "x")] {
        let mut talk = Talk::offered(SCRAM, &app(), Some(secret));
        let step = talk.prove(typed, &NOT_BOUND, Mechanism::Sha256);
        refused(
            &mut talk,
            step,
            SqlState::INVALID_PASSWORD,
            "password authentication failed for user \"app\"",
        );
    }
}

#[test]
fn encryption_requests_are_answered() {
    let (ssl, gss) = (bytes(frontend::ssl_request), bytes(frontend::gssenc_request));
    let mut talk = Talk::new(SCRAM);
    assert_eq!((talk.hear(&ssl), talk.said.as_slice()), (LoginStep::Wait, b"N".as_slice()));
    assert_eq!((talk.hear(&gss), talk.said.as_slice()), (LoginStep::Wait, b"N".as_slice()));
    assert!(matches!(talk.hear(&app()), LoginStep::Named { .. }));

    let mut talk = Talk::new(TLS_ONLY);
    assert_eq!((talk.hear(&gss), talk.said.as_slice()), (LoginStep::Wait, b"N".as_slice()));
    assert_eq!((talk.hear(&ssl), talk.said.as_slice()), (LoginStep::StartTls, b"S".as_slice()));
    talk.login.tls_started(true);
    assert!(matches!(talk.hear(&app()), LoginStep::Named { .. }));

    // A client that began with TLS at once (libpq's sslnegotiation=direct).
    let mut talk = Talk::new(TLS_ONLY);
    talk.login.tls_started(true);
    assert!(matches!(talk.hear(&app()), LoginStep::Named { .. }));
}

#[test]
fn an_encryption_request_is_answered_once() {
    let (ssl, gss) = (bytes(frontend::ssl_request), bytes(frontend::gssenc_request));
    for request in [&ssl, &gss] {
        let mut talk = Talk::new(SCRAM);
        assert_eq!(talk.hear(request), LoginStep::Wait);
        let step = talk.hear(request);
        refused(&mut talk, step, SqlState::FEATURE_NOT_SUPPORTED, "unsupported frontend protocol 1234.56");

        let mut talk = Talk::new(TLS);
        talk.login.tls_started(true);
        let step = talk.hear(request);
        refused(&mut talk, step, SqlState::FEATURE_NOT_SUPPORTED, "unsupported frontend protocol 1234.56");
    }
}

/// CVE-2021-23214: what is in front of the handshake may come from somebody in between.
#[test]
fn bytes_behind_an_encryption_request_are_refused() {
    for policy in [SCRAM, TLS, TLS_ONLY] {
        let mut talk = Talk::new(policy);
        let step = talk.hear(&[bytes(frontend::ssl_request), app()].concat());
        assert!(talk.said.is_empty());
        let report = refused(
            &mut talk,
            step,
            SqlState::PROTOCOL_VIOLATION,
            "received unencrypted data after SSL request",
        );
        assert!(report.detail.unwrap().contains("man-in-the-middle"));

        let mut talk = Talk::new(policy);
        let step = talk.hear(&[bytes(frontend::gssenc_request), vec![0]].concat());
        refused(&mut talk, step, SqlState::PROTOCOL_VIOLATION, "after GSSAPI encryption request");
    }
    let mut talk = Talk::new(TLS);
    assert_eq!(talk.hear(&bytes(frontend::ssl_request)), LoginStep::StartTls);
    let step = talk.hear(&app());
    refused(&mut talk, step, SqlState::PROTOCOL_VIOLATION, "received unencrypted data");
}

#[test]
fn a_login_in_the_clear_is_refused_where_tls_is_required() {
    for packet in [app(), startup_of(9, &[("user", "app"), ("_pq_.x", "1")])] {
        let mut talk = Talk::new(TLS_ONLY);
        let step = talk.hear(&packet);
        assert!(talk.said.is_empty());
        let report = refused(&mut talk, step, SqlState::INVALID_AUTHORIZATION, "SSL required");
        assert!(report.hint.unwrap().contains("sslmode=require"));
    }
}

#[test]
fn cancel_requests_come_through_even_in_the_clear() {
    let key = BackendKey { pid: 7, secret: SecretKey::new(&[1, 2, 3, 4, 5, 6, 7, 8]).unwrap() };
    let request = bytes(|out| frontend::cancel_request(7, key.secret.as_bytes(), out));
    for policy in [SCRAM, TLS_ONLY] {
        let mut talk = Talk::new(policy);
        assert_eq!(talk.hear(&request), LoginStep::Cancel(key.clone()));
        assert_eq!(talk.hear(&request), LoginStep::Close);
    }
}

#[test]
fn versions_are_negotiated() {
    // Asked for, options, agreed upon; and whether NegotiateProtocolVersion says so.
    let cases: [(u16, &[&str], u16, bool); 8] = [
        (0, &[], 0, false),
        (2, &[], 2, false),
        (1, &[], 0, true),
        (3, &[], 2, true),
        (9, &["_pq_.grease"], 2, true),
        (9999, &["_pq_.a", "_pq_.b"], 2, true),
        (0, &["_pq_.a"], 0, true),
        (2, &["_pq_.a"], 2, true),
    ];
    for (asked, options, agreed, said) in cases {
        let mut parameters = vec![("user", "app")];
        parameters.extend(options.iter().map(|name| (*name, "on")));
        let mut talk = Talk::new(SCRAM);
        assert!(matches!(talk.hear(&startup_of(asked, &parameters)), LoginStep::Named { .. }));
        let guest = admitted(talk.login.admit(None));
        assert_eq!(guest.minor, agreed, "3.{asked}");
        assert_eq!(!talk.said.is_empty(), said, "3.{asked}");
        if said {
            let (version, unknown) =
                read::negotiate_protocol_version(talk.only(FromServer::NegotiateProtocolVersion)).unwrap();
            assert_eq!(version, ProtocolVersion { major: 3, minor: agreed });
            assert_eq!(unknown, options.iter().map(|name| name.as_bytes()).collect::<Vec<_>>());
        }
    }
}

#[test]
fn first_packets_that_cannot_be_read_are_refused() {
    let latin = [&13u32.to_be_bytes()[..], &[0, 3, 0, 0], b"\xe9\0"].concat();
    let cases: [(&[u8], SqlState); 7] = [
        (b"\0\0\0\x04", SqlState::PROTOCOL_VIOLATION),
        (b"GET / HTTP/1.1\r\n\r\n", SqlState::PROTOCOL_VIOLATION),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", SqlState::PROTOCOL_VIOLATION),
        (b"\0\0\0\x08\0\x02\0\0", SqlState::FEATURE_NOT_SUPPORTED),
        (b"\0\0\0\x09\0\x03\0\0\0", SqlState::INVALID_AUTHORIZATION),
        (b"\0\0\0\x09\0\x03\0\0x", SqlState::PROTOCOL_VIOLATION),
        (&[latin, vec![b'x', 0, 0]].concat(), SqlState::CHARACTER_NOT_IN_REPERTOIRE),
    ];
    for (packet, code) in cases {
        let mut talk = Talk::new(SCRAM);
        let step = talk.hear(packet);
        refused(&mut talk, step, code, "");
    }
}

#[test]
fn answers_that_are_no_proof_are_refused() {
    let initial = |mechanism: &str, message: &[u8]| {
        bytes(|out| frontend::sasl_initial_response(mechanism, message, out))
    };
    let scram = |message: &str| initial("SCRAM-SHA-256", message.as_bytes());
    let cases = [
        (
            bytes(|out| frontend::query(b"SELECT 1", out)),
            SqlState::PROTOCOL_VIOLATION,
            "expected SASL response",
        ),
        (b"\xff".to_vec(), SqlState::PROTOCOL_VIOLATION, "expected SASL response"),
        (b"p\0\0\x04\x01".to_vec(), SqlState::PROTOCOL_VIOLATION, "longer"),
        (b"p\0\0\0\x03".to_vec(), SqlState::PROTOCOL_VIOLATION, "length"),
        (
            bytes(|out| frontend::password(b"pencil", out)),
            SqlState::PROTOCOL_VIOLATION,
            "SASLInitialResponse",
        ),
        (
            initial("SCRAM-SHA-1", b"n,,n=,r=abc"),
            SqlState::PROTOCOL_VIOLATION,
            "invalid SASL authentication mechanism",
        ),
        (initial("SCRAM-SHA-256-PLUS", b"n,,n=,r=abc"), SqlState::PROTOCOL_VIOLATION, "invalid SASL"),
        (scram("garbage"), SqlState::PROTOCOL_VIOLATION, "malformed SCRAM message"),
        (scram("n,a=root,n=,r=abc"), SqlState::FEATURE_NOT_SUPPORTED, "authorization identity"),
        (scram("n,,m=1,n=,r=abc"), SqlState::FEATURE_NOT_SUPPORTED, "extension"),
    ];
    for (answer, code, message) in cases {
        let mut talk = Talk::offered(SCRAM, &app(), Some(plain("pencil")));
        let step = talk.hear(&answer);
        refused(&mut talk, step, code, message);
    }
    let proofs = [
        ("garbage", SqlState::PROTOCOL_VIOLATION, "malformed SCRAM message"),
        ("c=biws,r=abc,p=", SqlState::PROTOCOL_VIOLATION, "malformed SCRAM message"),
        ("c=biws,r=abcX,p=", SqlState::PROTOCOL_VIOLATION, "nonce does not match"),
        ("c=eSws,r=abcthe-server-nonce,p=", SqlState::PROTOCOL_VIOLATION, "channel binding check failed"),
    ];
    for (start, code, message) in proofs {
        let mut talk = Talk::offered(SCRAM, &app(), Some(plain("pencil")));
        assert_eq!(talk.hear(&scram("n,,n=,r=abc")), LoginStep::Wait);
        let end = if start.ends_with("r=abc,p=") { "AAAA".into() } else { format!("{}=", "A".repeat(43)) };
        let step = talk.hear(&bytes(|out| frontend::sasl_response(format!("{start}{end}").as_bytes(), out)));
        refused(&mut talk, step, code, message);
    }
}

#[test]
fn a_client_may_leave_politely() {
    let mut talk = Talk::offered(SCRAM, &app(), None);
    assert_eq!(talk.hear(&bytes(frontend::terminate)), LoginStep::Close);
    assert!(talk.said.is_empty());
}

#[test]
fn the_first_message_may_wait_for_an_empty_challenge() {
    let mut talk = Talk::offered(SCRAM, &app(), Some(plain("pencil")));
    let choice = [b"p\0\0\0\x16SCRAM-SHA-256\0".as_slice(), &(-1i32).to_be_bytes()].concat();
    assert_eq!(talk.hear(&choice), LoginStep::Wait);
    assert_eq!(talk.authentication(), Authentication::SaslContinue(b""));
    assert_eq!(talk.hear(&bytes(|out| frontend::sasl_response(b"n,,n=,r=abc", out))), LoginStep::Wait);
    let Authentication::SaslContinue(challenge) = talk.authentication() else { panic!() };
    assert!(challenge.starts_with(b"r=abcthe-server-nonce,s="));
}

#[test]
fn channel_binding_is_offered_over_tls_only() {
    let end_point = || vec![9; 32];
    let bound = ChannelBinding::ServerEndPoint(end_point());
    let encrypted = || {
        let mut talk = Talk::new(TLS);
        talk.login.tls_started(true);
        talk.login.offer_binding(end_point());
        assert!(matches!(talk.hear(&app()), LoginStep::Named { .. }));
        talk.give(Some(verifier()));
        talk
    };
    let mut talk = encrypted();
    let both = vec![b"SCRAM-SHA-256-PLUS".as_slice(), b"SCRAM-SHA-256"];
    assert_eq!(talk.authentication(), Authentication::Sasl(both));
    admitted(talk.prove("pencil", &bound, Mechanism::Sha256Plus));
    admitted(encrypted().prove("pencil", &NOT_BOUND, Mechanism::Sha256));

    let mut talk = encrypted();
    let other = ChannelBinding::ServerEndPoint(vec![1; 32]);
    let step = talk.prove("pencil", &other, Mechanism::Sha256Plus);
    refused(&mut talk, step, SqlState::PROTOCOL_VIOLATION, "channel binding check failed");
    // Somebody removed the offer of -PLUS on its way to the client.
    let mut talk = encrypted();
    let step = talk.prove("pencil", &bound, Mechanism::Sha256);
    refused(&mut talk, step, SqlState::INVALID_AUTHORIZATION, "channel binding negotiation error");

    let mut talk = Talk::new(TLS);
    talk.login.offer_binding(end_point());
    talk.hear(&app());
    talk.give(Some(verifier()));
    assert_eq!(talk.authentication(), Authentication::Sasl(vec![b"SCRAM-SHA-256"]));
}

#[test]
fn nobody_may_fill_the_buffer_before_the_login_is_complete() {
    let mut talk = Talk::new(SCRAM);
    assert!(matches!(talk.hear(&app()), LoginStep::Named { .. }));
    assert_eq!(talk.hear(&vec![0; PENDING_BYTES_MAX]), LoginStep::Wait);
    let step = talk.hear(&[0]);
    refused(&mut talk, step, SqlState::PROTOCOL_VIOLATION, "too much data");
}

#[test]
fn a_secret_that_nobody_asked_for_changes_nothing() {
    let mut talk = Talk::new(SCRAM);
    assert_eq!(talk.give(Some(plain("x"))), LoginStep::Wait);
    assert!(talk.said.is_empty());
    assert!(matches!(talk.hear(&app()), LoginStep::Named { .. }));
}

proptest! {
    #[test]
    fn no_bytes_make_a_login_panic(reads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8)) {
        let (mut first, mut second) = (Talk::new(TLS), Talk::offered(SCRAM, &app(), Some(verifier())));
        for read in &reads {
            let step = first.hear(read);
            prop_assert!(!matches!(step, LoginStep::Admitted(_)));
            prop_assert!(!matches!(second.hear(read), LoginStep::Admitted(_)));
        }
    }

    #[test]
    fn one_altered_byte_never_admits(at in 0usize..200, flip in 1u8..) {
        let mut talk = Talk::offered(SCRAM, &app(), Some(verifier()));
        let credential = Credential::Password { password: Secret::from("pencil"), derived: None };
        let (first, message) = client::first("the-client-nonce", &NOT_BOUND, Mechanism::Sha256).unwrap();
        talk.hear(&bytes(|out| frontend::sasl_initial_response("SCRAM-SHA-256", &message, out)));
        let Authentication::SaslContinue(challenge) = talk.authentication() else { panic!() };
        let (_, message) = first.respond(challenge, &credential).unwrap();
        let mut answer = bytes(|out| frontend::sasl_response(&message, out));
        prop_assume!(at < answer.len());
        answer[at] ^= flip;
        prop_assert!(!matches!(talk.hear(&answer), LoginStep::Admitted(_)));
    }
}
