//! HTTP's Basic authentication (RFC 7617), from the side that shows who it is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroize;

use crate::Secret;

/// The value of the header `Authorization`. A user with a colon in the name could not be told from the password.
#[must_use]
pub fn authorization(user: &str, password: &Secret) -> Secret {
    // Sized ahead: growing would leave copies behind in freed memory.
    let mut pair = Vec::with_capacity(user.len() + 1 + password.expose().len());
    pair.extend_from_slice(user.as_bytes());
    pair.push(b':');
    pair.extend_from_slice(password.expose());
    let mut value = String::with_capacity(SCHEME.len() + pair.len().div_ceil(3) * 4);
    value.push_str(SCHEME);
    STANDARD.encode_string(&pair, &mut value);
    pair.zeroize();
    Secret::from(value)
}

const SCHEME: &str = "Basic ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard() {
        let value = authorization("Aladdin", &Secret::from("open sesame"));
        assert_eq!(value.expose(), b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(authorization("", &Secret::from("")).expose(), b"Basic Og==");
    }
}
