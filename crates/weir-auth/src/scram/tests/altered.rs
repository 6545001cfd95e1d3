//! Messages that somebody in between alters: bit by bit, byte by byte and attribute by attribute, in both roles, with and
//! without channel binding. Not one of them may lead to a login.

use super::{ChannelBinding, Mechanism, NOT_BOUND, Step, bound, exchange, password};
use crate::Secret;
use crate::scram::{Credential, DerivedKeys};

const STEPS: [Step; 4] = [Step::ClientFirst, Step::ServerFirst, Step::ClientFinal, Step::ServerFinal];

/// What can be done to one message, one alteration after the other. Nothing that comes out is what went in.
fn alterations(message: &[u8]) -> Vec<Vec<u8>> {
    let mut altered = Vec::new();
    for at in 0..message.len() {
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut message = message.to_vec();
            change(&mut message);
            message
        };
        altered.extend((0..8).map(|bit| with(&|message| message[at] ^= 1 << bit)));
        altered.push(with(&|message| {
            message.remove(at);
        }));
        altered.push(with(&|message| message.insert(at, message[at])));
        altered.push(with(&|message| message.truncate(at)));
        altered.extend(b",=A0+\0 ".iter().map(|byte| with(&|message| message.insert(at, *byte))));
        altered.push(with(&|message| message[at] = message[at].swap_case()));
    }
    let attributes: Vec<&[u8]> = message.split(|byte| *byte == b',').collect();
    for at in 0..attributes.len() {
        let with = |change: &dyn Fn(&mut Vec<&[u8]>)| {
            let mut attributes = attributes.clone();
            change(&mut attributes);
            attributes.join(&b","[..])
        };
        altered.push(with(&|attributes| {
            attributes.remove(at);
        }));
        altered.push(with(&|attributes| attributes.insert(at, attributes[at])));
        altered.push(with(&|attributes| attributes.insert(at, b"x=y")));
        altered.push(with(&|attributes| attributes.insert(at, b"m=y")));
        altered.extend((0..at).map(|other| with(&|attributes| attributes.swap(at, other))));
    }
    altered.retain(|altered| altered != message);
    altered
}

trait SwapCase {
    fn swap_case(self) -> Self;
}

impl SwapCase for u8 {
    fn swap_case(self) -> Self {
        if self.is_ascii_alphabetic() { self ^ 0x20 } else { self }
    }
}

/// Keys that are known for this salt already: what is altered is what counts here, not how long a derivation takes.
fn credential(binding: (&ChannelBinding, &ChannelBinding, Mechanism)) -> Credential {
    let keys = exchange(&password("pencil"), |_, message| message, binding).unwrap();
    let derived = DerivedKeys { salt: super::SALT.to_vec(), iterations: 64, keys };
    Credential::Password { password: Secret::from("pencil"), derived: Some(derived) }
}

fn check(binding: (&ChannelBinding, &ChannelBinding, Mechanism)) {
    let credential = credential(binding);
    for step in STEPS {
        let seen = std::cell::RefCell::new(Vec::new());
        let look = |now: Step, message: Vec<u8>| {
            if now == step {
                seen.borrow_mut().clone_from(&message);
            }
            message
        };
        assert!(exchange(&credential, look, binding).is_ok());
        let original = seen.into_inner();
        let all = alterations(&original);
        assert!(all.len() > 10 * original.len());
        for altered in all {
            let replace = |now: Step, message: Vec<u8>| if now == step { altered.clone() } else { message };
            let outcome = exchange(&credential, replace, binding);
            assert!(outcome.is_err(), "{step:?} {}", String::from_utf8_lossy(&altered));
        }
    }
}

#[test]
fn every_alteration_without_binding_is_refused() {
    check((&NOT_BOUND, &NOT_BOUND, Mechanism::Sha256));
}

#[test]
fn every_alteration_with_binding_is_refused() {
    check((&bound(), &bound(), Mechanism::Sha256Plus));
}

#[test]
fn every_alteration_where_only_the_client_could_bind_is_refused() {
    check((&bound(), &NOT_BOUND, Mechanism::Sha256));
}

/// A message of another exchange of the same two, with the same password.
#[test]
fn a_message_that_was_overheard_is_worth_nothing() {
    let clear = (&NOT_BOUND, &NOT_BOUND, Mechanism::Sha256);
    let credential = credential(clear);
    let run = |nonces: (&str, &str), replayed: Option<(Step, &[Vec<u8>])>| {
        let mut said = Vec::new();
        let mut pass = |step: Step, message: Vec<u8>| {
            said.push(message.clone());
            match replayed {
                Some((from, old)) if step >= from => old[step as usize].clone(),
                Some(_) | None => message,
            }
        };
        let outcome = super::exchange_with(nonces, &credential, &mut pass, clear);
        (outcome.is_ok(), said)
    };
    let (is_in, overheard) = run(("client-1", "server-1"), None);
    assert!(is_in);
    for step in STEPS {
        let (is_in, _) = run(("client-2", "server-2"), Some((step, &overheard)));
        assert!(!is_in, "from {step:?} on");
    }
    // Towards a server that is asked the same with a new nonce of its own, the old proof is worth nothing either.
    assert!(!run(("client-1", "server-2"), Some((Step::ClientFinal, &overheard))).0);
}
