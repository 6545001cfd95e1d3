//! The drill with weir in front of a real cluster, once with the distribution's Patroni and once with Patroni 4: no event
//! under load breaks a promise. Needs weir's program to be built, root and nftables.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use weir_cluster::drill::{self, Event, Front, Own, Plan, Report, table};
use weir_cluster::{Cluster, ClusterOptions, Patroni, Progress, WeirOptions, front, process};

#[tokio::test]
async fn promises_are_kept_with_the_packaged_patroni() -> Result<()> {
    check(Patroni::Packaged, Ipv4Addr::new(127, 0, 13, 1)).await
}

#[tokio::test]
async fn promises_are_kept_with_patroni_4() -> Result<()> {
    check(Patroni::four(), Ipv4Addr::new(127, 0, 14, 1)).await
}

async fn check(patroni: Patroni, base: Ipv4Addr) -> Result<()> {
    let progress = Progress::told();
    let options = ClusterOptions { patroni, base, progress, ..drill::cluster_options() };
    let mut cluster = Cluster::start(options).await?;
    let options = WeirOptions::on_free_ports()?.args(["--pool-size", &POOL_SIZE.to_string()]);
    let options = front::hear_callbacks(&cluster, options, WeirOptions::on_free_ports()?.http)?;
    let weir = front::start(&cluster, options).await?;
    let own = Some(Own { pid: weir.pid(), pool_size: POOL_SIZE, log: weir.log().to_owned() });
    let ports = Front { write: weir.write(), read: weir.read(), own };
    let plan = Plan { events: Event::ALL.to_vec(), held: HELD };
    let outcome = drill::run(&mut cluster, &ports, &plan, progress).await;
    process::with_log(outcome.ended, weir.log())?;
    let reports = outcome.reports;
    ensure!(reports.iter().any(|report| report.callbacks > 0), "no callback was heard");
    let broken: Vec<String> = reports.iter().flat_map(Report::broken).collect();
    progress.say(&format!("the drill's table\n{}", table::render(&reports)));
    ensure!(broken.is_empty(), "{}\n{}", broken.join("\n"), story(&weir.log_text()));
    Ok(())
}

const POOL_SIZE: u32 = 20;
/// They wait for each leader that is lost, beside the load.
const HELD: u32 = 300;

/// The log without the comings and goings of clients.
fn story(log: &str) -> String {
    log.lines()
        .filter(|line| line.contains("cluster: ") || !line.contains(" LOG "))
        .collect::<Vec<_>>()
        .join("\n")
}
