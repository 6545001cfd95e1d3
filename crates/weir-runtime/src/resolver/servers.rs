//! Asks for names: the system's resolver, or the name servers of a resolv.conf. Keeps nothing.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolveHosts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};
use weir_config::Dns;

/// The addresses of a name.
///
/// # Errors
/// Why there are none.
pub(super) async fn ask(host: &str, dns: &Dns) -> Result<Vec<IpAddr>, String> {
    let mut found: Vec<IpAddr> = match (&dns.resolv_conf, dns.zone_check_period) {
        (None, None) => {
            let found = tokio::net::lookup_host((host, 0)).await.map_err(|error| error.to_string())?;
            found.map(|address| address.ip()).collect()
        }
        (Some(_), _) | (None, Some(_)) => {
            let lookup = name_servers(dns)?.lookup_ip(host).await.map_err(|error| error.to_string())?;
            lookup.iter().collect()
        }
    };
    // Name servers change the order each time; turns are dealt here.
    found.sort_unstable();
    found.dedup();
    found.truncate(ADDRESSES_MAX);
    if found.is_empty() { Err("it has no address".to_owned()) } else { Ok(found) }
}

/// The serial number of a zone.
///
/// # Errors
/// Why there is none.
pub(super) async fn serial(zone: &str, dns: &Dns) -> Result<u32, String> {
    // With a dot at its end no search domain is tried.
    let zone = format!("{}.", zone.trim_end_matches('.'));
    let lookup = name_servers(dns)?.soa_lookup(zone).await.map_err(|error| error.to_string())?;
    let serial_of = |data: &RData| if let RData::SOA(soa) = data { Some(soa.serial) } else { None };
    let serial = lookup.answers().iter().find_map(|record| serial_of(&record.data));
    serial.ok_or_else(|| "the answer has no SOA record".to_owned())
}

/// Made anew for each question, so that changes of resolv.conf and /etc/hosts count, and nothing is kept twice.
fn name_servers(dns: &Dns) -> Result<TokioResolver, String> {
    let path = dns.resolv_conf.as_deref().unwrap_or(Path::new("/etc/resolv.conf"));
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let (plain, with_port) = take_ports_out(&text);
    let (mut config, mut options) =
        parse_resolv_conf(plain).map_err(|error| format!("{}: {error}", path.display()))?;
    for address in with_port {
        let mut server = NameServerConfig::udp_and_tcp(address.ip());
        server.connections.iter_mut().for_each(|connection| connection.port = address.port());
        config.add_name_server(server);
    }
    if config.name_servers().len() > 1 {
        let (domain, search, mut servers) = config.into_parts();
        // Stands in for those with a port, without which the file would have none.
        servers.retain(|server| server.ip != PLACEHOLDER);
        config = hickory_resolver::config::ResolverConfig::from_parts(domain, search, servers);
    }
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Always;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.timeout = options.timeout.min(QUESTION_TIME_MAX);
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let mut resolver = builder.with_options(options).build().map_err(|error| error.to_string())?;
    resolver.set_hosts(std::sync::Arc::new(Hosts::from_system().unwrap_or_default()));
    Ok(resolver)
}

/// `nameserver 10.0.0.1:5353`, which is no part of resolv.conf(5) but understood by c-ares and by PgBouncer built with it.
fn take_ports_out(text: &str) -> (String, Vec<SocketAddr>) {
    let mut plain = String::new();
    let mut with_port = Vec::new();
    for line in text.lines() {
        let address = line.trim().strip_prefix("nameserver").and_then(|rest| rest.trim().parse().ok());
        match address {
            Some(address) => with_port.push(address),
            None => {
                plain.push_str(line);
                plain.push('\n');
            }
        }
    }
    if !with_port.is_empty() {
        plain.push_str(&format!("nameserver {PLACEHOLDER}\n"));
    }
    (plain, with_port)
}

/// An address that nobody has (RFC 5737).
const PLACEHOLDER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// Addresses of one name that are used.
const ADDRESSES_MAX: usize = 16;

/// One question to one name server.
const QUESTION_TIME_MAX: Duration = Duration::from_secs(5);
