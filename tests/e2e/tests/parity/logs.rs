//! The log, as pgBadger and people's searches read it: line by line the same, numbers and addresses apart.

use anyhow::{Context, Result};
use weir_cluster::schema::APP;
use weir_cluster::sql::Login;
use weir_cluster::wait::{Limit, until};
use weir_e2e::peer::{Peer, command};
use weir_e2e::wire::{PATIENCE, query, terminate};

use crate::{Diary, HOLDS, asked, compare, to_the_end};

/// `2026-11-21 08:16:27.605 UTC [9744] LOG C-0x55: x/y@127.0.0.1:5 ...` without what differs from run to run.
fn masked(line: &str) -> Option<String> {
    let (_, said) = line.split_once("] ")?;
    let words = said.split(' ').map(|word| match word.split_once("-0x") {
        Some((kind, _)) => format!("{kind}-0xN:"),
        None => numberless(word),
    });
    Some(words.collect::<Vec<_>>().join(" "))
}

/// Each run of digits, and each number with a point, as one N.
pub(crate) fn numberless(word: &str) -> String {
    let mut out = String::new();
    for letter in word.chars() {
        let digit = letter.is_ascii_digit() || (letter == '.' && out.ends_with('N'));
        if !digit {
            out.push(letter);
        } else if !out.ends_with('N') {
            out.push('N');
        }
    }
    out
}

/// Waits for a line with these words, and writes it down.
async fn note_line(peer: &Peer, diary: &mut Diary, words: &str) -> Result<()> {
    let line = until(words, Limit::quick(PATIENCE), async || {
        peer.log().lines().filter_map(masked).find(|line| line.contains(words))
    })
    .await;
    diary.note("app_user, nowhere, log", line.with_context(|| peer.log())?);
    Ok(())
}

/// Waits until the client that came last has left, and writes down what the log says of it.
pub(crate) async fn note_client(peer: &Peer, diary: &mut Diary, login: Login<'_>) -> Result<()> {
    let said = until("the client to leave", Limit::quick(PATIENCE), async || {
        let log = peer.log();
        let name = log.lines().rfind(|line| line.contains("login attempt"))?;
        let lines = log.lines().skip_while(|line| *line != name);
        // Of a SCRAM proof that does not fit, 1.18 also writes an ERROR in front of the lines that say so.
        let of_client = |line: &String| line.contains(" C-0xN") && !line.starts_with("ERROR");
        let said: Vec<String> = lines.filter_map(masked).filter(of_client).collect();
        let last = said.last()?;
        (last.contains("closing because: client") || last.contains("pooler error")).then_some(said)
    })
    .await?;
    said.iter().for_each(|line| diary.note(&format!("{}, {}, log", login.user, login.database), line));
    Ok(())
}

// covers: log_connections log_disconnections log_pooler_errors log_stats stats_period
#[tokio::test]
async fn what_pgbadger_reads() -> Result<()> {
    let lines = "auth_type = trust\npool_mode = transaction\nstats_period = 1\nserver_idle_timeout = 1";
    compare(lines, async |peer, diary| {
        let mut polite = peer.wire().await?;
        note_line(peer, diary, "login attempt").await?;
        asked(&mut polite, "SELECT 1").await?;
        note_line(peer, diary, "new connection to server").await?;
        polite.send(&terminate()).await?;
        note_line(peer, diary, "client close request").await?;
        peer.wire().await?.vanish()?;
        note_line(peer, diary, "app_user@N:N closing because: client unexpected eof").await?;
        peer.login(Login { database: "nowhere", ..APP }).await;
        note_line(peer, diary, "pooler error: no such database").await?;
        note_line(peer, diary, "closing because: no such database").await?;
        note_line(peer, diary, "server idle timeout").await?;
        note_line(peer, diary, "stats:").await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn why_connections_close() -> Result<()> {
    let lines = "auth_type = trust\npool_mode = transaction\nquery_wait_timeout = 1\ndefault_pool_size = 1\nserver_lifetime = 1";
    compare(lines, async |peer, diary| {
        let console = peer.console().await?;
        let (mut holder, mut waiter) = (peer.wire().await?, peer.wire().await?);
        asked(&mut holder, HOLDS).await?;
        waiter.send(&query("SELECT 1")).await?;
        to_the_end(&mut waiter).await?;
        note_line(peer, diary, "closing because: query_wait_timeout").await?;
        note_line(peer, diary, "pooler error: query_wait_timeout").await?;
        asked(&mut holder, "COMMIT").await?;
        note_line(peer, diary, "server lifetime over").await?;
        for sql in [
            "PAUSE mrg",
            "RESUME mrg",
            "RECONNECT mrg",
            "DISABLE mrg",
            "ENABLE mrg",
            "SUSPEND",
            "RELOAD",
            "KILL mrg",
        ] {
            if sql != "RESUME mrg" {
                asked(&mut holder, "SELECT 1").await?;
            }
            command(&console, sql).await;
            let verb = sql.split(' ').next().unwrap_or_default();
            note_line(peer, diary, &format!("LOG {verb}")).await?;
            if sql == "SUSPEND" {
                command(&console, "RESUME").await;
            }
        }
        to_the_end(&mut holder).await?;
        for why in ["pause mode", "obsolete connection"] {
            note_line(peer, diary, &format!("LOG S-0xN: mrg/app_user@N:N closing because: {why}")).await?;
        }
        note_line(peer, diary, "LOG C-0xN: mrg/app_user@N:N closing because: database removed").await?;
        Ok(())
    })
    .await
}
