//! The program: reads the command line and the configuration, starts the log, and hands over to the runtime. Decides
//! nothing about connections.

mod cli;
mod configuration;
mod descriptors;
mod disk;
mod log;
mod process;

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use weir_config::{Loaded, Override, Problems};
use weir_runtime::{RunError, Startup};

use cli::Cli;
use configuration::{Rereader, Text, load};
use disk::{Disk, for_people};
use process::PidFile;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match (&cli.check_config, &cli.convert) {
        (Some(file), _) => check(file, &cli.overrides()),
        (None, Some(file)) => convert(file),
        (None, None) => run(&cli),
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
    /// The process cannot be what it should: user, pid file, log file.
    Process(String),
    /// The runtime could not start or had to end.
    Run(RunError),
}

impl Failure {
    /// 2 if the command line or the configuration is to blame, 1 for everything else.
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Unreadable { .. } | Self::Wrong(_) => ExitCode::from(2),
            Self::Run(RunError::Tls(_)) => ExitCode::from(2),
            Self::Process(_) | Self::Run(_) => ExitCode::FAILURE,
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
            Self::Process(why) => write!(f, "weir: {why}"),
            Self::Run(error) => write!(f, "weir: {}", for_people(error)),
        }
    }
}

fn check(file: &Path, overrides: &[Override]) -> Result<(), Failure> {
    let Loaded { warnings, .. } = load(Some(&Text::read(file)?), overrides, &[])?;
    say_warnings(file, warnings);
    // A closed standard output changes nothing about the verdict.
    let _ = writeln!(io::stdout(), "{}: the configuration is good", file.display());
    Ok(())
}

fn convert(file: &Path) -> Result<(), Failure> {
    let text = Text::read(file)?;
    let toml = weir_config::to_toml(text.source(), &Disk).map_err(Failure::Wrong)?;
    say_warnings(file, load(Some(&text), &[], &[])?.warnings);
    let _ = write!(io::stdout(), "{toml}");
    Ok(())
}

fn say_warnings(file: &Path, warnings: Vec<String>) {
    for warning in warnings {
        let _ = writeln!(io::stderr(), "{}: warning: {warning}", file.display());
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let text = cli.config.as_deref().map(Text::read).transpose()?;
    let overrides = cli.overrides();
    let Loaded { config, warnings } = load(text.as_ref(), &overrides, &[])?;
    process::become_user(config.process.user.as_deref()).map_err(Failure::Process)?;
    let pid_file = config.process.pid_file.as_deref();
    if let Some(path) = pid_file.filter(|_| !cli.reboot) {
        PidFile::check(path).map_err(Failure::Process)?;
    }
    if cli.process.daemon && !cli.process.detached {
        if pid_file.is_none() {
            let why = "-d needs a pid file; name it as pidfile (process.pid_file in weir.toml)";
            return Err(Failure::Process(why.to_owned()));
        }
        return process::start_in_background().map_err(Failure::Process);
    }
    if cli.process.detached {
        process::leave_terminal();
    }
    let log = log::start(&config.log, !cli.process.quiet).map_err(Failure::Process)?;
    let _pid_file = pid_file.map(PidFile::write).transpose().map_err(Failure::Process)?;
    tracing::info!("weir {} starts", env!("CARGO_PKG_VERSION"));
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    descriptors::allow_many(&config);
    let rereader = Rereader::new(text, overrides, log, &config);
    weir_runtime::run(Startup { config, reload: Some(Box::new(rereader)), take_over: cli.reboot })
        .map_err(Failure::Run)
}
