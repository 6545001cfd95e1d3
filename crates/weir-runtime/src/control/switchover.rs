//! SWITCHOVER: carries out what the pure machine of `weir-discovery` wants, and tells the console how it goes. The outcome
//! is what members show, not what Patroni answers.

use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::header::HeaderValue;
use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::sleep;
use weir_admin::reply;
use weir_admin::snapshot::UnfinishedRow;
use weir_auth::basic;
use weir_config::{Patroni, Upstream};
use weir_discovery::{Answer, ApiUrl, Discovery, Outcome, PollFailure, Step, Switchover};
use weir_pool::ClientId;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_worker::{Asker, Order};

use super::console::{failure, wrong_state};
use super::patroni::{self, Call};
use super::state::{Control, Following, now};

/// Lets another member lead; answers when it does, or when it is clear that none will.
pub(super) async fn switch_over(
    control: &Rc<Control>,
    asker: (u16, ClientId),
    to: Option<String>,
) -> Result<(), Report> {
    let config = control.config();
    let (Following::Cluster { .. }, Upstream::Patroni(patroni)) = (&control.following, &config.upstream)
    else {
        return Err(failure(SqlState::FEATURE_NOT_SUPPORTED, "weir follows no cluster"));
    };
    if control.is_draining() {
        return Err(wrong_state("pooler is shutting down"));
    }
    if control.switching.replace(true) {
        return Err(wrong_state("a switchover is under way already")
            .hint("SHOW FAILOVERS and the log tell how far it has come."));
    }
    let outcome = Drive { control, asker, to: to.as_deref(), began: now() }.run(patroni).await;
    control.switching.set(false);
    let count = if outcome.is_ok() { &control.switchovers_done } else { &control.switchovers_failed };
    count.set(count.get() + 1);
    outcome
}

/// One SWITCHOVER.
struct Drive<'a> {
    control: &'a Rc<Control>,
    asker: (u16, ClientId),
    to: Option<&'a str>,
    began: Instant,
}

impl Drive<'_> {
    async fn run(&self, patroni: &Patroni) -> Result<(), Report> {
        // Whoever waits meanwhile must not run into the end of his own patience.
        let wait = patroni.switchover_wait.min(patroni.hold_timeout / 2);
        let plan = self.with(|discovery| discovery.begin_switchover(now(), self.to, wait + BOUND))?;
        let plan = plan.map_err(|why| wrong_state(format!("no switchover: {why}")))?;
        // The follower would say it, too, but perhaps after the first question to the workers.
        let topology = self.with(|discovery| discovery.topology())?;
        self.control.order(&Order::Adopt(topology));
        self.control.poke();
        self.say(Report::notice(format!("no transaction is started on {} from now on", plan.from.member)).detail(
            "This weir speaks for itself only: clients of other weir processes, and whoever connects to PostgreSQL \
             directly, see an ordinary switchover.",
        ));
        let ask_time = patroni.hold_timeout.saturating_sub(wait + MARGIN).max(ASK_TIME_MIN);
        let mut machine = Switchover::new(now(), plan, wait, ask_time);
        let (outcome, unfinished) = self.drive(&mut machine, patroni).await?;
        self.with(|discovery| discovery.end_switchover(now(), &outcome.to_string()))?;
        self.control.poke();
        self.conclude(&outcome, &unfinished)
    }

    async fn drive(
        &self,
        machine: &mut Switchover,
        patroni: &Patroni,
    ) -> Result<(Outcome, Vec<UnfinishedRow>), Report> {
        let (mut unfinished, mut told_late) = (Vec::new(), false);
        let mut answer: Option<Answered> = None;
        loop {
            if let Some(reign) = self.with(|discovery| discovery.reign())? {
                machine.reigns(now(), &reign);
            }
            match machine.step(now()) {
                Step::Look => {
                    let (rows, asker) = self.control.unfinished(self.asker).await;
                    let called_off = asker != Asker::Waits && machine.called_off();
                    machine.unfinished(now(), rows.len());
                    if !called_off && !rows.is_empty() {
                        sleep(LOOK).await;
                    }
                    unfinished = rows;
                }
                Step::Ask { url, body, limit } => {
                    self.note(&format!("no transaction is open any more, Patroni is asked at {url}"))?;
                    answer = Some(self.ask(url, body, limit, patroni));
                }
                Step::Watch => {
                    if !told_late && self.is_called_off().await {
                        told_late = true;
                        self.say(Report::notice("Patroni has been asked already: the switchover goes on"));
                    }
                    if let Some(result) = wait_for(&mut answer).await {
                        self.note(&told(&result))?;
                        machine.answered(now(), result);
                    }
                }
                Step::Finish(outcome) => return Ok((outcome, unfinished)),
            }
        }
    }

    /// Asks in a task of its own: the new leader may show up long before Patroni answers.
    fn ask(&self, url: ApiUrl, body: String, limit: Duration, patroni: &Patroni) -> Answered {
        let way = self.control.way_to_patroni();
        let authorization = patroni.login.username.as_ref().zip(patroni.login.password.as_ref());
        // Members name their own URLs; a password that was given for https goes nowhere in the clear.
        let is_secret = patroni.urls.iter().all(|seed| seed.starts_with("https:")) && !url.is_https();
        let authorization = authorization.filter(|_| !is_secret).and_then(|(user, password)| {
            let mut value = HeaderValue::from_bytes(basic::authorization(user, password).expose()).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        let (tell, answered) = oneshot::channel();
        spawn_local(async move {
            let call = Call::Post { path: "/switchover", body, authorization };
            let result = patroni::call(&url, call, &way, limit).await;
            // Nobody is left to hear it if the new leader was faster.
            drop(tell.send(result));
        });
        answered
    }

    fn conclude(&self, outcome: &Outcome, unfinished: &[UnfinishedRow]) -> Result<(), Report> {
        let Outcome::Done { member, timeline: _ } = outcome else { return Err(failed(outcome, unfinished)) };
        let took = now().saturating_duration_since(self.began).as_secs_f64();
        self.say(match self.to {
            Some(to) if to != member => Report::warning(
                SqlState::SUCCESSFUL_COMPLETION,
                format!("{outcome}, although {to} was asked for; it took {took:.1} s"),
            ),
            Some(_) | None => Report::notice(format!("{outcome}; it took {took:.1} s")),
        });
        Ok(())
    }

    async fn is_called_off(&self) -> bool {
        self.control.unfinished(self.asker).await.1 == Asker::ThinksBetterOfIt
    }

    /// To the console, the log and the journal.
    fn note(&self, progress: &str) -> Result<(), Report> {
        self.with(|discovery| discovery.note_switchover(now(), progress))?;
        self.control.poke();
        self.say(Report::notice(progress));
        Ok(())
    }

    fn say(&self, report: Report) {
        let (worker, client) = self.asker;
        if let Some(worker) = self.control.workers.iter().find(|handle| handle.index() == worker) {
            worker.order(Order::ConsoleNotice(client, reply::notice(&report)));
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Discovery) -> T) -> Result<T, Report> {
        match &self.control.following {
            Following::Cluster { discovery, events: _ } => Ok(act(&mut discovery.borrow_mut())),
            Following::Plain(_) => Err(failure(SqlState::FEATURE_NOT_SUPPORTED, "weir follows no cluster")),
        }
    }
}

type Answered = oneshot::Receiver<Result<Answer, PollFailure>>;

/// The answer, if it comes before it is time to look at the members again.
async fn wait_for(answer: &mut Option<Answered>) -> Option<Result<Answer, PollFailure>> {
    let Some(receiver) = answer else {
        sleep(LOOK).await;
        return None;
    };
    tokio::select! {
        result = receiver => {
            *answer = None;
            Some(result.unwrap_or(Err(PollFailure::TimedOut)))
        }
        () = sleep(LOOK) => None,
    }
}

fn told(result: &Result<Answer, PollFailure>) -> String {
    match result {
        Ok(answer) => format!("Patroni answered (HTTP status {}): {}", answer.status, answer.words()),
        Err(failure) => format!("Patroni's REST API {failure}"),
    }
}

fn failed(outcome: &Outcome, unfinished: &[UnfinishedRow]) -> Report {
    let code = match outcome {
        Outcome::CalledOff => SqlState::QUERY_CANCELED,
        Outcome::Done { .. }
        | Outcome::Unfinished
        | Outcome::LeaderLost
        | Outcome::Unreachable(_)
        | Outcome::Refused { .. }
        | Outcome::NoAnswer(_)
        | Outcome::Returned { .. }
        | Outcome::NoSuccessor(_) => SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
    };
    let mut report = failure(code, format!("no switchover: {outcome}"));
    if *outcome == Outcome::Unfinished {
        let mut rows: Vec<&UnfinishedRow> = unfinished.iter().collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.open_for));
        let mut lines: Vec<String> = rows.iter().take(NAMED_MAX).map(ToString::to_string).collect();
        if let Some(more) = rows.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
            lines.push(format!("and {more} more"));
        }
        report = report.detail(lines.join("\n"));
    }
    match outcome.hint() {
        Some(hint) => report.hint(hint),
        None => report,
    }
}

/// How often workers and members are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Beyond the wait for transactions: Patroni's time, and some for its answer to be read.
const BOUND: Duration = Duration::from_secs(70);

/// What is held must be let go before it has waited for `hold_timeout`.
const MARGIN: Duration = Duration::from_secs(5);

/// Patroni gets this at least, however short `hold_timeout` is: no switchover is done in less.
const ASK_TIME_MIN: Duration = Duration::from_secs(10);

/// Transactions that are named when they do not end.
const NAMED_MAX: usize = 20;
