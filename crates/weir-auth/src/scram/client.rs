//! The client role: we prove ourselves to PostgreSQL and do not believe it until it has proven itself to us.

use subtle::ConstantTimeEq;

use super::crypto;
use super::message::{Attributes, bounded, decode, decode_key, encode, is_printable};
use super::{
    ChannelBinding, Credential, Derivation, DerivedKeys, ITERATIONS_MAX, Keys, Mechanism, ScramError,
};

/// An exchange whose first message went out.
#[derive(Debug)]
pub struct First {
    nonce: Vec<u8>,
    /// GS2 header and binding data, repeated in the `c=` attribute.
    binding: Vec<u8>,
    bare: Vec<u8>,
}

/// An exchange whose server has named salt and iteration count; our proof is next.
#[derive(Debug)]
pub struct Challenged {
    salt: Vec<u8>,
    iterations: u32,
    /// The client-final-message up to the proof.
    without_proof: Vec<u8>,
    /// RFC 5802's AuthMessage.
    transcript: Vec<u8>,
}

/// An exchange whose proof went out; the server's own proof is next.
#[derive(Debug)]
pub struct Final {
    derived: DerivedKeys,
    /// RFC 5802's AuthMessage.
    transcript: Vec<u8>,
}

/// The mechanism to use of those that a server offers; `None` when there is no usable one.
#[must_use]
pub fn choose(offered: &[&[u8]], binding: &ChannelBinding) -> Option<Mechanism> {
    let is_offered = |mechanism: Mechanism| offered.contains(&mechanism.name().as_bytes());
    let can_bind = match binding {
        ChannelBinding::NotSupported => false,
        ChannelBinding::ServerEndPoint(_) => true,
    };
    if can_bind && is_offered(Mechanism::Sha256Plus) {
        return Some(Mechanism::Sha256Plus);
    }
    is_offered(Mechanism::Sha256).then_some(Mechanism::Sha256)
}

/// Makes the client-first-message for the mechanism that [`choose`] gave. `nonce` is fresh for every exchange and
/// printable. The user name stays empty, as libpq leaves it: PostgreSQL takes the startup packet's.
///
/// # Errors
/// [`ScramError::UnusableNonce`], or [`ScramError::UnsupportedBinding`] for -PLUS without anything to bind to.
pub fn first(
    nonce: &str,
    binding: &ChannelBinding,
    mechanism: Mechanism,
) -> Result<(First, Vec<u8>), ScramError> {
    first_as("", nonce, binding, mechanism)
}

/// The same with a user name, which peers other than PostgreSQL insist on.
pub(super) fn first_as(
    user: &str,
    nonce: &str,
    binding: &ChannelBinding,
    mechanism: Mechanism,
) -> Result<(First, Vec<u8>), ScramError> {
    if nonce.is_empty() || !is_printable(nonce.as_bytes()) {
        return Err(ScramError::UnusableNonce);
    }
    let (header, data): (&[u8], &[u8]) = match (mechanism, binding) {
        (Mechanism::Sha256, ChannelBinding::NotSupported) => (b"n,,", &[]),
        // We could bind, the server seems unable to: it refuses this if its offer was removed on the way.
        (Mechanism::Sha256, ChannelBinding::ServerEndPoint(_)) => (b"y,,", &[]),
        (Mechanism::Sha256Plus, ChannelBinding::ServerEndPoint(hash)) => (b"p=tls-server-end-point,,", hash),
        (Mechanism::Sha256Plus, ChannelBinding::NotSupported) => return Err(ScramError::UnsupportedBinding),
    };
    let bare = format!("n={user},r={nonce}").into_bytes();
    let message = [header, &bare].concat();
    Ok((First { nonce: nonce.as_bytes().to_vec(), binding: [header, data].concat(), bare }, message))
}

impl First {
    /// Takes the server-first-message.
    ///
    /// # Errors
    /// When the message is malformed, its nonce does not extend ours, or it asks for more than [`ITERATIONS_MAX`].
    pub fn challenged(self, server_first: &[u8]) -> Result<Challenged, ScramError> {
        let ServerFirst { nonce, salt, iterations } = ServerFirst::parse(bounded(server_first)?)?;
        let extends_ours = nonce.len() > self.nonce.len() && nonce.starts_with(&self.nonce);
        if !extends_ours || !is_printable(nonce) {
            return Err(ScramError::NonceMismatch);
        }
        let without_proof = [b"c=", encode(&self.binding).as_bytes(), b",r=", nonce].concat();
        let transcript = [&self.bare, b",".as_slice(), server_first, b",", &without_proof].concat();
        Ok(Challenged { salt, iterations, without_proof, transcript })
    }

    /// Takes the server-first-message and answers with the client-final-message at once. With a password whose keys
    /// are not known for this salt this costs the server's number of iterations: see [`Challenged::keys`].
    ///
    /// # Errors
    /// As [`First::challenged`].
    pub fn respond(
        self,
        server_first: &[u8],
        credential: &Credential,
    ) -> Result<(Final, Vec<u8>), ScramError> {
        let challenged = self.challenged(server_first)?;
        let keys = challenged.keys(credential).unwrap_or_else(|derivation| derivation.run().keys);
        Ok(challenged.prove(keys))
    }
}

impl Challenged {
    /// The keys that fit the server's salt, if they are known.
    ///
    /// # Errors
    /// Gives what has to be computed to know them.
    pub fn keys(&self, credential: &Credential) -> Result<Keys, Derivation> {
        match credential {
            Credential::Keys(keys) => Ok(keys.clone()),
            Credential::Password { password: _, derived: Some(known) }
                if known.salt == self.salt && known.iterations == self.iterations =>
            {
                Ok(known.keys.clone())
            }
            Credential::Password { password, derived: _ } => {
                Err(Derivation::new(password.clone(), &self.salt, self.iterations))
            }
        }
    }

    /// Makes the client-final-message.
    #[must_use]
    pub fn prove(self, keys: Keys) -> (Final, Vec<u8>) {
        let Self { salt, iterations, without_proof, transcript } = self;
        let signature = crypto::hmac(&crypto::hash(&keys.client_key), &[&transcript]);
        let proof = crypto::xor(&keys.client_key, &signature);
        let message = [&without_proof, b",p=".as_slice(), encode(&proof).as_bytes()].concat();
        (Final { derived: DerivedKeys { salt, iterations, keys }, transcript }, message)
    }
}

impl Final {
    /// Takes the server-final-message. Only now is it known that the peer is a server which knows the secret.
    ///
    /// # Errors
    /// [`ScramError::WrongServerProof`] when it is not, [`ScramError::RefusedByServer`] when it refused us.
    pub fn verify(self, server_final: &[u8]) -> Result<DerivedKeys, ScramError> {
        let message = bounded(server_final)?;
        if message.starts_with(b"e=") {
            return Err(ScramError::RefusedByServer);
        }
        let mut attributes = Attributes::of(message);
        let signature = attributes.take(b'v', "the server's signature is missing")?;
        // Extensions would be allowed here, but nothing proves them; PostgreSQL has none, and libpq takes none.
        attributes.nothing_more()?;
        let signature = decode_key(signature, "the server's signature is not 32 bytes in base64")?;
        let expected = crypto::hmac(&self.derived.keys.server_key, &[&self.transcript]);
        if !bool::from(expected.ct_eq(&signature)) {
            return Err(ScramError::WrongServerProof);
        }
        Ok(self.derived)
    }
}

/// A server-first-message.
struct ServerFirst<'a> {
    nonce: &'a [u8],
    salt: Vec<u8>,
    iterations: u32,
}

impl<'a> ServerFirst<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, ScramError> {
        let mut attributes = Attributes::of(message);
        if attributes.mandatory_extension() {
            return Err(ScramError::MandatoryExtension);
        }
        let nonce = attributes.take(b'r', "the nonce is missing")?;
        let salt = decode(attributes.take(b's', "the salt is missing")?, "the salt is not base64")?;
        let iterations = parse_iterations(attributes.take(b'i', "the iteration count is missing")?)?;
        attributes.finish()?;
        if salt.is_empty() {
            return Err(ScramError::Malformed("the salt is empty"));
        }
        Ok(Self { nonce, salt, iterations })
    }
}

fn parse_iterations(text: &[u8]) -> Result<u32, ScramError> {
    let digits = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let count: u32 = digits
        .and_then(|digits| digits.parse().ok())
        .ok_or(ScramError::Malformed("the iteration count is not a number"))?;
    if !(1..=ITERATIONS_MAX).contains(&count) {
        return Err(ScramError::Iterations(count));
    }
    Ok(count)
}
