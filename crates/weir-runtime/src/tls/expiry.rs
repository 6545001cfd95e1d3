//! When weir's own certificates and the lists of revoked ones end: said in the log before it hurts, and shown as a metric.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weir_admin::metrics::Expiring;

use super::certificate;

/// What should be said about it now. Lists are published anew every day perhaps: nothing is said before it is too late.
fn warning(expiring: &Expiring, now: u64) -> Option<String> {
    let Expiring { what, file, end } = expiring;
    let is_list = *what == REVOKED_CLIENTS || *what == REVOKED_SERVERS;
    match end.checked_sub(now) {
        None if is_list => Some(format!(
            "{what} {file}: the list is past its date, and everybody whom it is about is refused; get a new one and reload"
        )),
        None => Some(format!("{what} {file}: the certificate has expired; replace it and reload")),
        Some(left) if left < SOON.as_secs() && !is_list => {
            let days = left / DAY.as_secs();
            Some(format!("{what} {file}: the certificate expires in {days} days; replace it and reload"))
        }
        Some(_) => None,
    }
}

/// The end of a chain: of the certificate in it that ends first.
pub(super) fn of_chain(what: &'static str, path: &Path, chain: &[impl AsRef<[u8]>]) -> Option<Expiring> {
    let end = chain.iter().filter_map(|der| certificate::not_after(der.as_ref())).min()?;
    Some(Expiring { what, file: path.display().to_string(), end })
}

/// The end of the list in a file that ends first.
pub(super) fn of_revocations(
    what: &'static str,
    path: &Path,
    lists: &[impl AsRef<[u8]>],
) -> Option<Expiring> {
    let end = lists.iter().filter_map(|der| certificate::next_update(der.as_ref())).min()?;
    Some(Expiring { what, file: path.display().to_string(), end })
}

/// Says what has ended and what is about to.
pub(super) fn warn(all: &[Expiring]) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    for warning in all.iter().filter_map(|expiring| warning(expiring, now)) {
        tracing::warn!("{warning}");
    }
}

/// What the file of `client_tls.crl_file` is called.
pub(super) const REVOKED_CLIENTS: &str = "revoked client certificates";
/// What the file of `server_tls.crl_file` is called.
pub(super) const REVOKED_SERVERS: &str = "revoked server certificates";

const DAY: Duration = Duration::from_secs(86_400);

/// Long enough for people to notice, short enough to keep quiet about certificates that are renewed in time.
const SOON: Duration = Duration::from_secs(14 * 86_400);

#[cfg(test)]
mod tests {
    //! Words and when they are said.

    use super::{DAY, Expiring, REVOKED_CLIENTS, warning};

    fn check(what: &'static str, end: u64, expected: Option<&str>) {
        let said = warning(&Expiring { what, file: "a.pem".into(), end }, NOW);
        assert_eq!(said.is_some(), expected.is_some(), "{said:?}");
        assert!(said.as_deref().unwrap_or_default().contains(expected.unwrap_or_default()), "{said:?}");
    }

    const NOW: u64 = 1_000_000_000;

    #[test]
    fn what_ends_soon_is_said_and_nothing_else() {
        check("certificate", NOW + 15 * DAY.as_secs(), None);
        let soon = "certificate a.pem: the certificate expires in 3 days";
        check("certificate", NOW + 3 * DAY.as_secs(), Some(soon));
        check("certificate", NOW - 1, Some("the certificate has expired"));
        check(REVOKED_CLIENTS, NOW + 3, None);
        check(REVOKED_CLIENTS, NOW - 1, Some("the list is past its date"));
    }
}
