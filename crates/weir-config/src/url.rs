//! The two kinds of URL that weir is given: a PostgreSQL connection URI and the base of Patroni's REST API.
//! Knows no setting, and quotes nothing of a PostgreSQL URL in a complaint: any part of it may be a password.

use weir_auth::Secret;

use crate::model::TlsMode;
use crate::problem::Wrong;
use crate::value::TLS_MODES;

/// A connection URI in libpq's form (PostgreSQL, "Connection URIs"), with one host.
#[derive(Debug, Clone, Default)]
pub(crate) struct PostgresUrl {
    /// Host name, address, or directory of a Unix socket.
    pub(crate) host: String,
    /// TCP port; 5432 if the URL has none.
    pub(crate) port: u16,
    /// User to log in as.
    pub(crate) user: Option<String>,
    /// That user's password.
    pub(crate) password: Option<Secret>,
    /// Database of the path.
    pub(crate) database: Option<String>,
    /// `sslmode`.
    pub(crate) tls_mode: Option<TlsMode>,
    /// `sslrootcert`.
    pub(crate) ca_file: Option<String>,
    /// `sslcert`.
    pub(crate) cert_file: Option<String>,
    /// `sslkey`.
    pub(crate) key_file: Option<String>,
}

impl PostgresUrl {
    /// Reads `postgres://user:password@host:port/database?sslmode=require`. Everything but the host may be left out.
    pub(crate) fn parse(text: &str) -> Result<Self, Wrong> {
        let rest = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"))
            .ok_or_else(|| wrong("this is not a PostgreSQL URL"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut url = Self { port: 5432, ..Self::default() };
        let host_and_port = match authority.rsplit_once('@') {
            Some((login, host_and_port)) => {
                url.take_login(login)?;
                host_and_port
            }
            None => authority,
        };
        url.take_host(host_and_port)?;
        url.database = filled(decode(path)?);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            url.take_parameter(pair)?;
        }
        if url.host.is_empty() {
            return Err(wrong("the URL names no host"));
        }
        Ok(url)
    }

    fn take_login(&mut self, login: &str) -> Result<(), Wrong> {
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        self.user = filled(decode(user)?);
        self.password = filled(decode(password)?).map(|password| Secret::from(password.into_bytes()));
        if self.user.is_none() && self.password.is_some() {
            return Err(wrong("the URL has a password and no user"));
        }
        Ok(())
    }

    fn take_host(&mut self, text: &str) -> Result<(), Wrong> {
        if text.contains(',') {
            return Err(Wrong::new(
                "the URL names several hosts",
                "name one PostgreSQL server, or follow a cluster by its Patroni URLs (--patroni, patroni.urls)",
            ));
        }
        let (host, port) = split_port(text).ok_or_else(bad_port)?;
        self.host = decode(host)?;
        self.port = port.unwrap_or(5432);
        Ok(())
    }

    fn take_parameter(&mut self, pair: &str) -> Result<(), Wrong> {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value)?;
        match name {
            "sslmode" => {
                let known = TLS_MODES.iter().find(|(word, _)| *word == value);
                let (_, mode) = known.ok_or_else(|| {
                    wrong("the URL's sslmode is not one of disable, allow, prefer, require, verify-ca, verify-full")
                })?;
                self.tls_mode = Some(*mode);
            }
            "sslrootcert" => self.ca_file = filled(value),
            "sslcert" => self.cert_file = filled(value),
            "sslkey" => self.key_file = filled(value),
            "host" => self.host = value,
            _ => {
                return Err(wrong(
                    "the URL has a parameter that weir does not know \
                     (known: sslmode, sslrootcert, sslcert, sslkey, host)",
                ));
            }
        }
        Ok(())
    }
}

/// Reads the base URL of a Patroni REST API and gives it back as `http://host:port`; the port defaults to 8008.
pub(crate) fn patroni_base(text: &str) -> Result<String, Wrong> {
    let remedy = "write http://host:8008 or https://host:8008";
    let no_url = || Wrong::new(format!("{text:?} is not the URL of a Patroni REST API"), remedy);
    let (scheme, rest) = text.split_once("://").ok_or_else(no_url)?;
    if !["http", "https"].contains(&scheme) {
        return Err(no_url());
    }
    if rest.contains('@') {
        return Err(Wrong::new(
            "credentials in a Patroni URL are not used",
            "leave them out: what weir asks Patroni (GET /primary, GET /cluster) needs none",
        ));
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let plain = !authority
        .contains(|c: char| matches!(c, '/' | '?' | '#' | '%') || c.is_whitespace() || c.is_control());
    match split_port(authority) {
        Some((host, port)) if plain && !host.is_empty() => {
            let port = port.unwrap_or(8008);
            Ok(if host.contains(':') {
                format!("{scheme}://[{host}]:{port}")
            } else {
                format!("{scheme}://{host}:{port}")
            })
        }
        Some(_) | None => Err(no_url()),
    }
}

/// Host (an IPv6 address without its brackets) and port, if there is one. `None`: what stands as port is none.
pub(crate) fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
        (host, port)
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    match port {
        None | Some("") => Some((host, None)),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
            Some((host, Some(port)))
        }
        Some(_) => None,
    }
}

/// Undoes percent-encoding (RFC 3986, section 2.1).
fn decode(text: &str) -> Result<String, Wrong> {
    let bad = || wrong("the URL has a '%' that is not followed by two hexadecimal digits of UTF-8 text");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2).ok_or_else(bad)?;
        let digits =
            str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        bytes.push(digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).ok_or_else(bad)?);
        rest = after;
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')).ok_or_else(bad)
}

fn filled(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn bad_port() -> Wrong {
    wrong("the URL's port is not a number from 1 to 65535")
}

fn wrong(what: &str) -> Wrong {
    Wrong::new(
        what,
        "write postgres://user:password@host:5432/database?sslmode=require, \
         where only the host is needed and : / ? @ % in a password are written %3A %2F %3F %40 %25",
    )
}

#[cfg(test)]
mod tests;
