//! From the lines of the file to rules. Refuses by a sentence what PostgreSQL has and a pooler cannot tell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::token::{self, Token};
use super::{Addresses, DatabaseName, HbaMethod, HbaProblem, HbaRule, Tls, Transport, UserName};
use crate::IdentMaps;

type Wrong = (String, String);
type Include<'a> = &'a mut dyn FnMut(&str) -> Result<String, String>;

pub(super) fn rules(
    text: &str,
    maps: &IdentMaps,
    include: Include<'_>,
) -> Result<Vec<HbaRule>, Vec<HbaProblem>> {
    let (lines, open) = token::lines(text);
    let unclosed =
        |line| HbaProblem { line, what: "a quote is not closed".into(), remedy: "close it".into() };
    let mut problems: Vec<HbaProblem> = open.into_iter().map(unclosed).collect();
    let mut rules = Vec::new();
    for (line, fields) in lines {
        match rule(line, &fields, maps, include) {
            Ok(rule) => rules.push(rule),
            Err((what, remedy)) => problems.push(HbaProblem { line, what, remedy }),
        }
    }
    problems.sort_by_key(|problem| problem.line);
    if problems.is_empty() { Ok(rules) } else { Err(problems) }
}

fn rule(
    line: usize,
    fields: &[Vec<Token>],
    maps: &IdentMaps,
    include: Include<'_>,
) -> Result<HbaRule, Wrong> {
    let mut rest = fields.iter();
    let kind = one(rest.next(), "connection type")?;
    let tls = match kind.text.as_str() {
        "local" => None,
        "host" => Some(Tls::Either),
        "hostssl" => Some(Tls::Needed),
        "hostnossl" => Some(Tls::Forbidden),
        "hostgssenc" | "hostnogssenc" => {
            return Err(wrong(
                &format!("{:?} is about GSSAPI encryption, which weir has not", kind.text),
                KINDS,
            ));
        }
        other => return Err(wrong(&format!("{other:?} is not a connection type"), KINDS)),
    };
    let databases = databases(rest.next().ok_or_else(|| missing("database"))?, include)?;
    let users = users(rest.next().ok_or_else(|| missing("user"))?, include)?;
    let transport = match tls {
        None => Transport::Local,
        Some(tls) => Transport::Tcp { tls, from: addresses(&mut rest)? },
    };
    let method = method(one(rest.next(), "method")?)?;
    if method == HbaMethod::Peer && transport != Transport::Local {
        return Err(wrong("peer works on Unix sockets only", "write it in a \"local\" line"));
    }
    if method == HbaMethod::Cert && !matches!(transport, Transport::Tcp { tls: Tls::Needed, .. }) {
        return Err(wrong("cert works with TLS only", "write it in a \"hostssl\" line"));
    }
    let mut map = None;
    for option in rest.flatten() {
        map = Some(map_option(option, method, maps)?);
    }
    Ok(HbaRule { line, method, map, transport, databases, users })
}

fn databases(field: &[Token], include: Include<'_>) -> Result<Vec<DatabaseName>, Wrong> {
    let mut names = Vec::new();
    for token in expand(field, include)? {
        names.push(match token.text.as_str() {
            "all" if !token.quoted => DatabaseName::All,
            "sameuser" if !token.quoted => DatabaseName::SameUser,
            "replication" if !token.quoted => DatabaseName::Replication,
            "samerole" | "samegroup" if !token.quoted => {
                let what =
                    format!("{:?} needs PostgreSQL's catalog, which is not asked at a login", token.text);
                return Err((what, "name the databases, or write sameuser or all".into()));
            }
            text if !token.quoted && text.starts_with('/') => {
                return Err((format!("{text:?}: regular expressions are not supported here"), NAMES.into()));
            }
            _ => DatabaseName::Named(token.text),
        });
    }
    Ok(names)
}

fn users(field: &[Token], include: Include<'_>) -> Result<Vec<UserName>, Wrong> {
    let mut names = Vec::new();
    for token in expand(field, include)? {
        names.push(match token.text.as_str() {
            "all" if !token.quoted => UserName::All,
            text if !token.quoted && text.starts_with('+') => {
                let what =
                    format!("{text:?}: membership needs PostgreSQL's catalog, which is not asked at a login");
                return Err((what, NAMES.into()));
            }
            text if !token.quoted && text.starts_with('/') => {
                return Err((format!("{text:?}: regular expressions are not supported here"), NAMES.into()));
            }
            _ => UserName::Named(token.text),
        });
    }
    Ok(names)
}

/// Puts the words of `@file` in its place. A file names no other file.
fn expand(field: &[Token], include: Include<'_>) -> Result<Vec<Token>, Wrong> {
    let mut expanded = Vec::new();
    for token in field {
        let Some(name) = token.text.strip_prefix('@').filter(|name| !token.quoted && !name.is_empty()) else {
            expanded.push(token.clone());
            continue;
        };
        let text = include(name).map_err(|why| {
            (format!("cannot read {name}: {why}"), "name a file that weir's user can read".to_owned())
        })?;
        let (lines, open) = token::lines(&text);
        if let Some(line) = open.first() {
            return Err((format!("{name}:{line}: a quote is not closed"), "close it".into()));
        }
        let words: Vec<Token> = lines.into_iter().flat_map(|(_, fields)| fields).flatten().collect();
        if words.iter().any(|word| !word.quoted && word.text.starts_with('@')) {
            return Err((format!("{name} names another file"), "put the names into one file".into()));
        }
        expanded.extend(words);
    }
    Ok(expanded)
}

fn addresses<'a>(rest: &mut impl Iterator<Item = &'a Vec<Token>>) -> Result<Addresses, Wrong> {
    let token = one(rest.next(), "address")?;
    let text = token.text.as_str();
    if token.is("all") {
        return Ok(Addresses::All);
    }
    if token.is("samehost") || token.is("samenet") {
        return Err(wrong(&format!("{text:?} is not supported"), ADDRESS));
    }
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| {
        wrong(&format!("{text:?} is not an IP address; names are not looked up at a login"), ADDRESS)
    })?;
    let mask = match prefix {
        Some(prefix) => mask_of(address, prefix)
            .ok_or_else(|| wrong(&format!("{prefix:?} is not a prefix length for {address}"), ADDRESS))?,
        None => {
            let mask = one(rest.next(), "mask")?;
            let good = mask.text.parse().ok().filter(|mask: &IpAddr| mask.is_ipv4() == address.is_ipv4());
            good.ok_or_else(|| wrong(&format!("{:?} is not a mask for {address}", mask.text), ADDRESS))?
        }
    };
    let network = match (address, mask) {
        (IpAddr::V4(address), IpAddr::V4(mask)) => IpAddr::V4(address & mask),
        (IpAddr::V6(address), IpAddr::V6(mask)) => IpAddr::V6(address & mask),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => address,
    };
    Ok(Addresses::Net { network, mask })
}

fn mask_of(address: IpAddr, prefix: &str) -> Option<IpAddr> {
    let length: u32 = prefix.parse().ok().filter(|_| prefix.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some(match address {
        IpAddr::V4(_) => {
            let bits = u32::MAX.checked_shl(32_u32.checked_sub(length)?).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(bits))
        }
        IpAddr::V6(_) => {
            let bits = u128::MAX.checked_shl(128_u32.checked_sub(length)?).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
    })
}

fn method(token: &Token) -> Result<HbaMethod, Wrong> {
    Ok(match token.text.as_str() {
        "trust" => HbaMethod::Trust,
        "reject" => HbaMethod::Reject,
        "md5" => HbaMethod::Md5,
        "scram-sha-256" => HbaMethod::ScramSha256,
        "password" | "plain" => HbaMethod::Password,
        "peer" => HbaMethod::Peer,
        "cert" => HbaMethod::Cert,
        "ident" => return Err(wrong("the ident protocol is not spoken", "write peer in a \"local\" line")),
        other @ ("gss" | "sspi" | "ldap" | "radius" | "pam" | "bsd" | "oauth" | "any") => {
            return Err(wrong(&format!("method {other:?} is not supported here"), METHODS));
        }
        other => return Err(wrong(&format!("{other:?} is not a method"), METHODS)),
    })
}

fn map_option(option: &Token, method: HbaMethod, maps: &IdentMaps) -> Result<String, Wrong> {
    let Some(map) = option.text.strip_prefix("map=") else {
        let remedy = "leave it out; the only option is map=NAME, with cert and peer";
        return Err(wrong(&format!("option {:?} is not supported", option.text), remedy));
    };
    if !matches!(method, HbaMethod::Cert | HbaMethod::Peer) {
        return Err(wrong("a map is for cert and peer only", "leave map= out"));
    }
    if !maps.contains(map) {
        let remedy = "write it there, one line \"MAP SYSTEM-NAME USER\" for each way in (auth_ident_file)";
        return Err(wrong(&format!("there is no map {map:?} in the identity file"), remedy));
    }
    Ok(map.to_owned())
}

fn one<'a>(field: Option<&'a Vec<Token>>, what: &str) -> Result<&'a Token, Wrong> {
    match field.map(Vec::as_slice) {
        Some([token]) => Ok(token),
        Some(_) => Err(wrong(&format!("the {what} is a list"), "write one word there")),
        None => Err(missing(what)),
    }
}

fn missing(what: &str) -> Wrong {
    wrong(&format!("the {what} is missing"), "write TYPE DATABASE USER [ADDRESS] METHOD")
}

fn wrong(what: &str, remedy: &str) -> Wrong {
    (what.to_owned(), remedy.to_owned())
}

const KINDS: &str = "write local, host, hostssl or hostnossl";
const NAMES: &str = "name the users, or write all";
const ADDRESS: &str =
    "write all, an address with a prefix length such as 10.0.0.0/8 or ::1/128, or an address and a mask";
const METHODS: &str = "write trust, reject, md5, scram-sha-256, password, peer or cert";
