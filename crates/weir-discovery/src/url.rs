//! The base URL of a REST API, cut to what a connection needs. Resolves nothing and connects nowhere.

use std::fmt;
use std::str::FromStr;

/// Scheme, host and port of one member's REST API. Two spellings of one base URL are equal; a path is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApiUrl {
    https: bool,
    host: String,
    port: u16,
}

/// The text is not `http://host:port` or `https://host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a URL of the form http://host:port or https://host:port")]
pub struct NotAnApiUrl;

impl ApiUrl {
    /// True if the API has to be spoken to over TLS.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Name or address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port; 80 or 443 where the URL names none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What a `Host` header says: host and port, IPv6 in brackets.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl FromStr for ApiUrl {
    type Err = NotAnApiUrl;

    fn from_str(text: &str) -> Result<Self, NotAnApiUrl> {
        if text.len() > URL_BYTES_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(NotAnApiUrl);
        }
        let (scheme, rest) = text.split_once("://").ok_or(NotAnApiUrl)?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(NotAnApiUrl),
        };
        let authority = rest.split(['/', '?', '#']).next().ok_or(NotAnApiUrl)?;
        let (host, port) = split_authority(authority)?;
        let port = match port {
            Some(digits) => digits.parse().map_err(|_| NotAnApiUrl)?,
            None if https => 443,
            None => 80,
        };
        if port == 0 {
            return Err(NotAnApiUrl);
        }
        Ok(Self { https, host: host.to_ascii_lowercase(), port })
    }
}

/// Host without brackets, and the text behind the colon if there is one.
fn split_authority(authority: &str) -> Result<(&str, Option<&str>), NotAnApiUrl> {
    let (host, port) = if let Some(inside) = authority.strip_prefix('[') {
        let (host, behind) = inside.split_once(']').ok_or(NotAnApiUrl)?;
        let port = match behind {
            "" => None,
            _ => Some(behind.strip_prefix(':').ok_or(NotAnApiUrl)?),
        };
        (host, port)
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    // Reading calls need no credentials, so a user name here is a mistake that would leak into logs.
    if host.is_empty() || authority.contains('@') {
        return Err(NotAnApiUrl);
    }
    Ok((host, port))
}

/// Longest URL taken from a `/cluster` answer.
const URL_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let parsed = text.parse::<ApiUrl>().ok().map(|url| url.to_string());
        assert_eq!(parsed.as_deref(), expected, "{text}");
    }

    #[test]
    fn spellings_of_one_base_url_are_equal() {
        check("http://127.0.30.1:8008/patroni", Some("http://127.0.30.1:8008"));
        check("HTTP://Node1:8008", Some("http://node1:8008"));
        check("https://node1/", Some("https://node1:443"));
        check("http://node1?x=1", Some("http://node1:80"));
        check("http://[::1]:8008/patroni", Some("http://[::1]:8008"));
        check("http://[::1]", Some("http://[::1]:80"));
    }

    #[test]
    fn what_is_no_base_url_is_refused() {
        for text in [
            "",
            "node1:8008",
            "ftp://node1",
            "http://",
            "http://:8008",
            "http://node1:port",
            "http://node1:0",
            "http://node1:70000",
            "http://user:pw@node1:8008",
            "http://[::1:8008",
            "http://[::1]8008",
            "http://no de:1",
        ] {
            check(text, None);
        }
    }
}
