//! Logins that are not SCRAM: md5, passwords as they are, nothing at all; and TLS without asking.

use weir_auth::md5;

use super::*;

fn md5_secret() -> StoredSecret {
    StoredSecret::Md5(Secret::from(md5::stored(b"app", b"pencil")))
}

/// A client that has been asked.
fn asked(method: Method, secret: Option<StoredSecret>) -> Talk {
    let mut talk = Talk::new(SCRAM);
    assert!(matches!(talk.hear(&app()), LoginStep::Named { .. }));
    assert_eq!(talk.give_for(method, secret), LoginStep::Wait);
    talk
}

/// What a client that knows the password answers to an md5 request.
fn md5_answer(password: &[u8]) -> Vec<u8> {
    md5::response(&md5::stored(b"app", password), MD5_SALT).into_bytes()
}

#[test]
fn each_method_checks_each_form_of_secret() {
    let hash = Secret::from(md5::stored(b"app", b"pencil"));
    let typed = Some(Secret::from("pencil"));
    for (method, secret, answer, password, md5) in [
        (Method::Plain, plain("pencil"), b"pencil".to_vec(), typed.clone(), None),
        (Method::Plain, md5_secret(), b"pencil".to_vec(), typed.clone(), None),
        (Method::Plain, verifier(), b"pencil".to_vec(), typed.clone(), None),
        (Method::Md5, plain("pencil"), md5_answer(b"pencil"), typed, None),
        (Method::Md5, md5_secret(), md5_answer(b"pencil"), None, Some(hash)),
    ] {
        let mut talk = asked(method, Some(secret.clone()));
        let expected =
            if method == Method::Plain { Authentication::Cleartext } else { Authentication::Md5(MD5_SALT) };
        assert_eq!(talk.authentication(), expected);
        let guest = admitted(talk.answer(&answer));
        assert_eq!((guest.keys, guest.password, guest.md5), (None, password, md5), "{method:?} {secret:?}");

        let mut talk = asked(method, Some(secret));
        let wrong = if method == Method::Plain { b"pencils".to_vec() } else { md5_answer(b"pencils") };
        assert_eq!(talk.answer(&wrong), LoginStep::Mismatch);
        let step = talk.login.judge_again(None);
        refused(
            &mut talk,
            step,
            SqlState::INVALID_PASSWORD,
            "password authentication failed for user \"app\"",
        );
    }
}

#[test]
fn md5_gives_way_to_scram_for_a_verifier() {
    let mut talk = asked(Method::Md5, Some(verifier()));
    assert_eq!(talk.authentication(), Authentication::Sasl(vec![b"SCRAM-SHA-256"]));
    assert!(admitted(talk.prove("pencil", &NOT_BOUND, Mechanism::Sha256)).keys.is_some());
}

#[test]
fn a_secret_that_was_out_of_date_is_replaced_before_it_counts() {
    for (method, answer) in [(Method::Plain, b"new".to_vec()), (Method::Md5, md5_answer(b"new"))] {
        let mut talk = asked(method, Some(plain("old")));
        assert_eq!(talk.answer(&answer), LoginStep::Mismatch);
        // Nothing else helps meanwhile.
        assert_eq!(talk.hear(b""), LoginStep::Wait);
        admitted(talk.login.judge_again(Some(plain("new"))));
    }
}

#[test]
fn every_wrong_password_costs_one_derivation_whatever_is_stored() {
    for secret in [None, Some(plain("pencil")), Some(md5_secret()), Some(verifier())] {
        let mut talk = asked(Method::Plain, secret.clone());
        let step = talk.hear_only(&bytes(|out| frontend::password(b"pencils", out)));
        assert!(matches!(step, LoginStep::Derive(_)), "{secret:?}: {step:?}");
        assert_eq!(talk.hear_only(b""), LoginStep::Wait, "nothing happens meanwhile");
        assert_eq!(talk.compute(step), LoginStep::Mismatch, "{secret:?}");
        // The same secret, looked up once more, is not worth another one.
        let step = talk.login.judge_again(secret);
        refused(&mut talk, step, SqlState::INVALID_PASSWORD, "");
    }
    // A right one only what it needs; an empty one is refused before anything is computed.
    for (secret, answer, cost) in [
        (plain("pencil"), &b"pencil"[..], false),
        (md5_secret(), b"pencil", false),
        (verifier(), b"pencil", true),
        (verifier(), b"", false),
    ] {
        let mut talk = asked(Method::Plain, Some(secret));
        let step = talk.hear_only(&bytes(|out| frontend::password(answer, out)));
        assert_eq!(matches!(step, LoginStep::Derive(_)), cost, "{step:?}");
    }
}

#[test]
fn a_verifier_that_was_out_of_date_is_replaced_before_it_counts() {
    let of = |password: &[u8]| {
        Some(StoredSecret::Scram(Verifier::from_password(password, b"of PostgreSQL", 16).unwrap()))
    };
    for (now, fits) in [(of(b"new"), true), (of(b"newer"), false), (None, false)] {
        let mut talk = asked(Method::Plain, of(b"old"));
        assert_eq!(talk.answer(b"new"), LoginStep::Mismatch);
        let step = talk.login.judge_again(now);
        let step = talk.compute(step);
        assert_eq!(matches!(step, LoginStep::Admitted(_)), fits, "{step:?}");
    }
}

#[test]
fn unknown_users_are_asked_like_others_and_never_let_in() {
    for (method, answer) in
        [(Method::Plain, &b"anything"[..]), (Method::Plain, b""), (Method::Md5, b""), (Method::Md5, b"md5")]
    {
        let mut talk = asked(method, None);
        assert_eq!(talk.answer(answer), LoginStep::Mismatch);
        let step = talk.login.judge_again(None);
        refused(
            &mut talk,
            step,
            SqlState::INVALID_PASSWORD,
            "password authentication failed for user \"app\"",
        );
    }
    // An empty password is none.
    for (method, answer) in [(Method::Plain, Vec::new()), (Method::Md5, md5_answer(b""))] {
        let mut talk = asked(method, Some(plain("")));
        assert_eq!(talk.answer(&answer), LoginStep::Mismatch);
    }
}

#[test]
fn an_empty_stored_password_lets_nobody_in_by_scram() {
    let mut talk = asked(Method::Scram, Some(plain("")));
    let step = talk.prove("", &NOT_BOUND, Mechanism::Sha256);
    let step = talk.compute(step);
    refused(&mut talk, step, SqlState::INVALID_PASSWORD, "password authentication failed for user \"app\"");
}

#[test]
fn other_messages_and_too_long_ones_are_refused() {
    let mut talk = asked(Method::Plain, Some(plain("pencil")));
    let step = talk.hear(&bytes(|out| frontend::query(b"SELECT 1", out)));
    refused(&mut talk, step, SqlState::PROTOCOL_VIOLATION, "expected password response");
    let mut talk = asked(Method::Md5, Some(plain("pencil")));
    let step = talk.answer(&vec![b'x'; PASSWORD_BYTES_MAX as usize]);
    refused(&mut talk, step, SqlState::PROTOCOL_VIOLATION, "");
    let mut talk = asked(Method::Plain, Some(plain("pencil")));
    let step = talk.hear(b"p\0\0\0\x0apencil");
    refused(&mut talk, step, SqlState::PROTOCOL_VIOLATION, "");
}

#[test]
fn what_is_stored_is_kept_for_those_who_need_not_prove_anything() {
    for (secret, password, md5) in [
        (Some(plain("pencil")), Some(Secret::from("pencil")), None),
        (Some(md5_secret()), None, Some(Secret::from(md5::stored(b"app", b"pencil")))),
        (Some(verifier()), None, None),
        (None, None, None),
    ] {
        let mut talk = Talk::new(SCRAM);
        assert_eq!(talk.login.admit(None), LoginStep::Close, "nobody has asked yet");
        assert!(matches!(talk.hear(&app()), LoginStep::Named { .. }));
        let guest = admitted(talk.login.admit(secret));
        assert_eq!((guest.keys, guest.password, guest.md5), (None, password, md5));
    }
}

#[test]
fn tls_without_asking_needs_the_protocol_s_name() {
    let hello = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03";
    let begin = |policy| {
        let mut talk = Talk::new(policy);
        let step = talk.hear(hello);
        (talk, step)
    };
    let (mut talk, step) = begin(SCRAM);
    refused(&mut talk, step, SqlState::PROTOCOL_VIOLATION, "");
    for policy in [TLS, TLS_ONLY] {
        let (mut talk, step) = begin(policy);
        assert_eq!(step, LoginStep::BeginTls(hello.to_vec()));
        assert!(talk.said.is_empty());
        assert_eq!(talk.login.tls_started(true), LoginStep::Wait);
        assert!(talk.login.is_encrypted());
        assert!(matches!(talk.hear(&app()), LoginStep::Named { .. }));
        let (mut talk, _) = begin(policy);
        assert_eq!(talk.login.tls_started(false), LoginStep::Close);
        assert_eq!(talk.hear(&app()), LoginStep::Close);
    }
    // Who asked for TLS needs no name: drivers before PostgreSQL 17 give none.
    let mut talk = Talk::new(TLS);
    assert_eq!(talk.hear(&bytes(frontend::ssl_request)), LoginStep::StartTls);
    assert_eq!(talk.login.tls_started(false), LoginStep::Wait);
}
