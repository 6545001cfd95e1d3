//! Where weir's clients are meant to see something else than PgBouncer's. Holds what and why; compares nothing.

/// Words of PgBouncer 1.18, weir's in their place, the reason. A line about a login begins with `{user}, {database},`.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("ERROR 08P01 invalid command", "ERROR 42601 invalid command", SAYS_WHAT),
    ("ERROR 08P01 no such database", "ERROR 3D000 no such database", SAYS_WHAT),
    ("ERROR 08P01 admin access needed", "ERROR 42501 admin access needed", SAYS_WHAT),
    ("ERROR 08P01 already suspended/paused", "ERROR 55000 already suspended/paused", SAYS_WHAT),
    ("ERROR 08P01 pooler is not paused/suspended", "ERROR 55000 pooler is not paused/suspended", SAYS_WHAT),
    ("ERROR 08P01 SET failed", "ERROR 55P02 SET failed", SAYS_WHAT),
    ("FATAL 08P01 not allowed", "FATAL 28000 not allowed", KEYED),
    ("FATAL 08P01 \"trust\" authentication failed", "FATAL 28000 \"trust\" authentication failed", KEYED),
    ("FATAL 08P01 password authentication failed", WRONG_PASSWORD, KEYED),
    ("FATAL 08P01 SASL authentication failed", WRONG_PASSWORD, KEYED),
    (
        "pooler error: password authentication failed",
        "pooler error: password authentication failed for user \"{user}\"",
        "the same in the log",
    ),
    (
        ": SASL authentication failed",
        ": password authentication failed for user \"{user}\"",
        "the same in the log",
    ),
    (
        ": password authentication failed (age",
        ": password authentication failed for user \"{user}\" (age",
        "the same",
    ),
    ("FATAL 08P01 no more connections allowed", "FATAL 53300 no more connections allowed", KEYED),
    ("FATAL 08P01 query timeout", "FATAL 57014 query timeout", KEYED),
    ("FATAL 08P01 idle transaction timeout", "FATAL 25P03 idle transaction timeout", KEYED),
    ("FATAL 08P01 client_idle_timeout", "FATAL 57P05 client_idle_timeout", KEYED),
    ("FATAL 08P01 client_login_timeout", "FATAL 57P03 client_login_timeout", SAYS_WHAT),
    ("FATAL 08P01 transaction blocks not allowed", "FATAL 0A000 transaction blocks not allowed", SAYS_WHAT),
    ("killed: [FATAL 08P01 database", "killed: [FATAL 57P01 database", KEYED),
    ("FATAL 08P01 database \"mrg\" is disabled", "FATAL 57P03 database \"mrg\" is disabled", SAYS_WHAT),
    (
        "FATAL 08P01 database \"not_there\" does",
        "FATAL 3D000 database \"not_there\" does",
        "1.25 passes on what PostgreSQL said",
    ),
    (
        "dead: FATAL 08P01 query_wait_timeout",
        "dead: FATAL 08006 the database server cannot be reached",
        "the manual promises an error at once; 1.18 lets those wait to whom it cannot tell server parameters",
    ),
    ("FATAL 08P01 bouncer config error", "FATAL 08P01 no such database: nowhere", "it says what to correct"),
    ("(nodb)/{user}", "{database}/{user}", "the database that was asked for is known"),
    ("queries/s, in N", "queries/s, N client parses/s, N server parses/s, N binds/s, in N", "as in 1.25"),
    (
        "in the queue: T[29] D(cancelled in the queue) C(SELECT 1) Z(I)",
        "in the queue: [ERROR 57014 canceling statement due to user request] Z(I)",
        "1.18 overlooks a cancel request for a query that waits",
    ),
    (
        "FATAL 08P01 no such user",
        WRONG_PASSWORD,
        "who is known is not for everybody to learn; 1.25 hides it, too",
    ),
    (
        "one connection through SELECT 1/0: true",
        "one connection through SELECT 1/0: false",
        "a check that fails speaks against the connection; 1.18 takes any answer for a good one",
    ),
    ("SHUTDOWN: closed", "SHUTDOWN: done", "who ordered it hears that it was heard"),
];

const WRONG_PASSWORD: &str = "FATAL 28P01 password authentication failed for user \"{user}\"";
const KEYED: &str = "drivers and pools know PostgreSQL's code for this, and take 08P01 for a broken server";
const SAYS_WHAT: &str = "08P01 says that somebody broke the protocol, and nobody did";

/// What weir is expected to say where PgBouncer says `line`.
pub(crate) fn agreed(line: &str) -> String {
    let mut words = line.split([',', ':']).map(str::trim);
    let (user, database) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let filled = |text: &str| text.replace("{user}", user).replace("{database}", database);
    let differences = DIFFERENCES.iter();
    differences.fold(line.to_owned(), |line, (theirs, ours, _)| line.replace(&filled(theirs), &filled(ours)))
}
