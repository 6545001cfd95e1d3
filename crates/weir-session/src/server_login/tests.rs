//! Logins to PostgreSQL, step by step, against a server that is played here: every method, the fence, and what must
//! not happen in between.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod binding;

use proptest::prelude::*;
use weir_auth::scram::server::{self, Exchange};
use weir_auth::scram::{Mechanism, Verifier};
use weir_protocol::backend::{self, Column};
use weir_protocol::message::{Report, Severity};
use weir_protocol::sqlstate::SqlState;
use weir_protocol::startup::{FirstPacket, first_packet};

use super::*;

const CLUSTER: u64 = 7_412_345_678_901_234_567;
const PRIMARY: Fence = Fence::Primary { expect_timeline: Some(5), expect_system: Some(CLUSTER) };
const NOT_BOUND: ChannelBinding = ChannelBinding::NotSupported;

fn bytes(fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    fill(&mut out);
    out
}

fn password(text: &str) -> Option<ServerSecret> {
    Some(ServerSecret::password(Secret::from(text)))
}

fn verifier() -> Verifier {
    Verifier::from_password(b"pencil", b"of PostgreSQL", 16).unwrap()
}

/// Keys of `pencil` for [`verifier`].
fn keys() -> Keys {
    let (first, message) = client::first("abc", &NOT_BOUND, Mechanism::Sha256).unwrap();
    let (exchange, challenge) =
        server::first(&message, verifier(), "def", &NOT_BOUND, Mechanism::Sha256).unwrap();
    let credential = Credential::Password { password: Secret::from("pencil"), derived: None };
    exchange.finish(&first.respond(&challenge, &credential).unwrap().1).unwrap().keys
}

fn ok() -> Vec<u8> {
    bytes(backend::authentication_ok)
}

fn ready_for_query() -> Vec<u8> {
    bytes(|out| backend::ready_for_query(b'I', out))
}

/// From AuthenticationOk to ReadyForQuery.
fn welcome(standby: Option<&str>) -> Vec<u8> {
    bytes(|out| {
        backend::authentication_ok(out);
        backend::parameter_status(b"server_version", b"17.2", out);
        if let Some(value) = standby {
            backend::parameter_status(b"in_hot_standby", value.as_bytes(), out);
        }
        backend::parameter_status(b"TimeZone", b"UTC", out);
        backend::backend_key_data(4711, &[1, 2, 3, 4], out);
        backend::ready_for_query(b'I', out);
    })
}

/// The row that answers the fence's question.
fn row(values: &[Option<&str>]) -> Vec<u8> {
    let values: Vec<_> = values.iter().map(|value| value.map(str::as_bytes)).collect();
    bytes(|out| {
        backend::row_description(&[Column::boolean("r")], out);
        backend::data_row(&values, out);
        backend::command_complete("SELECT 1", out);
        backend::ready_for_query(b'I', out);
    })
}

/// Feeds a login and collects what it says.
struct Talk {
    login: ServerLogin,
    said: Vec<u8>,
}

impl Talk {
    fn new(secret: Option<ServerSecret>, fence: Fence) -> Self {
        let mut said = Vec::new();
        let credential = ServerCredential { user: "app".into(), secret };
        let login =
            ServerLogin::start("shop", &[("application_name", "weir")], credential, "abc", fence, &mut said);
        Self { login, said }
    }

    fn hear(&mut self, bytes: &[u8]) -> ServerStep {
        self.said.clear();
        let step = self.login.received(bytes, &mut self.said);
        let ServerStep::Derive(derivation) = step else { return step };
        assert!(self.said.is_empty(), "there is nothing to say yet");
        self.login.derived(derivation.run(), &mut self.said);
        ServerStep::Wait
    }

    #[track_caller]
    fn ready(&mut self, bytes: &[u8]) -> Ready {
        let step = self.hear(bytes);
        let ServerStep::Ready(ready) = step else { panic!("{step:?}") };
        *ready
    }

    #[track_caller]
    fn failed(&mut self, bytes: &[u8]) -> LoginFailure {
        let ServerStep::Failed(failure) = self.hear(bytes) else { panic!("it did not fail") };
        assert_eq!(self.hear(&welcome(Some("off"))), ServerStep::Wait, "it is over");
        assert!(self.said.is_empty());
        failure
    }

    fn said_body(&self) -> &[u8] {
        let header = frame::peek(&self.said, frame::MESSAGE_BYTES_MAX).unwrap().unwrap();
        assert_eq!(header.total, self.said.len());
        &self.said[frame::HEADER_BYTES..]
    }

    /// Up to our proof, which is left in `said`.
    fn challenged(secret: Option<ServerSecret>) -> (Self, Exchange) {
        let mut talk = Self::new(secret, Fence::None);
        assert_eq!(
            talk.hear(&bytes(|out| backend::authentication_sasl(&["SCRAM-SHA-256"], out))),
            ServerStep::Wait
        );
        let (mechanism, message) = frontend::read::sasl_initial_response(talk.said_body()).unwrap();
        assert_eq!(mechanism, b"SCRAM-SHA-256");
        let (exchange, challenge) =
            server::first(message.unwrap(), verifier(), "def", &NOT_BOUND, Mechanism::Sha256).unwrap();
        let step = talk.hear(&bytes(|out| backend::authentication_sasl_continue(&challenge, out)));
        assert_eq!(step, ServerStep::Wait);
        (talk, exchange)
    }
}

fn sasl_final(message: &[u8]) -> Vec<u8> {
    bytes(|out| backend::authentication_sasl_final(message, out))
}

#[test]
fn the_startup_packet_names_user_and_database() {
    let talk = Talk::new(None, Fence::None);
    let Some((FirstPacket::Startup(startup), used)) = first_packet(&talk.said).unwrap() else { panic!() };
    assert_eq!(
        (used, startup.version, startup.user(), startup.database()),
        (talk.said.len(), ProtocolVersion::V3_0, "app", "shop")
    );
    assert_eq!(startup.parameter("application_name"), Some("weir"));
}

#[test]
fn a_server_that_trusts_is_ready_after_its_welcome() {
    let mut talk = Talk::new(None, Fence::None);
    let ready = talk.ready(&[welcome(Some("off")), b"rest".to_vec()].concat());
    assert_eq!((ready.pid, ready.secret.as_ref().unwrap().as_bytes()), (4711, [1, 2, 3, 4].as_slice()));
    let names: Vec<_> = ready.parameters.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["server_version", "in_hot_standby", "TimeZone"]);
    assert_eq!(ready.parameter("server_version"), Some("17.2"));
    assert_eq!((ready.in_hot_standby, ready.timeline, ready.system_identifier), (Some(false), None, None));
    assert_eq!((ready.derived, ready.rest), (None, b"rest".to_vec()));
    assert_eq!(talk.hear(&welcome(None)), ServerStep::Wait);
}

#[test]
fn bytes_may_come_one_by_one() {
    let mut talk = Talk::new(None, Fence::None);
    let all = welcome(None);
    let (last, head) = all.split_last().unwrap();
    for byte in head {
        assert_eq!(talk.hear(&[*byte]), ServerStep::Wait);
    }
    assert_eq!(talk.ready(&[*last]).in_hot_standby, None);
}

#[test]
fn notices_and_repeated_parameters_are_taken_as_they_come() {
    let mut talk = Talk::new(None, Fence::None);
    let all = bytes(|out| {
        backend::notice(&Report::notice("a login trigger says hello"), out);
        backend::authentication_ok(out);
        backend::parameter_status(b"TimeZone", b"UTC", out);
        backend::parameter_status(b"x", b"\xe9", out);
        backend::parameter_status(b"TimeZone", b"CET", out);
        backend::notice(&Report::notice("again"), out);
        backend::ready_for_query(b'I', out);
    });
    let ready = talk.ready(&all);
    let expected =
        [("TimeZone", "CET"), ("x", "\u{fffd}")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!((ready.parameters.as_slice(), ready.pid, ready.secret), (expected.as_slice(), 0, None));
}

#[test]
fn a_password_is_sent_in_the_clear_only_when_asked_for() {
    let ask = bytes(backend::authentication_cleartext);
    let mut talk = Talk::new(password("pencil"), Fence::None);
    assert!(!talk.said.windows(6).any(|window| window == b"pencil"));
    assert_eq!(talk.hear(&ask), ServerStep::Wait);
    assert_eq!(frontend::read::password(talk.said_body()), Ok(b"pencil".as_slice()));
    assert_eq!(talk.ready(&welcome(None)).derived, None);
    for secret in [None, Some(ServerSecret::Keys(keys())), Some(ServerSecret::Md5(Secret::from("md5x")))] {
        let failure = Talk::new(secret, Fence::None).failed(&ask);
        assert!(matches!(failure, LoginFailure::NoCredential { method: "password", .. }));
    }
}

#[test]
fn md5_is_answered_from_a_password_or_its_stored_form() {
    let salt = [1, 2, 3, 4];
    let ask = bytes(|out| backend::authentication_md5(salt, out));
    let stored = md5::stored(b"app", b"pencil");
    for secret in [password("pencil"), Some(ServerSecret::Md5(Secret::from(stored.as_str())))] {
        let mut talk = Talk::new(secret, Fence::None);
        assert_eq!(talk.hear(&ask), ServerStep::Wait);
        assert!(md5::verify(&stored, salt, frontend::read::password(talk.said_body()).unwrap()));
        talk.ready(&welcome(None));
    }
    for secret in [None, Some(ServerSecret::Keys(keys()))] {
        let failure = Talk::new(secret, Fence::None).failed(&ask);
        assert!(matches!(failure, LoginFailure::NoCredential { method: "md5", .. }));
    }
}

#[test]
fn scram_with_a_password_leaves_keys_for_the_next_login() {
    let (mut talk, exchange) = Talk::challenged(password("pencil"));
    let proven = exchange.finish(talk.said_body()).unwrap();
    assert_eq!(talk.hear(&sasl_final(&proven.message)), ServerStep::Wait);
    let derived = talk.ready(&welcome(None)).derived.unwrap();
    assert_eq!(
        (derived.salt.as_slice(), derived.iterations, &derived.keys),
        (b"of PostgreSQL".as_slice(), 16, &keys())
    );

    // A wrong password with the right keys gets in: nothing was derived.
    let secret = ServerSecret::Password { password: Secret::from("?"), derived: Some(derived) };
    let (talk, exchange) = Talk::challenged(Some(secret));
    assert!(exchange.finish(talk.said_body()).is_ok());
}

#[test]
fn scram_with_a_clients_keys() {
    let (mut talk, exchange) = Talk::challenged(Some(ServerSecret::Keys(keys())));
    let proven = exchange.finish(talk.said_body()).unwrap();
    talk.hear(&sasl_final(&proven.message));
    assert_eq!(talk.ready(&welcome(None)).derived, None);
}

#[test]
fn a_server_that_does_not_prove_itself_is_not_believed() {
    let forged = format!("v={}=", "A".repeat(43));
    for answer in
        [sasl_final(forged.as_bytes()), sasl_final(b"e=other"), sasl_final(b""), ok(), welcome(Some("off"))]
    {
        let (mut talk, _) = Talk::challenged(password("pencil"));
        assert!(matches!(talk.failed(&answer), LoginFailure::Malformed(_)));
    }
    // Nor is one that answers with a nonce of somebody else's exchange, or asks for endless work.
    for challenge in
        ["r=xyz,s=c2FsdA==,i=1", "r=abcdef,s=c2FsdA==,i=4000000000", "r=abcdef,s=c2FsdA==,i=2000000"]
    {
        let mut talk = Talk::new(password("pencil"), Fence::None);
        talk.hear(&bytes(|out| backend::authentication_sasl(&["SCRAM-SHA-256"], out)));
        let answer = bytes(|out| backend::authentication_sasl_continue(challenge.as_bytes(), out));
        assert!(matches!(talk.failed(&answer), LoginFailure::Malformed(_)), "{challenge}");
    }
}

#[test]
fn a_server_may_not_ask_for_the_password_after_scram() {
    let (mut talk, exchange) = Talk::challenged(password("pencil"));
    let proven = exchange.finish(talk.said_body()).unwrap();
    talk.hear(&sasl_final(&proven.message));
    assert!(matches!(talk.failed(&bytes(backend::authentication_cleartext)), LoginFailure::Malformed(_)));
    let (mut talk, _) = Talk::challenged(password("pencil"));
    assert!(matches!(talk.failed(&bytes(backend::authentication_cleartext)), LoginFailure::Malformed(_)));
}

#[test]
fn methods_without_a_credential_fail_at_once() {
    let offer = |names: &[&str]| bytes(|out| backend::authentication_sasl(names, out));
    let number = |method: u32| {
        bytes(|out| {
            out.extend_from_slice(&[b'R', 0, 0, 0, 8]);
            out.extend_from_slice(&method.to_be_bytes());
        })
    };
    let cases = [
        (None, offer(&["SCRAM-SHA-256"]), "scram-sha-256"),
        (Some(ServerSecret::Md5(Secret::from("md5x"))), offer(&["SCRAM-SHA-256"]), "scram-sha-256"),
        (password("p"), offer(&["SCRAM-SHA-256-PLUS"]), "an unknown SASL mechanism"),
        (password("p"), offer(&["OAUTHBEARER"]), "an unknown SASL mechanism"),
        (password("p"), number(7), "GSSAPI"),
        (password("p"), number(9), "SSPI"),
        (password("p"), number(99), "an unknown method"),
    ];
    for (secret, ask, method) in cases {
        let failure = Talk::new(secret, Fence::None).failed(&ask);
        assert!(matches!(failure, LoginFailure::NoCredential { method: asked, .. } if asked == method));
    }
}

#[test]
fn refusals_keep_postgresqls_words() {
    let report = |code: SqlState| Report::fatal(code, "as PostgreSQL says").detail("d").hint("h");
    for code in [SqlState::INVALID_PASSWORD, SqlState::CANNOT_CONNECT_NOW, SqlState::INVALID_CATALOG_NAME] {
        let error = bytes(|out| backend::error(&report(code), out));
        for before in [vec![], ok(), bytes(|out| backend::authentication_sasl(&["SCRAM-SHA-256"], out))] {
            let failure = Talk::new(password("p"), Fence::None).failed(&[before, error.clone()].concat());
            assert_eq!(failure, LoginFailure::Refused(report(code)));
        }
    }
    // An error while fencing is the end as well, though not FATAL.
    let mut talk = Talk::new(None, PRIMARY);
    talk.hear(&welcome(None));
    let denied =
        Report::error(SqlState::INSUFFICIENT_PRIVILEGE, "permission denied for function pg_control_system");
    assert_eq!(talk.failed(&bytes(|out| backend::error(&denied, out))), LoginFailure::Refused(denied));
}

/// A login behind a fence: what ParameterStatus says, what the answer's row says.
#[track_caller]
fn check_fence(
    fence: Fence,
    standby: Option<&str>,
    answer: Option<&[Option<&str>]>,
    expected: Result<Ready, LoginFailure>,
) {
    let mut talk = Talk::new(None, fence);
    let mut step = talk.hear(&welcome(standby));
    assert_eq!(step == ServerStep::Wait, answer.is_some(), "{step:?}");
    if let Some(values) = answer {
        let question = frontend::read::query(talk.said_body()).unwrap();
        assert!(question.starts_with(b"SELECT ") && !question.contains(&b';'));
        step = talk.hear(&row(values));
    }
    match (step, expected) {
        (ServerStep::Ready(found), Ok(expected)) => {
            let seen = |ready: &Ready| (ready.in_hot_standby, ready.timeline, ready.system_identifier);
            assert_eq!(seen(&found), seen(&expected));
        }
        (ServerStep::Failed(found), Err(expected)) => assert_eq!(found, expected),
        (step, expected) => panic!("{step:?}, not {expected:?}"),
    }
}

fn seen(in_hot_standby: Option<bool>, timeline: Option<u32>, system_identifier: Option<u64>) -> Ready {
    Ready {
        pid: 0,
        secret: None,
        parameters: vec![],
        in_hot_standby,
        timeline,
        system_identifier,
        derived: None,
        rest: vec![],
    }
}

#[test]
fn the_fence_of_a_primary() {
    let cluster = CLUSTER.to_string();
    let on_timeline = |timeline| [Some("f"), Some(timeline), Some(cluster.as_str())];
    let good = Ok(seen(Some(false), Some(5), Some(CLUSTER)));
    check_fence(PRIMARY, Some("off"), Some(&on_timeline("00000005")), good);
    check_fence(PRIMARY, None, Some(&on_timeline("00000005")), Ok(seen(Some(false), Some(5), Some(CLUSTER))));
    let anywhere = Fence::Primary { expect_timeline: None, expect_system: None };
    check_fence(
        anywhere,
        Some("off"),
        Some(&on_timeline("0000002A")),
        Ok(seen(Some(false), Some(42), Some(CLUSTER))),
    );

    check_fence(PRIMARY, Some("on"), None, Err(LoginFailure::NotPrimary));
    check_fence(PRIMARY, None, Some(&[Some("t"), None, Some(&cluster)]), Err(LoginFailure::NotPrimary));
    let older = LoginFailure::WrongTimeline { seen: 4, expected: 5 };
    check_fence(PRIMARY, Some("off"), Some(&on_timeline("00000004")), Err(older));
    let newer = LoginFailure::WrongTimeline { seen: 16, expected: 5 };
    check_fence(PRIMARY, Some("off"), Some(&on_timeline("00000010")), Err(newer));
    // Another cluster is another cluster, whatever its timeline.
    let strange = LoginFailure::WrongSystem { seen: 1, expected: CLUSTER };
    check_fence(PRIMARY, Some("off"), Some(&[Some("f"), Some("00000004"), Some("1")]), Err(strange));
    // A bigint has a sign, an identifier has none.
    let large = Fence::Primary { expect_timeline: None, expect_system: Some(u64::MAX) };
    check_fence(
        large,
        None,
        Some(&[Some("f"), Some("00000001"), Some("-1")]),
        Ok(seen(Some(false), Some(1), Some(u64::MAX))),
    );
}

#[test]
fn the_fence_of_a_replica() {
    check_fence(Fence::Replica, Some("on"), None, Ok(seen(Some(true), None, None)));
    check_fence(Fence::Replica, Some("off"), None, Err(LoginFailure::NotReplica));
    check_fence(Fence::Replica, None, Some(&[Some("t")]), Ok(seen(Some(true), None, None)));
    check_fence(Fence::Replica, None, Some(&[Some("f")]), Err(LoginFailure::NotReplica));
    check_fence(Fence::None, Some("on"), None, Ok(seen(Some(true), None, None)));
    check_fence(Fence::None, None, None, Ok(seen(None, None, None)));
}

#[test]
fn an_unreadable_answer_does_not_open_the_fence() {
    let cluster = CLUSTER.to_string();
    let answers: [&[Option<&str>]; 8] = [
        &[],
        &[None],
        &[Some("yes")],
        &[Some("f")],
        &[Some("f"), None, Some(&cluster)],
        &[Some("f"), Some("00000005"), None],
        &[Some("f"), Some("timeline"), Some(&cluster)],
        &[Some("f"), Some("00000005"), Some("cluster")],
    ];
    for answer in answers {
        let mut talk = Talk::new(None, PRIMARY);
        talk.hear(&welcome(Some("off")));
        assert!(matches!(talk.failed(&row(answer)), LoginFailure::Malformed(_)), "{answer:?}");
    }
    let mut talk = Talk::new(None, PRIMARY);
    talk.hear(&welcome(Some("off")));
    assert!(matches!(talk.failed(&ready_for_query()), LoginFailure::Malformed(_)));
}

/// A demotion that is reported while the question is on its way must not be lost.
#[test]
fn the_fences_answer_counts_more_than_an_earlier_report() {
    let mut talk = Talk::new(None, PRIMARY);
    talk.hear(&welcome(Some("off")));
    assert_eq!(talk.failed(&row(&[Some("t"), None, Some("1")])), LoginFailure::NotPrimary);
}

#[test]
fn messages_out_of_order_are_refused() {
    let status = bytes(|out| backend::parameter_status(b"a", b"b", out));
    let cases = [
        ready_for_query(),
        status,
        bytes(|out| backend::backend_key_data(1, &[0; 4], out)),
        bytes(|out| backend::data_row(&[], out)),
        bytes(|out| backend::authentication_sasl_continue(b"", out)),
        bytes(|out| backend::authentication_sasl_final(b"", out)),
        bytes(|out| backend::negotiate_protocol_version(0, &[], out)),
        [ok(), ok()].concat(),
        [ok(), bytes(backend::authentication_cleartext)].concat(),
        [ok(), bytes(|out| backend::data_row(&[], out))].concat(),
        [ok(), bytes(|out| backend::command_complete("SELECT 1", out))].concat(),
        [ok(), bytes(backend::no_data)].concat(),
        b"!\0\0\0\x04".to_vec(),
        b"R\0\0\0\x03".to_vec(),
        b"R\0\0\0\x04".to_vec(),
        b"R\x7f\0\0\0".to_vec(),
        [ok(), b"K\0\0\0\x05x".to_vec()].concat(),
        [ok(), b"Z\0\0\0\x05?".to_vec()].concat(),
        [ok(), bytes(|out| backend::ready_for_query(b'T', out))].concat(),
    ];
    for case in cases {
        let mut talk = Talk::new(password("pencil"), Fence::None);
        assert!(matches!(talk.failed(&case), LoginFailure::Malformed(_)), "{case:?}");
    }
}

#[test]
fn a_server_cannot_report_without_end() {
    let mut talk = Talk::new(None, Fence::None);
    let all = bytes(|out| {
        backend::authentication_ok(out);
        for number in 0..=PARAMETERS_MAX {
            backend::parameter_status(number.to_string().as_bytes(), b"", out);
        }
    });
    assert!(matches!(talk.failed(&all), LoginFailure::Malformed(_)));
}

#[test]
fn what_a_client_reads_of_a_failure() {
    let wrong = Report::fatal(SqlState::INVALID_PASSWORD, "password authentication failed for user \"app\"");
    let missing = Report::error(SqlState::INVALID_CATALOG_NAME, "database \"shop\" does not exist");
    let cases = [
        (
            LoginFailure::Refused(wrong),
            SqlState::INVALID_PASSWORD,
            "password authentication failed for user \"app\"",
        ),
        (LoginFailure::Refused(missing), SqlState::INVALID_CATALOG_NAME, "database \"shop\" does not exist"),
        (
            LoginFailure::NoCredential { method: "md5", has: Has::Keys },
            SqlState::INVALID_AUTHORIZATION,
            "user \"app\"",
        ),
        (LoginFailure::NotPrimary, SqlState::CANNOT_CONNECT_NOW, "cannot be used"),
        (LoginFailure::NotReplica, SqlState::CANNOT_CONNECT_NOW, "cannot be used"),
        (
            LoginFailure::WrongTimeline { seen: 1, expected: 2 },
            SqlState::CANNOT_CONNECT_NOW,
            "cannot be used",
        ),
        (LoginFailure::WrongSystem { seen: 1, expected: 2 }, SqlState::CANNOT_CONNECT_NOW, "cannot be used"),
        (LoginFailure::Malformed("why".into()), SqlState::CONNECTION_FAILURE, "login to PostgreSQL failed"),
    ];
    for (failure, code, message) in cases {
        let report = failure.report("app");
        assert_eq!((report.code, report.severity), (code, Severity::Fatal), "{failure}");
        assert!(report.message.contains(message), "{report}");
    }
}

#[test]
fn secrets_are_not_printed() {
    let (talk, _) = Talk::challenged(password("hunter2"));
    let shown = format!("{:?}", talk.login);
    assert!(!shown.contains("hunter2") && !shown.contains("104, 117, 110"), "{shown}");
}

proptest! {
    #[test]
    fn no_bytes_make_a_login_panic(noise in proptest::collection::vec(any::<u8>(), 0..60), at in 0usize..4) {
        let mut talks = [
            Talk::new(password("pencil"), PRIMARY),
            Talk::new(None, PRIMARY),
            Talk::challenged(password("pencil")).0,
            Talk::new(None, Fence::Replica),
        ];
        talks[1].hear(&welcome(Some("off")));
        talks[3].hear(&ok());
        prop_assert!(!matches!(talks[at].hear(&noise), ServerStep::Ready(_)));
    }

    #[test]
    fn no_message_body_makes_a_login_panic(tag in "[A-Zadnst12]", body in proptest::collection::vec(any::<u8>(), 0..40), at in 0usize..3) {
        let mut message = tag.into_bytes();
        message.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        message.extend_from_slice(&body);
        let mut talks = [Talk::new(None, PRIMARY), Talk::new(None, PRIMARY), Talk::challenged(password("pencil")).0];
        talks[1].hear(&welcome(Some("off")));
        prop_assert!(!matches!(talks[at].hear(&message), ServerStep::Ready(_)));
    }
}

#[test]
fn the_keys_of_a_password_are_computed_elsewhere() {
    let secret = Some(ServerSecret::password(Secret::from("pencil")));
    for refused_meanwhile in [false, true] {
        let mut talk = Talk::new(secret.clone(), Fence::None);
        talk.hear(&bytes(|out| backend::authentication_sasl(&["SCRAM-SHA-256"], out)));
        let (_, message) = frontend::read::sasl_initial_response(talk.said_body()).unwrap();
        let (exchange, challenge) =
            server::first(message.unwrap(), verifier(), "def", &NOT_BOUND, Mechanism::Sha256).unwrap();
        talk.said.clear();
        let challenge = bytes(|out| backend::authentication_sasl_continue(&challenge, out));
        let ServerStep::Derive(derivation) = talk.login.received(&challenge, &mut talk.said) else {
            panic!()
        };
        assert!(talk.said.is_empty(), "there is nothing to say yet");
        if refused_meanwhile {
            let report = Report::fatal(SqlState::CANNOT_CONNECT_NOW, "authentication timeout");
            talk.failed(&bytes(|out| backend::error(&report, out)));
        }
        talk.login.derived(derivation.run(), &mut talk.said);
        assert_eq!(talk.said.is_empty(), refused_meanwhile);
        if !refused_meanwhile {
            assert!(exchange.finish(talk.said_body()).is_ok());
        }
        talk.said.clear();
        talk.login.derived(Derivation::new(Secret::from("x"), b"salt", 1).run(), &mut talk.said);
        assert!(talk.said.is_empty(), "nobody asked");
    }
}
