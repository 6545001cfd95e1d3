//! Two thousand clients that log in at once: logins per second, what a login costs the pooler, and what those who are
//! connected notice. Both poolers are started with one pgbouncer.ini.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use weir_cluster::wait::{Limit, until};
use weir_cluster::{Authority, Postgres, PostgresOptions, RunDir, schema};
use weir_e2e::line::trusting;
use weir_e2e::measure;
use weir_e2e::peer::{Kind, Peer};
use weir_e2e::pgbench::{self, Length, Outcome, Pgbench, QueryMode, Script};
use weir_e2e::storm::Storm;

use crate::table::{line, median, metric};
use crate::{Args, progress, say, seat::Program};

/// What is measured, and how long.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Logins {
    /// Clients that log in at once.
    #[arg(long, default_value_t = 2000)]
    clients: usize,
    /// Users they are.
    #[arg(long, default_value_t = 20)]
    users: usize,
}

/// How clients log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Listed,
    Asked,
    Md5,
    Tls,
}

impl Way {
    const ALL: [Self; 4] = [Self::Listed, Self::Asked, Self::Md5, Self::Tls];

    fn label(self) -> &'static str {
        match self {
            Self::Listed => "SCRAM, verifiers in the user list",
            Self::Asked => "SCRAM, verifiers by auth_query",
            Self::Md5 => "md5, secrets in the user list",
            Self::Tls => "SCRAM over TLS, verifiers in the user list",
        }
    }

    fn lines(self) -> String {
        let rest = match self {
            Self::Listed => "auth_type = scram-sha-256".to_owned(),
            Self::Asked => format!(
                "auth_type = scram-sha-256\nauth_user = {}\nauth_query = {}",
                schema::AUTH.user,
                schema::AUTH_QUERY
            ),
            Self::Md5 => "auth_type = md5".to_owned(),
            Self::Tls => "auth_type = scram-sha-256\nclient_tls_sslmode = require\n\
                          client_tls_cert_file = {folder}/own.crt\nclient_tls_key_file = {folder}/own.key"
                .to_owned(),
        };
        // What the kernel does with connections that are not accepted in time is not what is compared.
        format!("pool_mode = transaction\nmax_client_conn = 10000\nlisten_backlog = 4096\n{rest}")
    }
}

/// One round at one pooler.
#[derive(Debug, Clone, Copy)]
struct Sample {
    logins_per_second: f64,
    cpu_micros: f64,
    quiet: Latency,
    stormy: Latency,
}

#[derive(Debug, Clone, Copy)]
struct Latency {
    median_millis: f64,
    p99_millis: f64,
}

impl Latency {
    fn of(outcome: &Outcome) -> Self {
        let millis = |latency: Option<Duration>| latency.unwrap_or_default().as_secs_f64() * 1e3;
        Self { median_millis: millis(outcome.median), p99_millis: millis(outcome.p99) }
    }
}

type Metric = (&'static str, usize, fn(&Sample) -> f64);
const METRICS: [Metric; 7] = [
    ("logins per second", 0, |sample| sample.logins_per_second),
    ("CPU us per login", 0, |sample| sample.cpu_micros),
    ("median ms of 8 connected, before", 2, |sample| sample.quiet.median_millis),
    ("median ms of 8 connected, meanwhile", 2, |sample| sample.stormy.median_millis),
    ("p99 ms of 8 connected, before", 2, |sample| sample.quiet.p99_millis),
    ("p99 ms of 8 connected, meanwhile", 2, |sample| sample.stormy.p99_millis),
    ("p99 meanwhile, times before", 2, |sample| sample.stormy.p99_millis / sample.quiet.p99_millis),
];

/// Prints the table.
///
/// # Errors
/// A pooler does not come up, or somebody is not let in.
pub(crate) async fn compare(args: &Args, logins: &Logins, programs: &[Program; 2]) -> Result<()> {
    let postgres = start_postgres(logins.users).await?;
    let [first, second] = programs.each_ref().map(|program| program.label.as_str());
    say(&format!(
        "{} clients of {} users at once; {} rounds, {} s of pgbench -S by {CONNECTED} clients before and meanwhile",
        logins.clients, logins.users, args.rounds, args.seconds
    ));
    let mut heading = String::new();
    line(&mut heading, "", first, second, "ratio");
    say(heading.trim_end());
    for way in Way::ALL {
        let mut out = String::new();
        let mut samples = [Vec::new(), Vec::new()];
        let users = secrets(&postgres, way).await?;
        for round in 1..=args.rounds {
            for at in if round % 2 == 1 { [0, 1] } else { [1, 0] } {
                let (Some(program), Some(samples)) = (programs.get(at), samples.get_mut(at)) else {
                    continue;
                };
                progress(&format!("{}: round {round} of {}, {}", way.label(), args.rounds, program.label));
                samples.push(measure_once(args, logins, program, &postgres, way, &users).await?);
            }
        }
        out.push_str(way.label());
        out.push('\n');
        for (label, decimals, read) in METRICS {
            let cells = samples.each_ref().map(|samples| median(samples.iter().map(read).collect()));
            metric(&mut out, label, decimals, cells);
        }
        say(out.trim_end());
    }
    Ok(())
}

async fn measure_once(
    args: &Args,
    logins: &Logins,
    program: &Program,
    postgres: &Postgres,
    way: Way,
    users: &[(String, String)],
) -> Result<Sample> {
    let kind = if program.is_weir() { Kind::Weir } else { Kind::PgBouncer };
    let certificates = Authority::new()?;
    let own = certificates.issue("localhost", &[])?;
    let files = [("own.crt", own.certificate_pem.as_str()), ("own.key", own.key_pem.as_str())];
    let peer = Peer::start_program(&program.path, kind, postgres, users, &files, &way.lines()).await?;
    let authority = RunDir::create("authority")?;
    let authority = authority.write("authority.crt", &certificates.certificate_pem())?;
    let names = (0..logins.users).map(user).collect();
    let mut storm = Storm::new(peer.address, schema::DATABASE, names, PASSWORD);
    if way == Way::Tls {
        storm.tls = Some(trusting(&authority)?);
    }
    let storm = Arc::new(storm);
    // Every pool has its server connection, and this side its keys.
    storm.rage(logins.users * 2).await?;
    let before = measure::cpu_micros(peer.pid())?;
    let took = storm.rage(logins.clients).await?.took;
    let spent = measure::cpu_micros(peer.pid())? - before;
    let tls = (way == Way::Tls).then_some(authority.as_path());
    let quiet = work(args, &peer, tls).await?;
    let stormy = tokio::select! {
        outcome = work(args, &peer, tls) => outcome?,
        stopped = rage_on(&storm, logins.clients, postgres) => return stopped,
    };
    Ok(Sample {
        logins_per_second: logins.clients as f64 / took.as_secs_f64(),
        cpu_micros: spent as f64 / logins.clients as f64,
        quiet: Latency::of(&quiet),
        stormy: Latency::of(&stormy),
    })
}

/// One storm after the other, once those who are to notice are at work.
async fn rage_on(storm: &Arc<Storm>, clients: usize, postgres: &Postgres) -> Result<Sample> {
    until("pgbench to be at work", Limit::quick(Duration::from_secs(20)), async || {
        let rows = postgres.superuser(AT_WORK).await.ok()?;
        (rows.into_iter().flatten().flatten().next()? == "t").then_some(())
    })
    .await?;
    loop {
        storm.rage(clients).await?;
    }
}

async fn work(args: &Args, peer: &Peer, authority: Option<&std::path::Path>) -> Result<Outcome> {
    let logs = std::env::temp_dir().join(format!("weir-bench-{}", std::process::id()));
    fs::create_dir_all(&logs)?;
    let run = Pgbench {
        address: peer.address,
        login: schema::APP,
        mode: QueryMode::Simple,
        script: Script::SelectOnly,
        clients: CONNECTED,
        length: Length::Seconds(args.seconds),
        authority,
        latencies: Some(&logs),
    };
    let outcome = run.run().await.context("pgbench");
    fs::remove_dir_all(&logs)?;
    outcome
}

async fn start_postgres(users: usize) -> Result<Postgres> {
    progress("starting PostgreSQL and filling pgbench's tables");
    let settings = vec![("max_connections".to_owned(), "200".to_owned())];
    // What is asked for is what is stored.
    let hba = vec!["host all all all md5".to_owned()];
    let postgres = Postgres::start(PostgresOptions { settings, hba, ..PostgresOptions::default() }).await?;
    pgbench::initialize(postgres.address(), schema::APP, 10).await?;
    let roles: String = (0..users).map(|number| format!("CREATE ROLE {} LOGIN;", user(number))).collect();
    postgres.superuser(&roles).await?;
    Ok(postgres)
}

/// Stores everybody's password in PostgreSQL as this way wants it, and returns the user list.
async fn secrets(postgres: &Postgres, way: Way) -> Result<Vec<(String, String)>> {
    let encryption = if way == Way::Md5 { "md5" } else { "scram-sha-256" };
    postgres
        .superuser(&format!(
            "SET password_encryption = '{encryption}';
             DO $$ DECLARE who name; BEGIN
                 FOR who IN SELECT rolname FROM pg_roles WHERE rolname LIKE 'storm%' LOOP
                     EXECUTE format('ALTER ROLE %I PASSWORD ''{PASSWORD}''', who);
                 END LOOP; END $$"
        ))
        .await?;
    let mut listed =
        [schema::APP, schema::AUTH].map(|login| (login.user.to_owned(), login.password.to_owned())).to_vec();
    if way != Way::Asked {
        let stored = postgres
            .superuser("SELECT rolname, rolpassword FROM pg_authid WHERE rolname LIKE 'storm%'")
            .await?;
        listed.extend(stored.into_iter().filter_map(|row| {
            let mut columns = row.into_iter().flatten();
            Some((columns.next()?, columns.next()?))
        }));
    }
    Ok(listed)
}

fn user(number: usize) -> String {
    format!("storm_{number}")
}

const AT_WORK: &str = "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'SELECT abalance%' \
                       AND query_start > clock_timestamp() - interval '100 ms'";
const PASSWORD: &str = "open-sesame";
const CONNECTED: u32 = 8;
