//! The console, its access rules and the HTTP pages, as PgBouncer's users and their tools know them.

use anyhow::{Context, Result, ensure};
use weir_cluster::sql::{self, Login};
use weir_cluster::{http, schema};
use weir_e2e::stack::{ADMIN, STATS, Setup, Stack};
use weir_e2e::wire::{self, Message, Outcome, PROTOCOL_3_0, Wire, tags, values};

/// Column names and types of a RowDescription, one letter per type: s text, i int4, q int8, N numeric.
fn shape(description: &Message) -> Result<(Vec<String>, String)> {
    let mut rest = description.body.get(2..).context("a short RowDescription")?;
    let mut names = Vec::new();
    let mut types = String::new();
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        let (name, after) = rest.split_at(end);
        names.push(String::from_utf8(name.to_vec())?);
        let oid = after.get(7..11).and_then(|bytes| bytes.try_into().ok()).context("a short column")?;
        types.push(match u32::from_be_bytes(oid) {
            25 => 's',
            23 => 'i',
            20 => 'q',
            1700 => 'N',
            other => anyhow::bail!("type {other}"),
        });
        rest = after.get(19..).context("a short column")?;
    }
    Ok((names, types))
}

async fn admin(stack: &Stack) -> Result<Wire> {
    Wire::login(stack.address(), ADMIN).await
}

#[tokio::test]
async fn tables_have_pgbouncer_s_columns_and_types() -> Result<()> {
    let stack = Setup::new().start().await?;
    stack.wire().await?.expect_usable().await?;
    let mut console = admin(&stack).await?;
    let sockets = "type user database replication state addr port local_addr local_port connect_time request_time wait \
        wait_us close_needed ptr link remote_pid tls application_name prepared_statements id";
    let expected = [
        (
            "POOLS",
            "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel \
             sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode load_balance_hosts",
            "ssiiiiiiiiiiiiiss",
        ),
        ("CLIENTS", sockets, "ssssssisissiiississii"),
        ("SERVERS", sockets, "ssssssisissiiississii"),
        (
            "DATABASES",
            "name host port database force_user pool_size min_pool_size reserve_pool_size server_lifetime pool_mode \
             load_balance_hosts max_connections current_connections max_client_connections current_client_connections \
             paused disabled",
            "ssissiiiissiiiiii",
        ),
        (
            "STATS",
            "database total_server_assignment_count total_xact_count total_query_count total_received total_sent \
             total_xact_time total_query_time total_wait_time total_client_parse_count total_server_parse_count \
             total_bind_count avg_server_assignment_count avg_xact_count avg_query_count avg_recv avg_sent \
             avg_xact_time avg_query_time avg_wait_time avg_client_parse_count avg_server_parse_count avg_bind_count",
            "sNNNNNNNNNNNNNNNNNNNNNN",
        ),
        ("LISTS", "list items", "si"),
        ("CONFIG", "key value default changeable", "ssss"),
        ("VERSION", "version", "s"),
    ];
    for (what, columns, types) in expected {
        let seen = console.query(&format!("SHOW {what}")).await?;
        let description =
            seen.first().filter(|message| message.tag == b'T').context(format!("{what}: {seen:?}"))?;
        let (names, letters) = shape(description)?;
        assert_eq!(names.join(" "), columns.split_whitespace().collect::<Vec<_>>().join(" "), "{what}");
        assert_eq!(letters, types, "{what}");
        assert!(tags(&seen).contains("DC"), "{what} has no row: {seen:?}");
        let tag = seen.iter().find(|message| message.tag == b'C').map(Message::word);
        assert_eq!(tag.as_deref(), Some("SHOW"), "{what}");
    }
    Ok(())
}

#[tokio::test]
async fn the_login_looks_like_pgbouncer_s() -> Result<()> {
    let stack = Setup::new().start().await?;
    for database in ["pgbouncer", "weir"] {
        for address in [stack.weir.write(), stack.weir.read()] {
            let mut console = Wire::login(address, Login { database, ..ADMIN }).await?;
            let version = console.parameter("server_version").unwrap_or_default().to_owned();
            assert!(version.contains("/bouncer") || version.contains("weir"), "server_version {version}");
            assert_eq!(console.parameter("client_encoding"), Some("UTF8"));
            let seen = console.query("SHOW VERSION").await?;
            assert!(values(&seen)?.concat().to_lowercase().contains("weir"), "{seen:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn help_is_a_notice() -> Result<()> {
    let stack = Setup::new().start().await?;
    let seen = admin(&stack).await?.query("SHOW HELP").await?;
    let notice = seen.iter().find(|message| message.tag == b'N').context(format!("{seen:?}"))?;
    assert_eq!(notice.code(), "00000");
    let detail = notice.field(b'D').unwrap_or_default();
    for command in ["POOLS", "MEMBERS", "RELOAD", "PAUSE", "RESUME", "RECONNECT", "SHUTDOWN"] {
        assert!(detail.contains(command), "{command} is not in the help: {detail}");
    }
    Ok(())
}

#[tokio::test]
async fn a_wrong_command_is_an_error_and_the_console_stays() -> Result<()> {
    let stack = Setup::new().start().await?;
    let mut console = admin(&stack).await?;
    for wrong in ["SHOW NOTHING", "SELEKT", "DROP TABLE x", "PAUSE no_such_database", "", ";"] {
        let seen = console.query(wrong).await?;
        ensure!(seen.last().is_some_and(|last| last.tag == b'Z'), "{wrong}: {seen:?}");
        let failed = tags(&seen).contains('E');
        assert_eq!(failed, !wrong.trim_matches(';').is_empty(), "{wrong}: {seen:?}");
    }
    for spelled in ["show version;", "  Show   Version ", "SHOW VERSION -- comment"] {
        assert!(tags(&console.query(spelled).await?).starts_with("TD"), "{spelled}");
    }
    Ok(())
}

#[tokio::test]
async fn only_named_users_get_in() -> Result<()> {
    let stack = Setup::new().start().await?;
    let app = Login { database: "pgbouncer", ..schema::APP };
    let (_, outcome) = Wire::try_login(stack.address(), app, PROTOCOL_3_0, &[]).await?;
    let Outcome::Refused(report) = outcome else { anyhow::bail!("the application is on the console") };
    assert!(["28000", "42501"].contains(&report.code().as_str()), "{report:?}");
    let wrong = Login { password: "guess", ..ADMIN };
    let (_, outcome) = Wire::try_login(stack.address(), wrong, PROTOCOL_3_0, &[]).await?;
    assert!(matches!(outcome, Outcome::Refused(report) if report.code() == "28P01"));
    let mut viewer = Wire::login(stack.address(), STATS).await?;
    assert!(tags(&viewer.query("SHOW POOLS").await?).starts_with('T'));
    for forbidden in ["PAUSE", "RESUME", "RELOAD", "RECONNECT", "SHUTDOWN"] {
        let seen = viewer.query(forbidden).await?;
        let code = seen.first().map(Message::code);
        assert_eq!(code.as_deref(), Some("42501"), "{forbidden}: {seen:?}");
    }
    stack.wire().await?.expect_usable().await
}

#[tokio::test]
async fn counters_count() -> Result<()> {
    let stack = Setup::new().pool_size(2).start().await?;
    let mut wire = stack.wire_with(&[("application_name", "counted")]).await?;
    for _ in 0..5 {
        wire.query("BEGIN").await?;
        wire.query("SELECT 1").await?;
        wire.query("COMMIT").await?;
    }
    let batch =
        [wire::parse("s", "SELECT 1"), wire::bind("", "s", &[]), wire::execute("", 0), wire::sync()].concat();
    wire.send(&batch).await?;
    wire.until_ready().await?;
    let stats = stack.show("STATS").await?;
    let row =
        stats.iter().find(|row| row.iter().any(|(_, value)| value == schema::DATABASE)).context("no row")?;
    let count = |name: &str| -> Result<u64> {
        let found = row.iter().find(|(known, _)| known == name).context(name.to_owned())?;
        Ok(found.1.parse()?)
    };
    assert_eq!(count("total_xact_count")?, 6);
    assert!(count("total_query_count")? >= 6, "{stats:?}");
    assert!(count("total_received")? > 100 && count("total_sent")? > 100, "{stats:?}");
    assert!(count("total_server_assignment_count")? >= 6, "{stats:?}");
    assert_eq!((count("total_client_parse_count")?, count("total_bind_count")?), (1, 1));
    let clients = stack.show("CLIENTS").await?;
    let named = |row: &&Vec<(String, String)>| row.iter().any(|(_, value)| value == "counted");
    let client = clients.iter().find(named).context(format!("{clients:?}"))?;
    let cell = |name: &str| client.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    assert_eq!((cell("user"), cell("database")), (Some(schema::APP.user), Some(schema::DATABASE)));
    assert_eq!((cell("addr"), cell("type")), (Some("127.0.0.1"), Some("C")));
    let servers = stack.show("SERVERS").await?;
    let pids: Vec<String> = stack.servers().await?.iter().map(ToString::to_string).collect();
    let remote: Vec<&str> = servers
        .iter()
        .flatten()
        .filter(|(name, _)| name == "remote_pid")
        .map(|(_, value)| value.as_str())
        .collect();
    assert!(pids.iter().all(|pid| remote.contains(&pid.as_str())), "{pids:?} not in {remote:?}");
    Ok(())
}

#[tokio::test]
async fn members_of_a_plain_upstream_are_shown() -> Result<()> {
    let stack = Setup::new().start().await?;
    stack.wire().await?.expect_usable().await?;
    let seen = admin(&stack).await?.query("SHOW MEMBERS").await?;
    assert!(tags(&seen).starts_with('T'), "{seen:?}");
    Ok(())
}

#[tokio::test]
async fn tokio_postgres_reads_the_console() -> Result<()> {
    let stack = Setup::new().start().await?;
    let version = sql::value(stack.address(), ADMIN, "SHOW VERSION").await?;
    assert!(version.to_lowercase().contains("weir"), "{version}");
    Ok(())
}

#[tokio::test]
async fn http_pages() -> Result<()> {
    let stack = Setup::new().start().await?;
    stack.wire().await?.expect_usable().await?;
    let page = async |path: &str| http::get(stack.weir.http(), path).await;
    assert_eq!(page("/healthz").await?.status, 200);
    assert_eq!(page("/readyz").await?.status, 200);
    assert_eq!(page("/nowhere").await?.status, 404);
    let metrics = page("/metrics").await?;
    assert_eq!(metrics.status, 200);
    let sample = |line: &&str| !line.starts_with('#') && !line.is_empty();
    assert!(metrics.body.lines().filter(sample).count() > 10, "{}", metrics.body);
    for line in metrics.body.lines().filter(sample) {
        let value = line.rsplit(' ').next().unwrap_or_default();
        ensure!(line.starts_with("weir_") && value.parse::<f64>().is_ok(), "not a sample: {line}");
    }
    assert!(metrics.body.contains(schema::DATABASE), "no label names the database: {}", metrics.body);
    Ok(())
}
