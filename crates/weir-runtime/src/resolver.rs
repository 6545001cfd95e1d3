//! Host names: asks for their addresses, keeps the answers for as long as configured, deals the addresses out in turn,
//! and notices addresses that left. Opens no connection; what becomes of those to addresses that left is the machine's
//! affair.
//!
//! The system's own resolver (getaddrinfo: /etc/hosts, DNS, whatever nsswitch.conf names) is asked unless `resolv_conf`
//! or `zone_check_period` is set: then the name servers are asked directly, after /etc/hosts.

mod absences;
mod servers;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task;
use tokio::time::timeout;
use weir_admin::snapshot::{DnsHostRow, DnsZoneRow};
use weir_config::Dns;

use absences::Absences;

/// One thread's knowledge of names.
#[derive(Debug)]
pub(crate) struct Resolver {
    dns: RefCell<Dns>,
    hosts: RefCell<BTreeMap<String, Host>>,
    zones: RefCell<BTreeMap<String, Zone>>,
    /// Addresses that left, by host.
    left: RefCell<BTreeMap<String, Vec<IpAddr>>>,
}

/// A name has other addresses than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddressesLeft {
    pub(crate) host: String,
    /// Those that it no longer has.
    pub(crate) gone: Vec<IpAddr>,
}

/// What is known of one name.
#[derive(Debug)]
struct Host {
    answer: Result<Vec<IpAddr>, String>,
    /// The answer is used until then.
    until: Instant,
    /// Which address is the next one's first.
    turn: usize,
    absences: Absences,
    /// Held while name servers are asked, so that all wait for the same answer.
    asking: Arc<Mutex<()>>,
}

/// What is known of one zone.
#[derive(Debug)]
struct Zone {
    serial: Option<u32>,
    /// Asked for again then.
    next_check: Instant,
}

impl Resolver {
    /// Knows nothing yet.
    pub(crate) fn new(dns: Dns) -> Rc<Self> {
        Rc::new(Self {
            dns: RefCell::new(dns),
            hosts: RefCell::default(),
            zones: RefCell::default(),
            left: RefCell::default(),
        })
    }

    /// Other settings hold from now on; what is known is asked for anew when it is needed.
    pub(crate) fn configure(&self, dns: &Dns, now: Instant) {
        if *self.dns.borrow() == *dns {
            return;
        }
        self.dns.replace(dns.clone());
        self.hosts.borrow_mut().values_mut().for_each(|host| host.until = now);
        self.zones.borrow_mut().clear();
    }

    /// The addresses of a host, beginning with another one each time. An address stands for itself.
    ///
    /// # Errors
    /// Why there are none, for the log.
    pub(crate) async fn addresses(self: &Rc<Self>, host: &str) -> Result<Vec<IpAddr>, String> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        if let Some(answer) = self.fresh(host) {
            return answer;
        }
        let asking = self.entry(host);
        if let Ok(turn) = Arc::clone(&asking).try_lock_owned() {
            let (resolver, host) = (Rc::clone(self), host.to_owned());
            task::spawn_local(async move {
                resolver.ask(&host).await;
                drop(turn);
            });
        }
        // Who has addresses uses them when new ones are long in coming: name servers fail along with other things.
        let patience =
            if self.known(host, |known| known.answer.is_ok()).is_some() { STALE_AFTER } else { ASK_TIME_MAX };
        drop(timeout(patience, asking.lock()).await);
        // However short answers may be kept, this one has just come.
        self.known(host, |_| true).unwrap_or_else(|| Err("too many other names are in use".to_owned()))
    }

    /// Asks for a name, whether those who want to know have the patience or not: the answer is there for the next ones.
    async fn ask(&self, host: &str) {
        let dns = self.dns.borrow().clone();
        let found = timeout(ASK_TIME_MAX, servers::ask(host, &dns)).await;
        let found = found.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        self.learn(host, found, &dns, Instant::now());
    }

    /// What is known and not too old.
    fn fresh(&self, host: &str) -> Option<Result<Vec<IpAddr>, String>> {
        self.known(host, |known| known.until > Instant::now())
    }

    fn known(&self, host: &str, will_do: impl Fn(&Host) -> bool) -> Option<Result<Vec<IpAddr>, String>> {
        let mut hosts = self.hosts.borrow_mut();
        let known = hosts.get_mut(host).filter(|known| will_do(known))?;
        let mut answer = known.answer.clone();
        if let Ok(addresses) = &mut answer
            && !addresses.is_empty()
        {
            let first = known.turn % addresses.len();
            addresses.rotate_left(first);
            known.turn = known.turn.wrapping_add(1);
        }
        Some(answer)
    }

    fn entry(&self, host: &str) -> Arc<Mutex<()>> {
        let mut hosts = self.hosts.borrow_mut();
        if !hosts.contains_key(host) && hosts.len() >= HOSTS_MAX {
            let oldest = hosts.iter().min_by_key(|(_, known)| known.until).map(|(name, _)| name.clone());
            oldest.map(|name| hosts.remove(&name));
        }
        let unknown = || Host {
            answer: Err("not asked for yet".to_owned()),
            until: Instant::now(),
            turn: 0,
            absences: Absences::default(),
            asking: Arc::default(),
        };
        Arc::clone(&hosts.entry(host.to_owned()).or_insert_with(unknown).asking)
    }

    /// Takes an answer in. While name servers are out of order a name keeps the addresses it had.
    fn learn(&self, host: &str, found: Result<Vec<IpAddr>, String>, dns: &Dns, now: Instant) {
        let mut hosts = self.hosts.borrow_mut();
        let Some(known) = hosts.get_mut(host) else { return };
        match (found, &known.answer) {
            (Ok(fresh), before) => {
                let before = before.as_deref().unwrap_or_default();
                let gone = known.absences.note(before, &fresh);
                if !gone.is_empty() {
                    tracing::info!("host \"{host}\" no longer has {gone:?}, but {fresh:?}");
                    self.note_left(host, gone, &fresh);
                }
                known.answer = Ok(fresh);
                known.until = now + dns.max_ttl.max(AT_LEAST);
            }
            (Err(why), Ok(_)) => {
                tracing::warn!("host \"{host}\" keeps its addresses: {why}");
                known.until = now + dns.nxdomain_ttl.max(AT_LEAST);
            }
            (Err(why), Err(_)) => {
                known.answer = Err(why);
                known.until = now + dns.nxdomain_ttl.max(AT_LEAST);
            }
        }
    }

    /// What nobody asks for does not add up.
    fn note_left(&self, host: &str, gone: Vec<IpAddr>, fresh: &[IpAddr]) {
        let mut left = self.left.borrow_mut();
        let sum = left.entry(host.to_owned()).or_default();
        sum.retain(|address| !fresh.contains(address) && !gone.contains(address));
        sum.extend(gone);
        let too_many = sum.len().saturating_sub(LEFT_MAX);
        sum.drain(..too_many);
    }

    /// What has changed since this was called last.
    pub(crate) fn changes(&self) -> Vec<AddressesLeft> {
        let left = std::mem::take(&mut *self.left.borrow_mut());
        left.into_iter().map(|(host, gone)| AddressesLeft { host, gone }).collect()
    }

    /// Names whose addresses are too old, for those who are to go on knowing them.
    pub(crate) fn stale(&self, now: Instant) -> Vec<String> {
        let hosts = self.hosts.borrow();
        let is_stale = |known: &Host| known.answer.is_ok() && known.until <= now;
        let idle = |known: &Host| known.asking.try_lock().is_ok();
        hosts
            .iter()
            .filter(|(_, known)| is_stale(known) && idle(known))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Zones whose serial number is to be asked for now. A zone is what stands behind a name's first dot.
    pub(crate) fn zones_due(&self, now: Instant) -> Vec<String> {
        let Some(period) = self.dns.borrow().zone_check_period else { return Vec::new() };
        let mut zones = self.zones.borrow_mut();
        for zone in self.hosts.borrow().keys().filter_map(|name| zone_of(name)) {
            zones.entry(zone.to_owned()).or_insert(Zone { serial: None, next_check: now });
        }
        let mut due = Vec::new();
        for (name, zone) in zones.iter_mut().filter(|(_, zone)| zone.next_check <= now) {
            zone.next_check = now + period;
            due.push(name.clone());
        }
        due
    }

    /// Asks for a zone's serial number. With another one, all of its names are asked for again.
    pub(crate) async fn check_zone(&self, name: &str) {
        let dns = self.dns.borrow().clone();
        let serial = match timeout(ASK_TIME_MAX, servers::serial(name, &dns)).await {
            Ok(Ok(serial)) => serial,
            Ok(Err(why)) => return tracing::debug!("zone \"{name}\" does not tell its serial number: {why}"),
            Err(_) => return tracing::debug!("zone \"{name}\" does not answer"),
        };
        let mut zones = self.zones.borrow_mut();
        let Some(zone) = zones.get_mut(name) else { return };
        if zone.serial.replace(serial).is_none_or(|before| before == serial) {
            return;
        }
        tracing::info!("zone \"{name}\" has changed, its serial number is {serial}");
        let now = Instant::now();
        for (_, known) in self.hosts.borrow_mut().iter_mut().filter(|(host, _)| zone_of(host) == Some(name)) {
            known.until = now;
        }
    }

    /// SHOW DNS_HOSTS.
    pub(crate) fn host_rows(&self, now: Instant) -> Vec<DnsHostRow> {
        let hosts = self.hosts.borrow();
        let row = |(name, known): (&String, &Host)| DnsHostRow {
            name: name.clone(),
            ttl: known.until.saturating_duration_since(now),
            addresses: known.answer.clone().unwrap_or_default(),
        };
        hosts.iter().map(row).collect()
    }

    /// SHOW DNS_ZONES.
    pub(crate) fn zone_rows(&self) -> Vec<DnsZoneRow> {
        let hosts = self.hosts.borrow();
        let count = |zone: &str| hosts.keys().filter(|name| zone_of(name) == Some(zone)).count();
        let zones = self.zones.borrow();
        let row = |(name, zone): (&String, &Zone)| DnsZoneRow {
            name: name.clone(),
            serial: zone.serial.unwrap_or_default(),
            count: count(name),
        };
        zones.iter().map(row).collect()
    }
}

fn zone_of(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, zone)| zone).filter(|zone| !zone.is_empty())
}

/// An answer is used for this long whatever is configured: by those who waited for it.
const AT_LEAST: Duration = Duration::from_millis(10);

/// Longer than resolv.conf's usual timeouts and attempts together.
const ASK_TIME_MAX: Duration = Duration::from_secs(20);

/// Old addresses are used when new ones have not come within this.
const STALE_AFTER: Duration = Duration::from_millis(300);

/// Names that are kept.
const HOSTS_MAX: usize = 1024;

/// Addresses of one host that left and that nobody has asked for yet.
const LEFT_MAX: usize = 64;

#[cfg(test)]
mod tests;
