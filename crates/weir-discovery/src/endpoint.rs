//! One REST API and the last thing it said. Does not know whom the answer is about: a seed may be a balancer.

use std::time::Instant;

use crate::event::PollFailure;
use crate::patroni::{Answer, Status};
use crate::slot::Slot;
use crate::topology::Api;
use crate::url::ApiUrl;

/// A URL that is polled.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub url: ApiUrl,
    /// Given by the user: never forgotten.
    pub seed: bool,
    pub slot: Slot,
    pub heard: Heard,
}

/// Outcome of the last request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Nothing,
    Said(Status),
    Failed {
        /// First failure in a row.
        since: Instant,
        why: String,
    },
}

impl Endpoint {
    pub(crate) fn new(url: ApiUrl, seed: bool) -> Self {
        Self { url, seed, slot: Slot::default(), heard: Heard::Nothing }
    }

    /// Takes an outcome in and returns what it replaced.
    pub(crate) fn hear(&mut self, now: Instant, result: Result<Answer, PollFailure>) -> Heard {
        self.slot.done();
        let said = result
            .map_err(|failure| failure.to_string())
            .and_then(|answer| Status::parse(&answer).map_err(|bad| bad.to_string()));
        let heard = match (said, &self.heard) {
            (Ok(status), _) => Heard::Said(status),
            (Err(why), Heard::Failed { since, .. }) => Heard::Failed { since: *since, why },
            (Err(why), Heard::Nothing | Heard::Said(_)) => Heard::Failed { since: now, why },
        };
        std::mem::replace(&mut self.heard, heard)
    }
}

impl Heard {
    pub(crate) fn status(&self) -> Option<&Status> {
        match self {
            Self::Said(status) => Some(status),
            Self::Nothing | Self::Failed { .. } => None,
        }
    }

    pub(crate) fn view(&self) -> Api {
        match self {
            Self::Nothing => Api::Unasked,
            Self::Said(_) => Api::Ok,
            Self::Failed { since, why } => Api::Failing { since: *since, why: why.clone() },
        }
    }

    /// True if the difference is more than log positions moving on.
    pub(crate) fn is_news_after(&self, before: &Self) -> bool {
        match (before, self) {
            (Self::Said(before), Self::Said(after)) => {
                let told = |status: &Status| (status.leads, status.timeline, status.paused, status.failsafe);
                told(before) != told(after) || (&before.role, &before.state) != (&after.role, &after.state)
            }
            (Self::Failed { .. }, Self::Failed { .. }) | (Self::Nothing, Self::Nothing) => false,
            (Self::Nothing | Self::Said(_) | Self::Failed { .. }, _) => true,
        }
    }

    /// A few words for the journal.
    pub(crate) fn told(&self) -> String {
        match self {
            Self::Nothing => "REST API not asked yet".to_owned(),
            Self::Said(status) => format!(
                "/primary says {}, role {}, state {}{}{}{}",
                if status.leads { 200 } else { 503 },
                or_dash(&status.role),
                or_dash(&status.state),
                status.timeline.map(|timeline| format!(", timeline {timeline}")).unwrap_or_default(),
                if status.paused { ", in a maintenance pause" } else { "" },
                if status.failsafe { ", in failsafe mode without its DCS" } else { "" },
            ),
            Self::Failed { since: _, why } => format!("REST API {why}"),
        }
    }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}
