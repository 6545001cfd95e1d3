//! Waiting for something outside with a bound. Knows no processes.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long to wait at most and how often to look.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Longest wait.
    pub patience: Duration,
    /// Pause between two looks.
    pub pause: Duration,
}

impl Limit {
    /// Looks every 20 ms.
    #[must_use]
    pub fn quick(patience: Duration) -> Self {
        Self { patience, pause: Duration::from_millis(20) }
    }

    /// Looks every 200 ms, for what takes seconds.
    #[must_use]
    pub fn slow(patience: Duration) -> Self {
        Self { patience, pause: Duration::from_millis(200) }
    }
}

/// Looks until `look` returns a value.
///
/// # Errors
/// The patience ran out; the text names `what`.
pub async fn until<T>(what: &str, limit: Limit, mut look: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let give_up = Instant::now() + limit.patience;
    loop {
        if let Some(value) = look().await {
            return Ok(value);
        }
        if Instant::now() >= give_up {
            bail!("waited {:.1} s for {what}", limit.patience.as_secs_f64());
        }
        tokio::time::sleep(limit.pause).await;
    }
}
