//! The client that most people have: libpq, through psql. Knows nothing of what weir does.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use weir_cluster::schema;

use crate::stack::Stack;
use crate::wire::PATIENCE;

/// psql with these words in its connection string.
fn psql(stack: &Stack, words: &str) -> Command {
    let port = stack.address().port();
    let string = format!("host=localhost port={port} dbname={} connect_timeout=10 {words}", schema::DATABASE);
    let mut command = Command::new(stack.postgres.bin_dir().join("psql"));
    command.args(["-XAtqw", &string]).env("HOME", "/nonexistent").kill_on_drop(true);
    command
}

/// Words for the application's user.
#[must_use]
pub fn app() -> String {
    format!("user={} password={}", schema::APP.user, schema::APP.password)
}

/// `SELECT current_user` by psql with these words in its connection string.
///
/// # Errors
/// The first line of what it complained about.
pub async fn whoami(stack: &Stack, words: &str) -> Result<String, String> {
    ask(stack, words, "SELECT current_user").await
}

/// The answer to one query by psql with these words in its connection string.
///
/// # Errors
/// The first line of what it complained about.
pub async fn ask(stack: &Stack, words: &str, sql: &str) -> Result<String, String> {
    let mut command = psql(stack, words);
    command.args(["-c", sql]).stdin(Stdio::null());
    let output = command.output().await.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(complaint.lines().next().unwrap_or_default().to_owned())
}

/// A psql that stays connected.
#[derive(Debug)]
pub struct Connected {
    _process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Connected {
    /// Connects with these words in the connection string.
    ///
    /// # Errors
    /// It cannot be started, or is not let in.
    pub async fn new(stack: &Stack, words: &str) -> Result<Self> {
        let mut command = psql(stack, words);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = process.stdin.take().context("no way in")?;
        let output = BufReader::new(process.stdout.take().context("no way out")?).lines();
        let mut connected = Self { _process: process, input, output };
        connected.expect_usable().await?;
        Ok(connected)
    }

    /// One more query is answered.
    ///
    /// # Errors
    /// It is not.
    pub async fn expect_usable(&mut self) -> Result<()> {
        self.input.write_all(b"SELECT 'still here';\n").await?;
        let line = tokio::time::timeout(PATIENCE, self.output.next_line()).await.context("no answer")??;
        if line.as_deref() != Some("still here") {
            bail!("psql said {line:?}");
        }
        Ok(())
    }
}
