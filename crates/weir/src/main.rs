//! The program: reads the command line and the configuration, starts the log, and hands over to the runtime. Decides
//! nothing about connections.

mod cli;
mod disk;
mod log;

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use weir_config::{FileContents, Files, Loaded, Override, Problems, Source};
use weir_runtime::{RunError, Startup};

use cli::Cli;
use disk::{Disk, for_people};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.check_config {
        Some(file) => check(file, &cli.overrides()),
        None => run(&cli),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // With nobody left to read it there is nothing more to do.
            let _ = writeln!(io::stderr(), "{failure}");
            failure.exit_code()
        }
    }
}

/// Why the program ended other than it should. Shows itself as people read it.
enum Failure {
    /// The configuration file cannot be read.
    Unreadable { file: PathBuf, why: String },
    /// The configuration is wrong.
    Wrong(Problems),
    /// The runtime could not start or had to end.
    Run(RunError),
}

impl Failure {
    /// 2 if the command line or the configuration is to blame, 1 for everything else.
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Unreadable { .. } | Self::Wrong(_) => ExitCode::from(2),
            Self::Run(RunError::Tls(_)) => ExitCode::from(2),
            Self::Run(_) => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, why } => {
                write!(
                    f,
                    "weir: cannot read {}: {why}; name a file that weir's user can read",
                    file.display()
                )
            }
            Self::Wrong(problems) => {
                let count = problems.0.len();
                let noun = if count == 1 { "problem" } else { "problems" };
                write!(f, "{problems}\nweir: {count} {noun} in the configuration")
            }
            Self::Run(error) => write!(f, "weir: {}", for_people(error)),
        }
    }
}

fn check(file: &Path, overrides: &[Override]) -> Result<(), Failure> {
    let Loaded { warnings, .. } = load(Some(file), overrides)?;
    // As above: a closed standard output changes nothing about the verdict.
    for warning in warnings {
        let _ = writeln!(io::stderr(), "{}: warning: {warning}", file.display());
    }
    let _ = writeln!(io::stdout(), "{}: the configuration is good", file.display());
    Ok(())
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let file = cli.config.clone();
    let overrides = cli.overrides();
    let Loaded { config, warnings } = load(file.as_deref(), &overrides)?;
    let level = log::start(&config.log);
    tracing::info!("weir {} starts", env!("CARGO_PKG_VERSION"));
    warn(warnings);
    let reload = move || match load(file.as_deref(), &overrides) {
        Ok(Loaded { config, warnings }) => {
            level.set(&config.log.level);
            warn(warnings);
            Ok(config)
        }
        Err(failure) => Err(failure.to_string()),
    };
    weir_runtime::run(Startup { config, reload: Some(Box::new(reload)), take_over: cli.reboot })
        .map_err(Failure::Run)
}

/// Reads the file, if there is one, and what it names.
fn load(file: Option<&Path>, overrides: &[Override]) -> Result<Loaded, Failure> {
    let Some(path) = file else { return weir_config::load(None, overrides, &Disk).map_err(Failure::Wrong) };
    let unreadable = |why| Failure::Unreadable { file: path.to_owned(), why };
    let FileContents { bytes, world_readable } = Disk.read(path).map_err(unreadable)?;
    let text = str::from_utf8(bytes.expose()).map_err(|_| unreadable("it is not UTF-8 text".to_owned()))?;
    weir_config::load(Some(Source { path, text, world_readable }), overrides, &Disk).map_err(Failure::Wrong)
}

fn warn(warnings: Vec<String>) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}
