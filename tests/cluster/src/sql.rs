//! Connections for the tools' own questions, made with tokio-postgres. Knows no cluster.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// Who logs in, with which password, to which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Login<'a> {
    /// User name.
    pub user: &'a str,
    /// Its password.
    pub password: &'a str,
    /// Database.
    pub database: &'a str,
}

impl Login<'_> {
    /// The settings of a connection to `address` without TLS.
    #[must_use]
    pub fn config(&self, address: SocketAddr) -> Config {
        let mut config = Config::new();
        config
            .host(address.ip().to_string())
            .port(address.port())
            .user(self.user)
            .password(self.password)
            .dbname(self.database)
            .ssl_mode(SslMode::Disable)
            .connect_timeout(Duration::from_secs(10));
        config
    }

    /// The settings of a connection over the Unix socket in `folder`.
    #[must_use]
    pub fn local_config(&self, folder: &Path, port: u16) -> Config {
        let mut config = Config::new();
        config
            .host_path(folder)
            .port(port)
            .user(self.user)
            .password(self.password)
            .dbname(self.database)
            .connect_timeout(Duration::from_secs(10));
        config
    }
}

/// Connects without TLS; the connection is driven by a task of its own and ends with the client.
///
/// # Errors
/// The server cannot be reached or refuses the login.
pub async fn connect(address: SocketAddr, login: Login<'_>) -> Result<Client> {
    let (client, connection) = login
        .config(address)
        .connect(NoTls)
        .await
        .with_context(|| format!("connecting to {address} as {} to {}", login.user, login.database))?;
    tokio::spawn(connection);
    Ok(client)
}

/// Connects, runs one simple query (may hold several statements) and returns the rows as text.
///
/// # Errors
/// No connection, or the query failed.
pub async fn rows(address: SocketAddr, login: Login<'_>, query: &str) -> Result<Vec<Vec<Option<String>>>> {
    let client = connect(address, login).await?;
    let messages = client.simple_query(query).await.with_context(|| format!("running {query}"))?;
    let text = |message: &SimpleQueryMessage| {
        let SimpleQueryMessage::Row(row) = message else { return None };
        Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
    };
    Ok(messages.iter().filter_map(text).collect())
}

/// Runs one simple query on a connection that is there and returns the first column of its rows, as text.
///
/// # Errors
/// The query failed.
pub async fn values(client: &Client, query: &str) -> Result<Vec<String>> {
    let messages = client.simple_query(query).await.with_context(|| format!("running {query}"))?;
    let text = |message: &SimpleQueryMessage| {
        let SimpleQueryMessage::Row(row) = message else { return None };
        row.get(0).map(str::to_owned)
    };
    Ok(messages.iter().filter_map(text).collect())
}

/// [`rows`], of which only the first column of the first row is wanted.
///
/// # Errors
/// As [`rows`], and when there is no row or the value is NULL.
pub async fn value(address: SocketAddr, login: Login<'_>, query: &str) -> Result<String> {
    let rows = rows(address, login, query).await?;
    rows.into_iter().flatten().next().flatten().with_context(|| format!("no value from {query}"))
}
