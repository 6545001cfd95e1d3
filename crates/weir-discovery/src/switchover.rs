//! One SWITCHOVER from its beginning to its outcome: waits for transactions, asks Patroni, waits for the new leader.
//! Driven by what happened and the time; counts transactions but does not know them, and speaks no HTTP.

use std::fmt;
use std::time::{Duration, Instant};

use crate::event::PollFailure;
use crate::patroni::Answer;
use crate::planned::{Reign, SwitchoverPlan};
use crate::url::ApiUrl;

/// A switchover under way. Ask [`Switchover::step`] what to do, do it, tell what came of it, ask again.
#[derive(Debug)]
pub struct Switchover {
    plan: SwitchoverPlan,
    phase: Phase,
    /// For Patroni to be asked and for the new leader to show up.
    ends: Instant,
}

#[derive(Debug)]
enum Phase {
    /// Transactions on the leader may end, until then.
    Emptying {
        until: Instant,
    },
    /// The next one to ask, by its place in the plan. Nothing was sent to those in front of it.
    Asking {
        at: usize,
    },
    /// Asked; no answer yet.
    Asked {
        at: usize,
        until: Instant,
    },
    /// Patroni has said what it says; now members have to show it.
    Watching {
        reply: Reply,
        until: Instant,
    },
    Over(Outcome),
}

/// What Patroni's answer came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reply {
    /// It is done, or will be.
    Yes(String),
    /// It is not, or Patroni does not know. If the leader stays that is the end of it.
    No(Outcome),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Find out how many transactions are under way and whether who asked still wants it, and tell:
    /// [`Switchover::unfinished`], [`Switchover::called_off`].
    Look,
    /// `POST /switchover`, with at most this time, and tell what came: [`Switchover::answered`].
    Ask {
        /// Whom.
        url: ApiUrl,
        /// JSON.
        body: String,
        /// For the whole exchange.
        limit: Duration,
    },
    /// Wait for an answer or another leader ([`Switchover::reigns`]).
    Watch,
    /// Nothing: this came of it.
    Finish(Outcome),
}

/// How a switchover ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Somebody else is followed.
    Done {
        /// Who.
        member: String,
        /// On which timeline.
        timeline: u32,
    },
    /// Transactions did not end in time; Patroni was not asked.
    Unfinished,
    /// Whoever asked for it called it off before Patroni was asked.
    CalledOff,
    /// The leader was lost before Patroni was asked.
    LeaderLost,
    /// No member's REST API could be reached; says why not the last one.
    Unreachable(String),
    /// Patroni said no.
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words.
        words: String,
    },
    /// The answer did not come, or was cut short, and the leader has stayed.
    NoAnswer(String),
    /// The old leader was restarted, and leads again on a new timeline.
    Returned {
        /// The timeline.
        timeline: u32,
    },
    /// Patroni said yes, or nothing, and nobody new has shown up.
    NoSuccessor(String),
}

impl Switchover {
    /// Begins; transactions may take until `wait` has passed to end, and Patroni `ask_time` from then on, whichever
    /// members have to be tried.
    pub fn new(now: Instant, plan: SwitchoverPlan, wait: Duration, ask_time: Duration) -> Self {
        let until = now + wait;
        Self { plan, phase: Phase::Emptying { until }, ends: until + ask_time.min(ASK_TIME_MAX) }
    }

    /// What to do now.
    pub fn step(&mut self, now: Instant) -> Step {
        match &self.phase {
            Phase::Emptying { .. } => Step::Look,
            Phase::Asking { at } => {
                let at = *at;
                let Some(url) = self.plan.urls.get(at).cloned() else {
                    // Only a plan without URLs leads here.
                    self.phase = Phase::Over(Outcome::Unreachable("no REST API is known".to_owned()));
                    return self.step(now);
                };
                let until = self.ends.min(now + ASK_TIME_MAX);
                self.phase = Phase::Asked { at, until };
                Step::Ask { url, body: self.body(), limit: until.saturating_duration_since(now) }
            }
            Phase::Asked { .. } | Phase::Watching { .. } => Step::Watch,
            Phase::Over(outcome) => Step::Finish(outcome.clone()),
        }
    }

    /// So many transactions are under way on the leader.
    pub fn unfinished(&mut self, now: Instant, count: usize) {
        let Phase::Emptying { until } = self.phase else { return };
        if count == 0 {
            self.phase = Phase::Asking { at: 0 };
        } else if now >= until {
            self.phase = Phase::Over(Outcome::Unfinished);
        }
    }

    /// Whoever asked for it has left or thinks better of it. False if it is too late for that.
    pub fn called_off(&mut self) -> bool {
        match self.phase {
            Phase::Emptying { .. } => self.phase = Phase::Over(Outcome::CalledOff),
            Phase::Asking { .. } | Phase::Asked { .. } | Phase::Watching { .. } | Phase::Over(_) => {
                return false;
            }
        }
        true
    }

    /// What came of [`Step::Ask`].
    pub fn answered(&mut self, now: Instant, result: Result<Answer, PollFailure>) {
        let Phase::Asked { at, until } = self.phase else { return };
        let reply = match result {
            Ok(answer @ Answer { status: 200..=299, .. }) => Reply::Yes(answer.words()),
            Ok(answer) if answer.is_undecided() => Reply::No(Outcome::NoAnswer(format!(
                "answered with HTTP status {}: {}",
                answer.status,
                answer.words()
            ))),
            Ok(answer) => Reply::No(Outcome::Refused { status: answer.status, words: answer.words() }),
            // Nobody has heard the question.
            Err(failure @ (PollFailure::Unreachable(_) | PollFailure::Tls(_))) => {
                self.phase = if at + 1 < self.plan.urls.len() {
                    Phase::Asking { at: at + 1 }
                } else {
                    Phase::Over(Outcome::Unreachable(failure.to_string()))
                };
                return;
            }
            Err(failure @ (PollFailure::TimedOut | PollFailure::Broken(_))) => {
                Reply::No(Outcome::NoAnswer(failure.to_string()))
            }
        };
        let until = match &reply {
            Reply::No(Outcome::NoAnswer(_)) => until.min(now + UNANSWERED_WAIT),
            // A refusal is the end if the leader has not gone; if it has, somebody else may come still.
            Reply::No(_) | Reply::Yes(_) => until,
        };
        self.phase = Phase::Watching { reply, until };
    }

    /// Who is followed now; to be told often, from the beginning to the end.
    pub fn reigns(&mut self, now: Instant, reign: &Reign) {
        let from = &self.plan.from;
        if matches!(self.phase, Phase::Over(_)) {
            return;
        }
        if reign.number != from.number {
            let timeline = reign.epoch.timeline;
            self.phase = Phase::Over(if reign.member == from.member {
                Outcome::Returned { timeline }
            } else {
                Outcome::Done { member: reign.member.clone(), timeline }
            });
            return;
        }
        let over = match &self.phase {
            Phase::Emptying { .. } if !reign.lasts => Outcome::LeaderLost,
            Phase::Watching { reply: Reply::No(outcome @ Outcome::Refused { .. }), .. } if reign.lasts => {
                outcome.clone()
            }
            Phase::Watching { reply, until } if now >= *until => match reply {
                Reply::Yes(words) => Outcome::NoSuccessor(words.clone()),
                Reply::No(outcome) => outcome.clone(),
            },
            Phase::Asked { until, .. } if now >= *until => {
                Outcome::NoAnswer(PollFailure::TimedOut.to_string())
            }
            Phase::Emptying { .. }
            | Phase::Asking { .. }
            | Phase::Asked { .. }
            | Phase::Watching { .. }
            | Phase::Over(_) => return,
        };
        self.phase = Phase::Over(over);
    }

    fn body(&self) -> String {
        let mut body = serde_json::json!({ "leader": self.plan.from.member });
        if let Some(to) = &self.plan.to {
            body["candidate"] = to.as_str().into();
        }
        body.to_string()
    }
}

impl Outcome {
    /// The leader has changed.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done { .. })
    }

    /// What an operator can do about it, if anything.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Done { .. } | Self::CalledOff | Self::LeaderLost | Self::Returned { .. } => None,
            Self::Unfinished => Some(
                "End these transactions (KILL_CLIENT takes the id), or give them more time: patroni.switchover_wait.",
            ),
            Self::Unreachable(_) => Some("SHOW MEMBERS tells how each REST API does."),
            Self::Refused { status: 401, .. } => Some(
                "Patroni wants the user and password of its restapi.authentication: set patroni.username and \
                 patroni.password_file.",
            ),
            Self::Refused { status: 403, .. } => Some(
                "Patroni lets this host or its certificate change nothing: see restapi.allowlist and \
                 restapi.verify_client there, patroni.cert_file and patroni.key_file here.",
            ),
            Self::Refused { status: 412, .. } => Some(
                "patronictl list tells the members' state; a synchronous cluster takes its synchronous standby only.",
            ),
            Self::Refused { .. } | Self::NoAnswer(_) | Self::NoSuccessor(_) => {
                Some("patronictl list and Patroni's log on the leader tell more.")
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { member, timeline } => write!(f, "{member} leads on timeline {timeline}"),
            Self::Unfinished => f.write_str("transactions did not end in time; Patroni was not asked"),
            Self::CalledOff => f.write_str("called off before Patroni was asked"),
            Self::LeaderLost => f.write_str("the leader was lost before Patroni was asked"),
            Self::Unreachable(why) => write!(f, "no member's REST API could be asked; the last one {why}"),
            Self::Refused { status, words } => {
                write!(f, "Patroni refused it (HTTP status {status}): {words}")
            }
            Self::NoAnswer(why) => {
                write!(f, "Patroni was asked and {why}; the leader has not changed so far")
            }
            Self::Returned { timeline } => {
                write!(f, "the old leader was restarted and leads again, on timeline {timeline}")
            }
            Self::NoSuccessor(words) => {
                write!(f, "no new leader has shown up, although Patroni said: {words}")
            }
        }
    }
}

impl Answer {
    /// The leader may still go: Patroni has stopped waiting for the outcome, or a proxy in between has.
    fn is_undecided(&self) -> bool {
        matches!(self.status, 502 | 504) || self.status == 503 && self.words().contains("unknown")
    }

    /// The answer as words for an operator: Patroni has one sentence of text, a proxy in between may have anything.
    pub fn words(&self) -> String {
        let shown = self.body.get(..self.body.len().min(WORDS_BYTES_MAX)).unwrap_or_default();
        let text: String =
            String::from_utf8_lossy(shown).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text = text.trim();
        if text.is_empty() { "nothing".to_owned() } else { text.to_owned() }
    }
}

/// From the question to the new leader. Patroni itself waits for the outcome before it answers, 20 s and more.
pub(crate) const ASK_TIME_MAX: Duration = Duration::from_secs(60);

/// How long after a lost answer the leader may still go.
const UNANSWERED_WAIT: Duration = Duration::from_secs(10);

/// Shown of an answer.
const WORDS_BYTES_MAX: usize = 300;

#[cfg(test)]
mod tests;
