//! What each cell of the matrix has to say, and with which SQLSTATE: the table of ways in, as a function.

use anyhow::{Result, ensure};
use weir_e2e::logins::{Answer, How};

use crate::people::{Kind, Method, Person, SHARED};

/// Which weir is logged in to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Each user's method stands in the HBA file.
    Rules,
    /// One method for everybody, TLS if the client likes.
    Method,
    /// One method for everybody, and no TCP without TLS.
    TlsOnly,
}

/// How a login has to end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// `current_user` is this.
    In(String),
    /// A refusal of weir's.
    Refused(&'static str, String),
    /// The driver itself does not go on.
    GivenUp,
}

/// How this login has to end.
pub(crate) fn expected(gate: Gate, person: &Person, how: How, knows_password: bool) -> Expected {
    use Expected::{In, Refused};
    if let Some(text) = turned_away(gate, person, how) {
        return Refused("28000", text.to_owned());
    }
    // libpq gives up at a request for a password, but only at the welcome where nothing is asked.
    let unbound = how == How::Bound && !asks_for_scram(person);
    if unbound && person.method.wants_password() {
        return Expected::GivenUp;
    }
    if !weir_believes(person, knows_password) {
        return if person.method.wants_password() {
            Refused("28P01", format!("password authentication failed for user \"{}\"", person.name))
        } else {
            Refused("28000", format!("\"{:?}\" authentication failed", person.method).to_lowercase())
        };
    }
    match at_the_server(person) {
        AtTheServer::Welcome if unbound => Expected::GivenUp,
        AtTheServer::Welcome if person.kind.is_shared() => In(SHARED.to_owned()),
        AtTheServer::Welcome => In(person.name.clone()),
        AtTheServer::Refused => {
            Refused("28P01", format!("password authentication failed for user \"{}\"", person.name))
        }
        AtTheServer::NothingToShow => {
            Refused("28000", format!("weir cannot log in to PostgreSQL as user \"{}\"", person.name))
        }
    }
}

/// Who is sent away before anybody asks who they are.
fn turned_away(gate: Gate, person: &Person, how: How) -> Option<&'static str> {
    match (gate, person.method) {
        (Gate::TlsOnly, _) if how == How::Plain => Some("SSL required"),
        // `hostssl` and `local` are the only lines for these.
        (Gate::Rules, Method::Cert) if !how.is_encrypted() => Some("login rejected"),
        (Gate::Rules, Method::Peer) if how != How::Unix => Some("login rejected"),
        (_, Method::Cert) if how != How::Certificate => Some("TLS client certificate required"),
        (_, Method::Cert) if person.kind == Kind::Unmapped => Some("TLS certificate name mismatch"),
        (_, Method::Peer) if person.kind == Kind::Unmapped => Some("unix socket login rejected"),
        (_, _) => None,
    }
}

/// md5 becomes SCRAM where the stored secret is a verifier.
fn asks_for_scram(person: &Person) -> bool {
    match person.method {
        Method::Scram => true,
        Method::Md5 => person.kind.is_verifier(),
        Method::Plain | Method::Trust | Method::Cert | Method::Peer => false,
    }
}

fn weir_believes(person: &Person, knows_password: bool) -> bool {
    // Nothing in an md5 secret could check a SCRAM proof.
    let fits = !(person.method == Method::Scram && person.kind.is_md5());
    person.kind.is_known() && (!person.method.wants_password() || (knows_password && fits))
}

enum AtTheServer {
    Welcome,
    Refused,
    NothingToShow,
}

/// What PostgreSQL says to what weir has after this client's login.
fn at_the_server(person: &Person) -> AtTheServer {
    let shown_password = person.method == Method::Plain || person.kind == Kind::Listed;
    if person.kind.is_shared() || shown_password || person.kind.is_md5() {
        return AtTheServer::Welcome;
    }
    match (person.method.wants_password(), person.kind) {
        // A SCRAM login has revealed the keys, which open the server that stores this very verifier.
        (true, Kind::OtherSalt) => AtTheServer::Refused,
        (true, Kind::ServerMd5) | (false, _) => AtTheServer::NothingToShow,
        (true, _) => AtTheServer::Welcome,
    }
}

/// Compares an answer with what it has to be.
pub(crate) fn check(answer: &Answer, expected: &Expected) -> Result<()> {
    match (answer, expected) {
        (Answer::In(user), Expected::In(wanted)) => ensure!(user == wanted, "in as {user}, not {wanted}"),
        (Answer::Out { code, text }, Expected::Refused(wanted, sentence)) => {
            ensure!(text.contains(sentence.as_str()), "said {text:?}, not {sentence:?}");
            let is_right = code.as_ref().is_none_or(|code| code == wanted);
            ensure!(is_right, "SQLSTATE {code:?}, not {wanted}");
        }
        (Answer::Out { code: None, text }, Expected::GivenUp) if !text.contains("FATAL") => {}
        (answer, expected) => anyhow::bail!("{answer:?}, not {expected:?}"),
    }
    Ok(())
}
