//! The tool behind `scripts/demo.sh`: brings a cluster with weir up, and acts on it from other terminals. Owns the
//! command line and the texts; everything else is in the library.

mod demo;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "usage: demo.sh              bring up a cluster with weir in front, until Ctrl-C
       demo.sh switchover   let another node lead (in a second terminal)
       demo.sh crash        kill -9 the leader's node
       demo.sh status       show who leads
       demo.sh stop         end the demo
       demo.sh drill [EVENT...] [--all] [--rounds N] [--patroni 3|4] [--held N] [--pool-size N] [--no-callbacks]
                     [--front WRITE,READ]
                            switchover and crash (or what is named) under load, unattended, with a table at the end:
                            switchover planned scheduled crash postmaster freeze cut api etcd-failsafe etcd pause
                            replica lag rolling; --held: so many clients wait for the next leader
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(act(&args)));
    match outcome {
        Ok(code) => code,
        Err(problem) => {
            let _ = writeln!(std::io::stderr(), "\nfailed: {}", demo::causes(&problem));
            ExitCode::FAILURE
        }
    }
}

async fn act(args: &[String]) -> Result<ExitCode> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] | ["up"] => demo::up().await,
        ["drill", rest @ ..] => demo::drill::run(rest).await,
        ["switchover", rest @ ..] => demo::switchover(rest.first().copied()).await,
        ["crash"] => demo::crash().await,
        ["status"] => demo::status().await,
        ["stop"] => demo::stop().await,
        ["help" | "--help" | "-h"] => {
            write!(std::io::stdout(), "{USAGE}")?;
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("unknown command: {}\n{USAGE}", words.join(" ")),
    }
}
