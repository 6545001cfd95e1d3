//! The server role: a client proves itself to us, and by doing so shows us its ClientKey.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::crypto;
use super::message::{Attributes, bounded, decode_key, encode, is_printable};
use super::{ChannelBinding, Derivation, Keys, Mechanism, ScramError, Verifier};
use crate::Secret;

/// An exchange whose challenge went out; the client's proof is next.
#[derive(Debug)]
pub struct Exchange {
    verifier: Verifier,
    /// Base64 of what the client must repeat in its `c=` attribute: GS2 header and binding data.
    binding: String,
    nonce: Vec<u8>,
    /// `client-first-message-bare`, a comma, and `server-first-message`: the start of RFC 5802's AuthMessage.
    transcript: Vec<u8>,
}

/// A client that has shown its keys.
#[derive(Debug)]
pub struct Proven {
    /// The client's keys: with these weir can log in as that user wherever the same verifier is stored.
    pub keys: Keys,
    /// The server-final-message: shows the client that we know its verifier.
    pub message: Vec<u8>,
}

/// Takes the client-first-message and answers with the server-first-message. `nonce` is this side's part: fresh for
/// every exchange, printable. `binding` says what was offered, `mechanism` what the client chose.
///
/// # Errors
/// When the message is malformed, or its channel binding does not fit the offer.
pub fn first(
    client_first: &[u8],
    verifier: Verifier,
    nonce: &str,
    binding: &ChannelBinding,
    mechanism: Mechanism,
) -> Result<(Exchange, Vec<u8>), ScramError> {
    if nonce.is_empty() || !is_printable(nonce.as_bytes()) {
        return Err(ScramError::UnusableNonce);
    }
    let (header, bare) = split_header(bounded(client_first)?)?;
    let binding = expected_binding(header, binding, mechanism)?;
    let mut combined = client_nonce(bare)?.to_vec();
    combined.extend_from_slice(nonce.as_bytes());

    let mut message = b"r=".to_vec();
    message.extend_from_slice(&combined);
    message
        .extend_from_slice(format!(",s={},i={}", encode(verifier.salt()), verifier.iterations()).as_bytes());
    let transcript = [bare, b",", message.as_slice()].concat();
    Ok((Exchange { verifier, binding, nonce: combined, transcript }, message))
}

impl Exchange {
    /// What has to be computed where only the password is stored, and the challenge was made of a placeholder.
    #[must_use]
    pub fn derivation(&self, password: &Secret) -> Derivation {
        self.verifier.derivation(password)
    }

    /// Holds the proof against this verifier instead of the placeholder of the same salt and iteration count.
    #[must_use]
    pub fn against(self, verifier: Verifier) -> Self {
        Self { verifier, ..self }
    }

    /// Takes the client-final-message: the proof, and through it the client's key.
    ///
    /// # Errors
    /// [`ScramError::WrongProof`] when the client does not know the password; others when the message does not belong
    /// to this exchange or this channel.
    pub fn finish(self, client_final: &[u8]) -> Result<Proven, ScramError> {
        let (without_proof, proof) = split_proof(bounded(client_final)?)?;
        let mut attributes = Attributes::of(without_proof);
        let binding = attributes.take(b'c', "the channel binding is missing")?;
        let nonce = attributes.take(b'r', "the nonce is missing")?;
        attributes.finish()?;
        if binding != self.binding.as_bytes() {
            return Err(ScramError::BindingMismatch);
        }
        if nonce != self.nonce {
            return Err(ScramError::NonceMismatch);
        }
        let transcript: [&[u8]; 3] = [&self.transcript, b",", without_proof];
        let signature = crypto::hmac(self.verifier.stored_key(), &transcript);
        let client_key = crypto::xor(&proof, &signature);
        if !self.verifier.accepts_client_key(&client_key) {
            return Err(ScramError::WrongProof);
        }
        let server_key = *self.verifier.server_key();
        let server_signature = crypto::hmac(&server_key, &transcript);
        let message = format!("v={}", encode(&server_signature)).into_bytes();
        Ok(Proven { keys: Keys { client_key, server_key }, message })
    }
}

/// Cuts off the GS2 header, which ends behind the second comma.
fn split_header(message: &[u8]) -> Result<(&[u8], &[u8]), ScramError> {
    let mut commas = message.iter().enumerate().filter(|(_, byte)| **byte == b',').map(|(at, _)| at);
    let (Some(first), Some(second)) = (commas.next(), commas.next()) else {
        return Err(ScramError::Malformed("the GS2 header is incomplete"));
    };
    match &message[first + 1..second] {
        [] => Ok(message.split_at(second + 1)),
        [b'a', b'=', ..] => Err(ScramError::AuthorizationIdentity),
        _ => Err(ScramError::Malformed("the GS2 header holds an unexpected attribute")),
    }
}

/// Judges the client's binding flag (RFC 5802 section 6) and gives what its `c=` attribute must be.
fn expected_binding(
    header: &[u8],
    offered: &ChannelBinding,
    mechanism: Mechanism,
) -> Result<String, ScramError> {
    let data = match (header.strip_suffix(b",,"), mechanism, offered) {
        (Some(b"n"), Mechanism::Sha256, _)
        | (Some(b"y"), Mechanism::Sha256, ChannelBinding::NotSupported) => &[][..],
        (Some(b"y"), Mechanism::Sha256, ChannelBinding::ServerEndPoint(_)) => {
            return Err(ScramError::BindingDowngraded);
        }
        (Some(b"n" | b"y"), Mechanism::Sha256Plus, _) => {
            return Err(ScramError::Malformed("SCRAM-SHA-256-PLUS without channel binding data"));
        }
        (Some([b'p', b'=', ..]), Mechanism::Sha256, _)
        | (Some([b'p', b'=', ..]), _, ChannelBinding::NotSupported) => {
            return Err(ScramError::Malformed("channel binding data where none was agreed upon"));
        }
        (Some(b"p=tls-server-end-point"), Mechanism::Sha256Plus, ChannelBinding::ServerEndPoint(hash)) => {
            hash
        }
        (Some([b'p', b'=', ..]), Mechanism::Sha256Plus, ChannelBinding::ServerEndPoint(_)) => {
            return Err(ScramError::UnsupportedBinding);
        }
        (Some(_) | None, _, _) => return Err(ScramError::Malformed("unexpected channel-binding flag")),
    };
    Ok(STANDARD.encode([header, data].concat()))
}

/// The client's nonce in `client-first-message-bare`. The name in front of it is not used, as in PostgreSQL.
fn client_nonce(bare: &[u8]) -> Result<&[u8], ScramError> {
    let mut attributes = Attributes::of(bare);
    if attributes.mandatory_extension() {
        return Err(ScramError::MandatoryExtension);
    }
    attributes.take(b'n', "the user name is missing")?;
    let nonce = attributes.take(b'r', "the nonce is missing")?;
    attributes.finish()?;
    if nonce.is_empty() || !is_printable(nonce) {
        return Err(ScramError::Malformed("the nonce is empty or not printable"));
    }
    Ok(nonce)
}

/// Cuts off the proof, which is the last attribute and is not part of what it proves.
fn split_proof(message: &[u8]) -> Result<(&[u8], [u8; 32]), ScramError> {
    let comma = message.iter().rposition(|byte| *byte == b',');
    let (without_proof, last) = message.split_at(comma.unwrap_or(0));
    let proof = last.strip_prefix(b",p=").ok_or(ScramError::Malformed("the proof is missing"))?;
    Ok((without_proof, decode_key(proof, "the proof is not 32 bytes in base64")?))
}
