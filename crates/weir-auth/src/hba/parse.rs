//! From the lines of the file to rules. Refuses by a sentence what PostgreSQL has and a pooler cannot tell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use super::lines::{self, Line, Place, Surroundings, Wrong};
use super::token::Token;
use super::{
    Addresses, CertificateDemand, DatabaseName, HbaMethod, HbaProblem, HbaRule, Net, Tls, Transport, UserName,
};
use crate::IdentMaps;
use crate::elsewhere::{Authority, LdapOptions, PAM_SERVICE, not_an_option};
use crate::pattern::Pattern;

pub(super) fn rules(
    file: &Path,
    text: &str,
    maps: &IdentMaps,
    around: &dyn Surroundings,
) -> Result<Vec<HbaRule>, Vec<HbaProblem>> {
    let mut problems = Vec::new();
    let mut rules = Vec::new();
    for line in lines::read(file, text, around, &mut problems) {
        match rule(&line, maps, around) {
            Ok(rule) => rules.push(rule),
            Err(wrong) => problems.push(line.place.problem(wrong)),
        }
    }
    problems.sort_by(|left, right| (&left.file, left.line).cmp(&(&right.file, right.line)));
    if problems.is_empty() { Ok(rules) } else { Err(problems) }
}

fn rule(line: &Line, maps: &IdentMaps, around: &dyn Surroundings) -> Result<HbaRule, Wrong> {
    let place = &line.place;
    let mut rest = line.fields.iter();
    let tls = kind(one(rest.next(), "connection type")?)?;
    let databases = databases(rest.next().ok_or_else(|| missing("database"))?, place, around)?;
    let users = users(rest.next().ok_or_else(|| missing("user"))?, place, around)?;
    let transport = match tls {
        None => Transport::Local,
        Some(tls) => Transport::Tcp { tls, from: addresses(&mut rest, around)? },
    };
    let method = method(one(rest.next(), "method")?)?;
    let by_tls = matches!(transport, Transport::Tcp { tls: Tls::Needed, .. });
    if method == HbaMethod::Peer && transport != Transport::Local {
        return Err(wrong("peer works on Unix sockets only", "write it in a \"local\" line"));
    }
    if method == HbaMethod::Cert && !by_tls {
        return Err(wrong("cert works with TLS only", "write it in a \"hostssl\" line"));
    }
    let (file, line) = (place.file.to_path_buf(), place.line);
    let (map, certificate, authority) = (None, CertificateDemand::None, None);
    let mut rule = HbaRule { file, line, method, map, certificate, authority, transport, databases, users };
    let mut elsewhere = Elsewhere::of(method, around)?;
    for option in rest.flatten() {
        if !elsewhere.take(option)? {
            take_option(option, by_tls, maps, &mut rule)?;
        }
    }
    rule.authority = elsewhere.finish()?.map(Arc::new);
    let takes_map = matches!(method, HbaMethod::Cert | HbaMethod::Peer);
    if rule.map.is_some() && !takes_map {
        return Err(wrong("a map is for cert and peer only", "leave map= out"));
    }
    Ok(rule)
}

fn kind(kind: &Token) -> Result<Option<Tls>, Wrong> {
    Ok(match kind.text.as_str() {
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
    })
}

fn databases(field: &[Token], place: &Place, around: &dyn Surroundings) -> Result<Vec<DatabaseName>, Wrong> {
    let mut names = Vec::new();
    for token in lines::expand(field, place, around)? {
        names.push(match (token.text.as_str(), Pattern::of(&token.text)) {
            ("all", _) if !token.quoted => DatabaseName::All,
            ("sameuser", _) if !token.quoted => DatabaseName::SameUser,
            ("samerole" | "samegroup", _) if !token.quoted => {
                lines::group("+samerole", around)?;
                DatabaseName::SameRole
            }
            ("replication", _) if !token.quoted => DatabaseName::Replication,
            (_, Some(pattern)) => DatabaseName::Pattern(pattern?),
            (_, None) => DatabaseName::Named(token.text),
        });
    }
    Ok(names)
}

fn users(field: &[Token], place: &Place, around: &dyn Surroundings) -> Result<Vec<UserName>, Wrong> {
    let mut names = Vec::new();
    for token in lines::expand(field, place, around)? {
        names.push(match (token.text.as_str(), Pattern::of(&token.text)) {
            ("all", _) if !token.quoted => UserName::All,
            (text, _) if !token.quoted && text.starts_with('+') => {
                UserName::Group(lines::group(text, around)?)
            }
            (_, Some(pattern)) => UserName::Pattern(pattern?),
            (_, None) => UserName::Named(token.text),
        });
    }
    Ok(names)
}

fn addresses<'a>(
    rest: &mut impl Iterator<Item = &'a Vec<Token>>,
    around: &dyn Surroundings,
) -> Result<Addresses, Wrong> {
    let token = one(rest.next(), "address")?;
    let text = token.text.as_str();
    if token.is("all") {
        return Ok(Addresses::All);
    }
    if token.is("samehost") || token.is("samenet") {
        let own = around.networks().map_err(|why| wrong(&format!("{text}: {why}"), ADDRESS))?;
        let narrow = |(address, mask): (IpAddr, IpAddr)| {
            let mask = if text == "samehost" { whole_mask(address) } else { mask };
            Net::of(address.to_canonical(), mask)
        };
        return Ok(Addresses::Nets(own.into_iter().map(narrow).collect()));
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
            let good = mask.text.parse().ok().filter(|mask| is_mask_for(address, *mask));
            good.ok_or_else(|| wrong(&format!("{:?} is not a mask for {address}", mask.text), ADDRESS))?
        }
    };
    Ok(Addresses::Nets(vec![Net::of(address, mask)]))
}

/// A mask of this family, with all ones in front of all zeros.
fn is_mask_for(address: IpAddr, mask: IpAddr) -> bool {
    match (address, mask) {
        (IpAddr::V4(_), IpAddr::V4(mask)) => mask.to_bits().leading_ones() == mask.to_bits().count_ones(),
        (IpAddr::V6(_), IpAddr::V6(mask)) => mask.to_bits().leading_ones() == mask.to_bits().count_ones(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

fn whole_mask(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::BROADCAST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
    }
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
        "ldap" => HbaMethod::Ldap,
        "pam" => HbaMethod::Pam,
        "ident" => return Err(wrong("the ident protocol is not spoken", "write peer in a \"local\" line")),
        other @ ("gss" | "sspi" | "radius" | "bsd" | "oauth" | "any") => {
            return Err(wrong(&format!("method {other:?} is not supported here"), METHODS));
        }
        other => return Err(wrong(&format!("{other:?} is not a method"), METHODS)),
    })
}

fn take_option(option: &Token, by_tls: bool, maps: &IdentMaps, rule: &mut HbaRule) -> Result<(), Wrong> {
    let Some((name, value)) = option.text.split_once('=') else {
        return Err(wrong(&format!("{:?} is not of the form NAME=VALUE", option.text), OPTIONS));
    };
    match (name, value) {
        ("map", map) if maps.contains(map) => rule.map = Some(map.to_owned()),
        ("map", map) => {
            let remedy =
                "write it there, one line \"MAP SYSTEM-NAME USER\" for each way in (auth_ident_file)";
            return Err(wrong(&format!("there is no map {map:?} in the identity file"), remedy));
        }
        ("clientcert" | "clientname", _) if !by_tls => {
            return Err(wrong(&format!("{name} works with TLS only"), "write it in a \"hostssl\" line"));
        }
        // What the method asks for anyway.
        ("clientcert", "verify-full") | ("clientname", "CN") if rule.method == HbaMethod::Cert => {}
        ("clientcert", "verify-full") => rule.certificate = CertificateDemand::Named,
        ("clientcert", "verify-ca") if rule.method == HbaMethod::Cert => {
            return Err(wrong("method cert looks at the certificate's name, too", "leave clientcert= out"));
        }
        ("clientcert", "verify-ca") => rule.certificate = CertificateDemand::Trusted,
        ("clientcert", other) => {
            let what = format!("{other:?} says nothing about certificates");
            return Err(wrong(&what, "write clientcert=verify-ca or clientcert=verify-full"));
        }
        ("clientname", "CN") => {}
        ("clientname", other) => {
            let what = format!("certificates are known by their common name, not by {other:?}");
            return Err(wrong(&what, "leave clientname= out"));
        }
        (_, _) => return Err(wrong(&format!("option {name:?} is not supported"), OPTIONS)),
    }
    Ok(())
}

/// Who judges passwords, as far as the options have said.
enum Elsewhere {
    Nobody,
    Ldap(LdapOptions),
    Pam(String),
}

impl Elsewhere {
    fn of(method: HbaMethod, around: &dyn Surroundings) -> Result<Self, Wrong> {
        let (name, elsewhere) = match method {
            HbaMethod::Ldap => ("ldap", Self::Ldap(LdapOptions::default())),
            HbaMethod::Pam => ("pam", Self::Pam(PAM_SERVICE.to_owned())),
            HbaMethod::Trust
            | HbaMethod::Reject
            | HbaMethod::Md5
            | HbaMethod::ScramSha256
            | HbaMethod::Password
            | HbaMethod::Peer
            | HbaMethod::Cert => return Ok(Self::Nobody),
        };
        if around.has_feature(name) {
            return Ok(elsewhere);
        }
        let remedy = format!("build it with --features {name}, as packages are, or write another method");
        Err((format!("this weir was built without the feature {name:?}"), remedy))
    }

    /// Whether the option was for these.
    fn take(&mut self, option: &Token) -> Result<bool, Wrong> {
        let (name, value) = match (option.text.split_once('='), &self) {
            (Some(pair), _) => pair,
            (None, Self::Ldap(_)) => return Err(not_an_option()),
            (None, Self::Nobody | Self::Pam(_)) => return Ok(false),
        };
        match self {
            Self::Ldap(options) if name.starts_with("ldap") => options.take(name, value)?,
            Self::Pam(service) if name == "pamservice" && !value.is_empty() => *service = value.to_owned(),
            Self::Nobody | Self::Ldap(_) | Self::Pam(_) => return Ok(false),
        }
        Ok(true)
    }

    fn finish(self) -> Result<Option<Authority>, Wrong> {
        Ok(match self {
            Self::Nobody => None,
            Self::Ldap(options) => Some(options.finish()?),
            Self::Pam(service) => Some(Authority::Pam(service)),
        })
    }
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
const ADDRESS: &str = "write all, samehost, samenet, an address with a prefix length such as 10.0.0.0/8 or ::1/128, or an address and a mask";
const OPTIONS: &str = "leave it out; there are map=NAME with cert and peer, clientcert=verify-ca and =verify-full in hostssl lines, pamservice=NAME with pam and PostgreSQL's ldap... with ldap";
const METHODS: &str = "write trust, reject, md5, scram-sha-256, password, peer, cert, ldap or pam";
