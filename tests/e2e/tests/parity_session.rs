//! Session pooling seen by its clients: what a session finds is what it would find without a pooler.

use anyhow::Result;
use weir_cluster::schema::{APP, SUPERUSER};
use weir_cluster::sql::Login;
use weir_e2e::stack::{Setup, Stack};
use weir_e2e::wire::{PROTOCOL_3_0, Wire, query, values};

async fn value(wire: &mut Wire, sql: &str) -> Result<String> {
    wire.send(&query(sql)).await?;
    Ok(values(&wire.until_ready().await?)?.join(" "))
}

/// The backend of a session, and of the next session behind it.
async fn two_sessions(stack: &Stack, login: Login<'_>) -> Result<[String; 2]> {
    let mut pids = [String::new(), String::new()];
    for pid in &mut pids {
        let mut wire = Wire::login(stack.address(), login).await?;
        *pid = value(&mut wire, "SELECT pg_backend_pid()").await?;
        wire.send(&weir_e2e::wire::message(b'X', b"")).await?;
        wire.until_closed().await?;
        stack.until_pool("cl_active", "0").await?;
    }
    Ok(pids)
}

// covers: server_reset_query
#[tokio::test]
async fn a_session_is_cleaned_for_the_next_one_and_a_superusers_ends() -> Result<()> {
    let stack = Setup::new().mode("session").pool_size(1).start().await?;
    stack.wire().await?.expect_usable().await?;
    let [first, second] = two_sessions(&stack, APP).await?;
    assert_eq!(first, second, "an application's connection is used again");
    let [first, second] = two_sessions(&stack, SUPERUSER).await?;
    assert_ne!(first, second, "what a superuser leaves behind is not known");
    Ok(())
}

#[tokio::test]
async fn a_chosen_reset_query_says_what_is_enough() -> Result<()> {
    let stack = Setup::new()
        .mode("session")
        .pool_size(1)
        .set("pool", "server_reset_query = \"RESET ALL\"")
        .start()
        .await?;
    stack.wire().await?.expect_usable().await?;
    let [first, second] = two_sessions(&stack, SUPERUSER).await?;
    assert_eq!(first, second);
    Ok(())
}

#[tokio::test]
async fn a_reset_goes_back_to_the_startup_packet() -> Result<()> {
    let stack = Setup::new().mode("session").start().await?;
    let startup = [("DateStyle", "Postgres, MDY"), ("options", "-c intervalstyle=postgres_verbose")];
    for login in [APP, SUPERUSER, APP] {
        let mut wire = Wire::login_with(stack.address(), login, PROTOCOL_3_0, &startup).await?;
        for (name, began, other) in
            [("datestyle", "Postgres, MDY", "ISO, DMY"), ("intervalstyle", "postgres_verbose", "iso_8601")]
        {
            assert_eq!(value(&mut wire, &format!("SHOW {name}")).await?, began);
            value(&mut wire, &format!("SET {name} = {other}")).await?;
            assert_eq!(value(&mut wire, &format!("SHOW {name}")).await?, other);
            value(&mut wire, &format!("RESET {name}")).await?;
            assert_eq!(value(&mut wire, &format!("SHOW {name}")).await?, began);
        }
    }
    Ok(())
}
