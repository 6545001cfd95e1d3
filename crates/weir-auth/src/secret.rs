//! Bytes that must not be seen: wiped when dropped, compared in constant time, redacted in `Debug`.
//! Knows nothing of what the bytes mean.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// A password or another secret, as bytes (PostgreSQL takes passwords in any encoding).
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// The secret itself. Whoever calls this answers for where the bytes go.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<u8>> for Secret {
    fn from(mut bytes: Vec<u8>) -> Self {
        // Not `into_boxed_slice`: shrinking may move the bytes and leave a copy behind in freed memory.
        let secret = Self(Box::from(bytes.as_slice()));
        bytes.zeroize();
        secret
    }
}

impl From<&[u8]> for Secret {
    fn from(bytes: &[u8]) -> Self {
        Self(Box::from(bytes))
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::from(text.as_bytes())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::from(text.into_bytes())
    }
}

/// Constant time for secrets of equal length; the length itself is not protected.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::from("hunter2")), "Secret(..)");
    }

    #[test]
    fn equality_is_by_content() {
        assert_eq!(Secret::from("a"), Secret::from(vec![b'a']));
        assert_ne!(Secret::from("a"), Secret::from("b"));
        assert_ne!(Secret::from("a"), Secret::from("aa"));
        assert!(Secret::from(String::new()).is_empty());
    }
}
