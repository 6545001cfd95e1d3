//! weir and PgBouncer side by side: CPU per transaction, throughput, tail latency, memory per idle client.
//!
//! Both poolers stand in front of one PostgreSQL and take turns round by round, so that what else the machine does
//! hits both alike. Owns the order of the runs; what a pooler is started with is in `seat`, the arithmetic in `table`.

mod idle;
mod logins;
mod seat;
mod table;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use weir_cluster::{Postgres, PostgresOptions, schema};
use weir_e2e::measure;
use weir_e2e::pgbench::{self, Length, Pgbench, QueryMode, Script};

use seat::{Pooling, Program, Seat};
use table::{Sample, Table};

/// Compares weir with PgBouncer: alternating rounds of pgbench, then idle clients.
#[derive(Parser, Debug)]
#[command(name = "bench.sh")]
struct Args {
    /// weir's binary (a PgBouncer is taken too, to see the noise of the comparison itself).
    #[arg(long)]
    weir: PathBuf,
    /// PgBouncer's binary.
    #[arg(long, default_value = "/usr/sbin/pgbouncer")]
    pgbouncer: PathBuf,
    /// Rounds; the table shows medians.
    #[arg(long, global = true, default_value_t = 3)]
    rounds: u32,
    /// Seconds of each run.
    #[arg(long, global = true, default_value_t = 10)]
    seconds: u32,
    /// Idle clients for the memory rows; 0 leaves them out.
    #[arg(long, default_value_t = 2000)]
    idle: u32,
    /// pgbench's scale factor.
    #[arg(long, default_value_t = 10)]
    scale: u32,
    /// Only this query mode (simple, extended, prepared) of the load.
    #[arg(long)]
    only: Option<String>,
    #[command(subcommand)]
    command: Option<Subject>,
}

/// What is compared instead of queries.
#[derive(clap::Subcommand, Debug)]
enum Subject {
    /// Clients that log in, all at once.
    Logins(logins::Logins),
}

/// One kind of load, on one pooling mode.
#[derive(Debug, Clone, Copy)]
struct Load {
    mode: QueryMode,
    pooling: Pooling,
    clients: u32,
    /// PgBouncer 1.18 knows no prepared statements in transaction mode.
    weir_only: bool,
}

const LOADS: [Load; 4] = [
    Load { mode: QueryMode::Simple, pooling: Pooling::Transaction, clients: CLIENTS, weir_only: false },
    Load { mode: QueryMode::Extended, pooling: Pooling::Transaction, clients: CLIENTS, weir_only: false },
    Load { mode: QueryMode::Prepared, pooling: Pooling::Session, clients: SERVERS, weir_only: false },
    Load { mode: QueryMode::Prepared, pooling: Pooling::Transaction, clients: CLIENTS, weir_only: true },
];

fn main() -> ExitCode {
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(compare(Args::parse())));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            let _ = writeln!(std::io::stderr(), "bench.sh: {problem:#}");
            ExitCode::FAILURE
        }
    }
}

async fn compare(args: Args) -> Result<()> {
    measure::raise_file_limit()?;
    let programs =
        [Program::of(&args.weir).context("--weir")?, Program::of(&args.pgbouncer).context("--pgbouncer")?];
    if let Some(Subject::Logins(logins)) = &args.command {
        return logins::compare(&args, logins, &programs).await;
    }
    let postgres = start_postgres(args.scale).await?;
    say(&heading(&args, &programs));
    let mut table = Table::new(programs.each_ref().map(|program| program.label.clone()));
    for load in LOADS {
        if args.only.as_ref().is_none_or(|only| only == load.mode.name()) {
            run_load(&args, &programs, &postgres, load, &mut table).await?;
        }
    }
    for kind in [idle::Kind::LoggedIn, idle::Kind::AfterOneQuery] {
        for (at, program) in programs.iter().enumerate().filter(|_| args.idle > 0) {
            let seat = Seat::start(program, postgres.address(), Pooling::Transaction).await?;
            progress(&format!("{} idle clients on {}", args.idle, program.label));
            table.idle(kind.label(), at, idle::bytes_per_client(&seat, args.idle, kind).await?);
        }
    }
    say(&table.render());
    Ok(())
}

async fn run_load(
    args: &Args,
    programs: &[Program; 2],
    postgres: &Postgres,
    load: Load,
    table: &mut Table,
) -> Result<()> {
    let mut seats = Vec::new();
    for (at, program) in programs.iter().enumerate() {
        if !load.weir_only || program.maps_prepared_statements(at) {
            let seat = Seat::start(program, postgres.address(), load.pooling).await?;
            measure_once(&seat, load, WARM_UP_SECONDS).await?;
            seats.push((at, seat));
        }
    }
    for round in 1..=args.rounds {
        // The order turns round every time: A B, B A, ...
        seats.reverse();
        for (at, seat) in &seats {
            let label = load.label();
            progress(&format!("{label}: round {round} of {}, {}", args.rounds, seat.label()));
            table.add(&label, *at, measure_once(seat, load, args.seconds).await?);
        }
    }
    Ok(())
}

async fn measure_once(seat: &Seat, load: Load, seconds: u32) -> Result<Sample> {
    let logs = std::env::temp_dir().join(format!("weir-bench-{}", std::process::id()));
    fs::create_dir_all(&logs)?;
    let run = Pgbench {
        address: seat.address(),
        login: schema::APP,
        mode: load.mode,
        script: Script::SelectOnly,
        clients: load.clients,
        length: Length::Seconds(seconds),
        authority: None,
        latencies: Some(&logs),
    };
    let before = measure::cpu_micros(seat.pid())?;
    let outcome = run.run().await;
    let spent = measure::cpu_micros(seat.pid()).context("the pooler ended during the run")? - before;
    fs::remove_dir_all(&logs)?;
    let outcome = outcome.with_context(|| format!("{} through {}", load.label(), seat.label()))?;
    Ok(Sample {
        cpu_micros: spent as f64 / outcome.transactions.max(1) as f64,
        tps: outcome.tps,
        p99_millis: outcome.p99.unwrap_or_default().as_secs_f64() * 1e3,
    })
}

impl Load {
    fn label(self) -> String {
        format!("{}, {} mode, {} clients", self.mode.name(), self.pooling.name(), self.clients)
    }
}

async fn start_postgres(scale: u32) -> Result<Postgres> {
    progress("starting PostgreSQL and filling pgbench's tables");
    let settings = vec![
        ("max_connections".to_owned(), "100".to_owned()),
        ("shared_buffers".to_owned(), "256MB".to_owned()),
    ];
    let postgres = Postgres::start(PostgresOptions { settings, ..PostgresOptions::default() }).await?;
    pgbench::initialize(postgres.address(), schema::APP, scale).await?;
    postgres.superuser("VACUUM ANALYZE").await?;
    Ok(postgres)
}

fn heading(args: &Args, programs: &[Program; 2]) -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!(
        "{} against {}: pgbench -S, {SERVERS} servers, SCRAM, one worker, {} rounds of {} s, {cores} cores",
        programs[0].version, programs[1].version, args.rounds, args.seconds
    )
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn progress(line: &str) {
    let _ = writeln!(std::io::stderr(), "  {line}");
}

const CLIENTS: u32 = 32;
const SERVERS: u32 = 20;
const WARM_UP_SECONDS: u32 = 2;
