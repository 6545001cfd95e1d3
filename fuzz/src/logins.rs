//! The two logins, fed by the stranger at their other end. A stream means the same however it is cut into reads, and
//! nobody gets in who has nothing to show.

use weir_auth::scram::{ChannelBinding, Verifier};
use weir_auth::{Secret, StoredSecret};
use weir_protocol::startup::{self, FirstPacket};
use weir_session::client_login::{ClientLogin, ClientTls, Fresh, LoginPolicy, LoginStep, Method};
use weir_session::server_login::{Fence, ServerCredential, ServerLogin, ServerSecret, ServerStep};

/// The first packet of a connection.
pub(crate) fn startup(bytes: &[u8]) {
    let _ = startup::opens_with_tls(bytes);
    match startup::first_packet(bytes) {
        Ok(Some((packet, length))) => {
            assert!(length <= bytes.len());
            // Whatever comes behind it is not looked at, and nothing of it can be missing.
            assert_eq!(startup::first_packet(&bytes[..length]), Ok(Some((packet.clone(), length))));
            assert!(!matches!(startup::first_packet(&bytes[..length - 1]), Ok(Some(_))));
            if let FirstPacket::Startup(startup) = packet {
                assert!(!startup.user().is_empty());
                let _ = startup.database();
            }
        }
        Ok(None) => {}
        Err(bad) => {
            let _ = bad.report();
        }
    }
}

/// A whole login of a client: the first byte says how it is asked and what is stored.
pub(crate) fn client(bytes: &[u8]) {
    let Some((&choice, stream)) = bytes.split_first() else { return };
    let at_once = listen(choice, [stream]);
    let by_bytes = listen(choice, stream.chunks(1));
    // What comes together with a request for encryption was put there by somebody in between; what comes later was not.
    let asks = matches!(startup::first_packet(stream), Ok(Some((FirstPacket::Ssl | FirstPacket::GssEnc, _))));
    if !asks && !startup::opens_with_tls(stream) {
        assert_eq!(at_once, by_bytes, "cut otherwise, it means something else");
    }
}

/// What became of a client, and what it was told.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    end: End,
    said: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Waiting,
    In,
    Out(String),
    Tls,
    Canceling,
}

fn listen<'a>(choice: u8, reads: impl IntoIterator<Item = &'a [u8]>) -> Heard {
    let policy = LoginPolicy { tls: if choice & 0x40 == 0 { ClientTls::Off } else { ClientTls::Allowed } };
    let mut login = ClientLogin::new();
    let mut said = Vec::new();
    if choice & 0x80 != 0 {
        login.offer_binding(vec![7; 32]);
    }
    for read in reads {
        let mut step = login.received(read, &policy, &mut said);
        while let Some(next) = answer(&mut login, &step, choice, &mut said) {
            step = next;
        }
        let end = match step {
            LoginStep::Wait
            | LoginStep::Named { .. }
            | LoginStep::Mismatch
            | LoginStep::Derive(_)
            | LoginStep::Refer(_) => {
                continue;
            }
            LoginStep::StartTls | LoginStep::BeginTls(_) => End::Tls,
            LoginStep::Cancel(_) => End::Canceling,
            LoginStep::Admitted(_) => {
                assert!(stored(choice).is_some(), "a user who does not exist is in");
                End::In
            }
            LoginStep::Refused(report) => End::Out(format!("{report:?}")),
            LoginStep::Close => End::Out(String::new()),
        };
        return Heard { end, said };
    }
    Heard { end: End::Waiting, said }
}

/// What the worker would do; `None` where it would wait.
fn answer(login: &mut ClientLogin, step: &LoginStep, choice: u8, said: &mut Vec<u8>) -> Option<LoginStep> {
    match step {
        LoginStep::Named { .. } => Some(login.ask(method(choice), stored(choice), fresh(), said)),
        LoginStep::Derive(derivation) => Some(login.derived(&derivation.clone().run(), said)),
        LoginStep::Refer(_) => Some(login.judged(stored(choice).is_some())),
        LoginStep::Mismatch => Some(login.judge_again(stored(choice))),
        LoginStep::Wait
        | LoginStep::StartTls
        | LoginStep::BeginTls(_)
        | LoginStep::Cancel(_)
        | LoginStep::Admitted(_)
        | LoginStep::Refused(_)
        | LoginStep::Close => None,
    }
}

fn method(choice: u8) -> Method {
    match choice & 0x03 {
        0 | 1 => Method::Scram,
        2 => Method::Md5,
        _ if choice & 0x20 != 0 => Method::Elsewhere,
        _ => Method::Plain,
    }
}

/// Nothing; a verifier; md5; the password.
fn stored(choice: u8) -> Option<StoredSecret> {
    match (choice >> 2) & 0x03 {
        0 => None,
        1 => Verifier::from_password(PASSWORD, SALT, 1).ok().map(StoredSecret::Scram),
        2 => Some(StoredSecret::Md5(Secret::from(weir_auth::md5::stored(b"alice", PASSWORD)))),
        _ => Some(StoredSecret::Plain(Secret::from(PASSWORD))),
    }
}

fn fresh() -> Fresh<'static> {
    Fresh {
        nonce: "the-server-nonce",
        md5_salt: *b"salt",
        iterations: 1,
        derived: None,
        mock_secret: b"of this process",
    }
}

/// A whole login to a server: the first byte says what weir has to show and wants to know.
pub(crate) fn server(bytes: &[u8]) {
    let Some((&choice, stream)) = bytes.split_first() else { return };
    if expensive(stream) {
        return;
    }
    let (at_once, said) = dial(choice, [stream]);
    let (by_bytes, said_by_bytes) = dial(choice, stream.chunks(1));
    match (at_once, by_bytes) {
        // What comes behind the login is part of one read and not of the other.
        (ServerStep::Ready(mut left), ServerStep::Ready(mut right)) => {
            left.rest.clear();
            right.rest.clear();
            assert_eq!(left, right);
        }
        (left, right) => assert_eq!(left, right),
    }
    assert_eq!(said, said_by_bytes);
}

fn dial<'a>(choice: u8, reads: impl IntoIterator<Item = &'a [u8]>) -> (ServerStep, Vec<u8>) {
    let secret = match choice & 0x03 {
        0 => None,
        1 => Some(ServerSecret::Md5(Secret::from(weir_auth::md5::stored(b"alice", PASSWORD)))),
        _ => Some(ServerSecret::password(Secret::from(PASSWORD))),
    };
    let fence = match (choice >> 2) & 0x03 {
        0 => Fence::None,
        1 => Fence::Replica,
        2 => Fence::Primary { expect_timeline: None, expect_system: None },
        _ => Fence::Primary { expect_timeline: Some(2), expect_system: Some(7) },
    };
    let replication: &[(&str, &str)] = if choice & 0x10 == 0 { &[] } else { &[("replication", "true")] };
    let credential = ServerCredential { user: "alice".to_owned(), secret };
    let mut said = Vec::new();
    let mut login = ServerLogin::start("shop", replication, credential, "the-client-nonce", fence, &mut said);
    if choice & 0x80 != 0 {
        login.bind(Some(vec![7; 32]));
    }
    for read in reads {
        let mut step = login.received(read, &mut said);
        while let ServerStep::Derive(derivation) = step {
            login.derived(derivation.run(), &mut said);
            step = login.received(&[], &mut said);
        }
        match step {
            ServerStep::Wait | ServerStep::Derive(_) => {}
            end @ (ServerStep::Ready(_) | ServerStep::Failed(_)) => return (end, said),
        }
    }
    (ServerStep::Wait, said)
}

/// Whether a server asks for more than 999 iterations. Deriving keys takes as long as the server wants, and a fuzzer's time
/// is better spent.
pub(crate) fn expensive(challenge: &[u8]) -> bool {
    let digits = |rest: &[u8]| rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    challenge.windows(2).enumerate().any(|(at, pair)| pair == b"i=" && digits(&challenge[at + 2..]) > 3)
}

/// What the client is bound to, if it can be.
pub(crate) fn binding(choice: u8) -> ChannelBinding {
    if choice & 0x80 == 0 {
        ChannelBinding::NotSupported
    } else {
        ChannelBinding::ServerEndPoint(vec![7; 32])
    }
}

pub(crate) const PASSWORD: &[u8] = b"pencil";
pub(crate) const SALT: &[u8; 16] = b"sixteen bytes ..";
