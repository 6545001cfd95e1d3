//! `scripts/demo.sh drill`: its arguments, its cluster, its verdict. What happens in it is the library's.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use weir_cluster::drill::{self, Event, Front, Outcome, Own, Plan, Report, table};
use weir_cluster::{Cluster, ClusterOptions, Patroni, Progress, Weir, WeirOptions, front};

use super::{CALLBACKS, DRILL, FRONT, Interrupts, end_weir, interrupted, refuse_second, start};

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Order {
    events: Vec<Event>,
    rounds: u32,
    patroni: Patroni,
    /// Clients that wait for a leader beside the load.
    held: u32,
    pool_size: u32,
    /// Patroni calls weir when a role changes.
    callbacks: bool,
    /// A foreign pooler's ports.
    foreign: Option<(String, String)>,
}

/// Everything unattended, with a table at the end; success only when every promise was kept.
pub(crate) async fn run(args: &[&str]) -> Result<ExitCode> {
    let order = Order::parse(args)?;
    refuse_second()?;
    let progress = Progress::told();
    let mut interrupts = Interrupts::new()?;
    tokio::select! {
        outcome = to_the_end(&order, progress) => outcome,
        () = interrupts.next() => Ok(interrupted(progress)),
    }
}

impl Order {
    fn parse(args: &[&str]) -> Result<Self> {
        let mut order = Self {
            events: Vec::new(),
            rounds: 1,
            patroni: Patroni::Packaged,
            held: 0,
            pool_size: POOL_SIZE,
            callbacks: true,
            foreign: None,
        };
        let mut rest = args.iter();
        while let Some(&word) = rest.next() {
            let mut number = || -> Result<u32> {
                let number = rest.next().and_then(|number| number.parse().ok());
                number.filter(|number| *number > 0).with_context(|| format!("{word} takes a number"))
            };
            match word {
                "--all" => order.events = Event::ALL.to_vec(),
                "--rounds" => order.rounds = number()?,
                "--held" => order.held = number()?,
                "--no-callbacks" => order.callbacks = false,
                "--pool-size" => order.pool_size = number()?,
                "--patroni" => {
                    order.patroni = match rest.next() {
                        Some(&"3") => Patroni::Packaged,
                        Some(&"4") => Patroni::four(),
                        _ => bail!("--patroni takes 3 (the distribution's package) or 4 (from PyPI)"),
                    };
                }
                "--front" => {
                    let pair = rest.next().and_then(|pair| pair.split_once(','));
                    let (write, read) =
                        pair.context("--front takes WRITE,READ, for example 127.0.0.1:7432,127.0.0.1:7433")?;
                    order.foreign = Some((write.to_owned(), read.to_owned()));
                }
                name => {
                    let event = Event::named(name);
                    order.events.push(event.with_context(|| format!("drill does not know {name}"))?);
                }
            }
        }
        if order.foreign.is_some() {
            // Weir's own command.
            order.events.retain(|event| *event != Event::Planned);
        }
        if order.events.is_empty() {
            order.events = vec![Event::Switchover, Event::Crash];
        }
        Ok(order)
    }

    fn foreign(&self) -> Result<Option<Front>> {
        let Some((write, read)) = &self.foreign else { return Ok(None) };
        Ok(Some(Front { write: write.parse()?, read: read.parse()?, own: None }))
    }
}

async fn to_the_end(order: &Order, progress: Progress) -> Result<ExitCode> {
    let options = ClusterOptions {
        label: DRILL.to_owned(),
        patroni: order.patroni.clone(),
        progress,
        ..drill::cluster_options()
    };
    let mut weir = None;
    let (mut cluster, front) = match order.foreign()? {
        None => {
            let change = |cluster: &Cluster, weir: WeirOptions| {
                let weir = weir
                    .args(["--pool-size", &order.pool_size.to_string()])
                    .args(["--max-client-conn", &(order.held + OTHER_CLIENTS).to_string()]);
                match order.callbacks {
                    true => front::hear_callbacks(cluster, weir, CALLBACKS),
                    false => Ok(weir),
                }
            };
            let (cluster, started) = start(options, change).await?;
            let weir = weir.insert(started);
            let own = Own { pid: weir.pid(), pool_size: order.pool_size, log: weir.log().to_owned() };
            (cluster, Front { own: Some(own), ..FRONT })
        }
        Some(front) => (Cluster::start(options).await?, front),
    };
    let plan = Plan { events: order.events.repeat(order.rounds as usize), held: order.held };
    let outcome = drill::run(&mut cluster, &front, &plan, progress).await;
    let ended = weir.as_mut().and_then(Weir::ended);
    let broken = verdict(&outcome, ended.map(|status| format!("weir ended: {status}")))?;
    if broken {
        keep_logs(&cluster, weir.as_ref())?;
    }
    if let Some(weir) = &mut weir {
        end_weir(weir).await?;
    }
    outcome.ended?;
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Prints the table and the verdict; true when something is broken. What was seen before a failure counts, too.
fn verdict(outcome: &Outcome, weir_ended: Option<String>) -> Result<bool> {
    let mut out = std::io::stdout();
    let Outcome { reports, ended } = outcome;
    writeln!(out, "\n{}", table::render(reports))?;
    let unfinished = ended.as_ref().err().map(|problem| format!("not played to the end: {problem:#}"));
    let broken: Vec<String> = reports
        .iter()
        .flat_map(Report::broken)
        .chain(table::slow(reports))
        .chain(weir_ended)
        .chain(unfinished)
        .collect();
    for line in &broken {
        writeln!(out, "BROKEN  {line}")?;
    }
    if broken.is_empty() {
        writeln!(out, "all promises kept")?;
    }
    Ok(!broken.is_empty())
}

fn keep_logs(cluster: &Cluster, weir: Option<&Weir>) -> Result<()> {
    let target = std::env::temp_dir().join(format!("weir-drill-logs-{}", std::process::id()));
    cluster.run_dir().keep_logs(&target)?;
    if let Some(weir) = weir {
        std::fs::copy(weir.log(), target.join("weir.log"))?;
    }
    writeln!(std::io::stderr(), "logs are kept in {}", target.display())?;
    Ok(())
}

/// The load, and whoever looks.
const OTHER_CLIENTS: u32 = 500;
/// weir's default, said so that the drill knows it.
const POOL_SIZE: u32 = 20;

#[cfg(test)]
mod tests {
    use weir_cluster::Patroni;
    use weir_cluster::drill::Event;

    use super::Order;

    #[test]
    fn words_are_events_and_options() -> anyhow::Result<()> {
        let order = Order::parse(&["cut", "api", "--rounds", "3", "--patroni", "4"])?;
        assert_eq!(order.events, [Event::Cut, Event::SilentApis]);
        assert_eq!((order.rounds, &order.patroni), (3, &Patroni::four()));
        let order = Order::parse(&["--held", "2000", "--pool-size", "100"])?;
        assert_eq!((order.held, order.pool_size, order.callbacks), (2000, 100, true));
        assert_eq!(Order::parse(&["--all"])?.events, Event::ALL);
        assert_eq!(Order::parse(&[])?.events, [Event::Switchover, Event::Crash]);
        assert!(Order::parse(&["flood"]).is_err());
        assert!(Order::parse(&["--rounds", "0"]).is_err());
        Ok(())
    }
}
