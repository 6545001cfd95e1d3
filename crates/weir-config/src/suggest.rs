//! What somebody who wrote an unknown key may have meant. Knows no values.

/// The candidate nearest to what was written, if any is near enough to be a slip of the pen.
pub(crate) fn nearest<'a>(written: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Keys are short; somebody's pasted text need not be measured.
    if written.len() > WRITTEN_BYTES_MAX {
        return None;
    }
    let near_enough = (written.len() / 3).max(1);
    candidates
        .map(|candidate| (distance(written, candidate), candidate))
        .filter(|(distance, _)| *distance <= near_enough)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// What weir calls a setting of PgBouncer.
pub(crate) fn pgbouncer_name(written: &str) -> Option<&'static str> {
    PGBOUNCER_NAMES.iter().find(|(theirs, _)| *theirs == written).map(|(_, ours)| *ours)
}

/// Insertions, deletions, substitutions and swaps of neighbours that turn one word into the other.
fn distance(left: &str, right: &str) -> usize {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let mut rows = vec![vec![0; right.len() + 1]; left.len() + 1];
    for i in 0..=left.len() {
        for j in 0..=right.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let substituted = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
                let edited = substituted.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let swapped = i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1];
                if swapped { edited.min(rows[i - 2][j - 2] + 1) } else { edited }
            };
        }
    }
    rows[left.len()][right.len()]
}

const WRITTEN_BYTES_MAX: usize = 64;

/// PgBouncer's name, and where the same thing is said in weir.toml.
const PGBOUNCER_NAMES: &[(&str, &str)] = &[
    ("listen_addr", "listen.write"),
    ("listen_port", "listen.write"),
    ("auth_type", "auth.type"),
    ("auth_file", "auth.file"),
    ("auth_user", "auth.user"),
    ("auth_query", "auth.query"),
    ("auth_dbname", "auth.database"),
    ("admin_users", "auth.admin_users"),
    ("stats_users", "auth.stats_users"),
    ("pool_mode", "pool.mode"),
    ("default_pool_size", "pool.size"),
    ("pool_size", "pool.size"),
    ("max_client_conn", "limits.max_client_conn"),
    ("client_tls_sslmode", "client_tls.mode"),
    ("client_tls_key_file", "client_tls.key_file"),
    ("client_tls_cert_file", "client_tls.cert_file"),
    ("client_tls_ca_file", "client_tls.ca_file"),
    ("server_tls_sslmode", "server_tls.mode"),
    ("server_tls_key_file", "server_tls.key_file"),
    ("server_tls_cert_file", "server_tls.cert_file"),
    ("server_tls_ca_file", "server_tls.ca_file"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let known = ["size", "mode", "server_lifetime", "server_idle_timeout"];
        let check = |written, meant| assert_eq!(nearest(written, known.into_iter()), meant, "{written}");
        check("szie", Some("size"));
        check("siz", Some("size"));
        check("server_lifetme", Some("server_lifetime"));
        check("server_life_time", Some("server_lifetime"));
        check("colour", None);
        check(&"size".repeat(100), None);
    }

    #[test]
    fn every_pgbouncer_name_points_at_a_setting_of_ours() {
        for (theirs, ours) in PGBOUNCER_NAMES {
            assert!(Key::find(ours).is_some(), "{theirs} points at {ours}");
        }
    }
}
