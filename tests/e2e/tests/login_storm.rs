//! Two thousand clients that log in at the same time, while others work.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use weir_cluster::{Postgres, PostgresOptions, schema};
use weir_e2e::stack::Setup;
use weir_e2e::storm::Storm;
use weir_e2e::wire::{self, Wire};
use weir_e2e::{line::Line, measure};

/// Lets PostgreSQL count the auth_queries.
const COUNTED: &str = "CREATE SEQUENCE public.lookups;
    CREATE FUNCTION public.counted_lookup(wanted text, OUT usename name, OUT passwd text)
        RETURNS SETOF record LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS
        $$ SELECT nextval('public.lookups');
           SELECT rolname, rolpassword FROM pg_authid WHERE rolname = wanted $$;
    SELECT nextval('public.lookups');";

async fn postgres() -> Result<Postgres> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let roles = (0..USERS).map(|number| format!("CREATE ROLE storm_{number} LOGIN PASSWORD '{PASSWORD}';"));
    postgres.superuser(&format!("{COUNTED} {}", roles.collect::<String>())).await?;
    Ok(postgres)
}

/// Runs queries on and on; never ends well.
async fn work(clients: &mut [Wire], done: &mut usize) -> Result<()> {
    loop {
        for client in &mut *clients {
            client.expect_usable().await?;
        }
        *done += 1;
    }
}

async fn ask(line: &mut Line) -> Result<String> {
    line.send(&wire::query("SELECT current_user")).await?;
    let mut row = None;
    loop {
        let (tag, body) = line.read().await?;
        match tag {
            b'D' => row = Some(wire::Message { tag, body }.text()?),
            b'Z' => return row.context("no row"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn two_thousand_clients_log_in_at_once_and_others_go_on_working() -> Result<()> {
    measure::raise_file_limit()?;
    let stack = Setup::new()
        .user(schema::AUTH)
        .set("auth", &format!("user = \"{}\"", schema::AUTH.user))
        .set("auth", "query = \"SELECT usename, passwd FROM public.counted_lookup($1)\"")
        .set("limits", "max_client_conn = 2500")
        .start_before(postgres().await?)
        .await?;
    let mut connected =
        vec![stack.wire().await?, stack.wire().await?, stack.wire().await?, stack.wire().await?];
    let users = (0..USERS).map(|number| format!("storm_{number}")).collect();
    let storm = Arc::new(Storm::new(stack.address(), schema::DATABASE, users, PASSWORD));
    let mut done = 0;
    let mut arrived = tokio::select! {
        arrived = storm.rage(CLIENTS) => arrived?,
        stopped = work(&mut connected, &mut done) => return stopped,
    };
    assert_eq!(arrived.clients.len(), CLIENTS);
    ensure!(done > 0, "those who were connected had to wait for all who came");
    let count = "SELECT last_value - 1 FROM public.lookups";
    let lookups: usize = stack
        .postgres
        .superuser(count)
        .await?
        .into_iter()
        .flatten()
        .flatten()
        .next()
        .context("no count")?
        .parse()?;
    // Each answer is good for some seconds; how often it is asked for again is a matter of the machine's speed.
    ensure!((USERS..=CLIENTS / 10).contains(&lookups), "{lookups} lookups of {USERS} users");
    // What a login needs to know of the server is known to the pool: nobody needed a connection of his own.
    stack.until_postgres_says(SERVERS, &USERS.to_string()).await?;
    for (user, line) in arrived.clients.iter_mut().step_by(99) {
        assert_eq!(ask(line).await?, *user);
    }
    Ok(())
}

const SERVERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'storm%'";
const PASSWORD: &str = "open-sesame";
const USERS: usize = 20;
const CLIENTS: usize = 2000;
