//! SCRAM's messages without what carries them. The first byte chooses mechanism and channel binding, lines are messages.

use weir_auth::Secret;
use weir_auth::scram::{ChannelBinding, Credential, Mechanism, Verifier, client, server};

use crate::logins::{PASSWORD, SALT, binding, expensive};

/// A client's two messages to weir. Only the right one of all proofs is taken, so that what is altered is refused.
pub(crate) fn server_role(bytes: &[u8]) {
    let Some((choice, mechanism, first, last)) = messages(bytes) else { return };
    let Ok(verifier) = Verifier::from_password(PASSWORD, SALT, 1) else { return };
    let begun = server::first(first, verifier.clone(), "the-server-nonce", &binding(choice), mechanism);
    let Ok((exchange, challenge)) = begun else { return };
    assert!(challenge.starts_with(b"r="));
    let Ok(proven) = exchange.finish(last) else { return };
    assert!(proven.message.starts_with(b"v="));
    // Whoever got here knows the password: the keys that it showed are good for the same verifier once more.
    let clear = (&ChannelBinding::NotSupported, Mechanism::Sha256);
    let (hello, message) = client::first("another-nonce", clear.0, clear.1).expect("it is printable");
    let credential = Credential::Keys(proven.keys);
    let again = server::first(&message, verifier, "the-server-nonce", clear.0, clear.1);
    let (exchange, challenge) = again.expect("our own client is understood");
    let (_, message) = hello.respond(&challenge, &credential).expect("our own server is understood");
    assert!(exchange.finish(&message).is_ok());
}

/// A server's two messages to weir.
pub(crate) fn client_role(bytes: &[u8]) {
    let Some((choice, mechanism, challenge, outcome)) = messages(bytes) else { return };
    let credential = Credential::Password { password: Secret::from(PASSWORD), derived: None };
    let Ok((first, message)) = client::first("the-client-nonce", &binding(choice), mechanism) else { return };
    assert!(message.ends_with(b"r=the-client-nonce"));
    if expensive(challenge) {
        return;
    }
    let Ok((last, message)) = first.respond(challenge, &credential) else { return };
    assert!(message.windows(2).any(|pair| pair == b"p="));
    let _ = last.verify(outcome);
}

fn messages(bytes: &[u8]) -> Option<(u8, Mechanism, &[u8], &[u8])> {
    let (&choice, text) = bytes.split_first()?;
    let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    let mechanism = if choice & 1 == 0 { Mechanism::Sha256 } else { Mechanism::Sha256Plus };
    Some((choice, mechanism, &text[..end], text.get(end + 1..).unwrap_or_default()))
}
