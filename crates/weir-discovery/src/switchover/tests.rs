//! Every way a switchover can go, told as what happened and what came of it.

use super::*;
use crate::topology::Epoch;

/// What happens, in order.
enum Fact {
    /// Transactions under way.
    Busy(usize),
    /// Seconds pass.
    Pass(u64),
    CallOff,
    /// Status and text.
    Says(u16, &'static str),
    Fails(PollFailure),
    /// The leader is lost, but nobody follows yet.
    Lost,
    /// The old reign goes on.
    Stays,
    /// Member and timeline.
    Leads(&'static str, u32),
}

use Fact::*;

#[expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]
fn start() -> Instant {
    Instant::now()
}

fn reign(member: &str, timeline: u32, lasts: bool) -> Reign {
    let epoch = Epoch { system_identifier: 7, timeline };
    Reign { member: member.to_owned(), epoch, number: u64::from(timeline), lasts }
}

fn plan() -> SwitchoverPlan {
    let urls = ["http://n1:8008", "http://n2:8008"];
    SwitchoverPlan {
        from: reign("n1", 1, true),
        to: Some("n2".to_owned()),
        urls: urls.iter().map(|url| url.parse().expect("a URL")).collect(),
    }
}

/// Runs the facts; `expected` are the URLs that were asked and the outcome, or "under way".
fn check(facts: Vec<Fact>, expected: &[&str]) {
    let mut now = start();
    let mut machine = Switchover::new(now, plan(), Duration::from_secs(10), Duration::from_secs(45));
    let mut seen = Vec::new();
    let mut current = reign("n1", 1, true);
    for fact in facts {
        match fact {
            Busy(count) => machine.unfinished(now, count),
            Pass(seconds) => now += Duration::from_secs(seconds),
            CallOff => drop(machine.called_off()),
            Says(status, text) => machine.answered(now, Ok(Answer { status, body: text.into() })),
            Fails(failure) => machine.answered(now, Err(failure)),
            Lost => current = reign("n1", 1, false),
            Stays => current = reign("n1", 1, true),
            Leads(member, timeline) => current = reign(member, timeline, true),
        }
        machine.reigns(now, &current);
        if let Step::Ask { url, body, .. } = machine.step(now) {
            assert_eq!(body, r#"{"candidate":"n2","leader":"n1"}"#);
            seen.push(url.host().to_owned());
        }
    }
    seen.push(match machine.step(now) {
        Step::Finish(outcome) => outcome.to_string(),
        Step::Look | Step::Ask { .. } | Step::Watch => "under way".to_owned(),
    });
    assert_eq!(seen, expected);
}

#[test]
fn nobody_is_asked_before_the_last_transaction_has_ended() {
    check(vec![Busy(3), Pass(9), Busy(1)], &["under way"]);
    check(vec![Busy(3), Pass(9), Busy(0)], &["n1", "under way"]);
    let unfinished = "transactions did not end in time; Patroni was not asked";
    check(vec![Busy(3), Pass(10), Busy(1), Busy(0)], &[unfinished]);
    check(vec![Busy(3), Lost], &["the leader was lost before Patroni was asked"]);
    check(vec![Busy(3), Leads("n3", 2)], &["n3 leads on timeline 2"]);
}

#[test]
fn it_can_be_called_off_until_patroni_is_asked() {
    check(vec![Busy(1), CallOff], &["called off before Patroni was asked"]);
    check(vec![Busy(0), CallOff], &["n1", "under way"]);
}

#[test]
fn an_answer_that_leaves_it_open_is_waited_on() {
    let open = "Patroni was asked and answered with HTTP status 503: Switchover status unknown; the leader has not \
                changed so far";
    let says = || Says(503, "Switchover status unknown");
    check(vec![Busy(0), says(), Stays, Pass(9)], &["n1", "under way"]);
    check(vec![Busy(0), says(), Stays, Pass(9), Leads("n2", 2)], &["n1", "n2 leads on timeline 2"]);
    check(vec![Busy(0), says(), Stays, Pass(10)], &["n1", open]);
    check(vec![Busy(0), Says(504, "x"), Stays, Pass(9)], &["n1", "under way"]);
}

#[test]
fn patroni_s_time_ends_before_clients_lose_patience() {
    let silent = "Patroni was asked and did not answer in time; the leader has not changed so far";
    check(vec![Pass(9), Busy(0), Pass(45)], &["n1", "under way"]);
    check(vec![Pass(9), Busy(0), Pass(46)], &["n1", silent]);
}

#[test]
fn the_new_leader_counts_and_not_the_answer() {
    check(vec![Busy(0), Says(200, "Successfully switched over")], &["n1", "under way"]);
    check(vec![Busy(0), Lost, Leads("n2", 2)], &["n1", "n2 leads on timeline 2"]);
    check(vec![Busy(0), Lost, Says(200, "ok"), Leads("n2", 2)], &["n1", "n2 leads on timeline 2"]);
    check(
        vec![Busy(0), Lost, Says(503, "Switchover status unknown"), Pass(5), Leads("n3", 2)],
        &["n1", "n3 leads on timeline 2"],
    );
    check(
        vec![Busy(0), Says(200, "ok"), Pass(60)],
        &["n1", "no new leader has shown up, although Patroni said: ok"],
    );
    check(
        vec![Busy(0), Lost, Says(200, "ok"), Leads("n1", 2)],
        &["n1", "the old leader was restarted and leads again, on timeline 2"],
    );
}

#[test]
fn a_refusal_is_the_end_once_the_old_leader_is_seen() {
    let refused = "Patroni refused it (HTTP status 412): candidate n2 does not exist";
    check(vec![Busy(0), Says(412, "candidate n2\ndoes not exist")], &["n1", refused]);
    let failed = "Patroni refused it (HTTP status 503): Switchover failed";
    check(vec![Busy(0), Lost, Says(503, "Switchover failed")], &["n1", "under way"]);
    check(vec![Busy(0), Lost, Says(503, "Switchover failed"), Stays], &["n1", failed]);
    check(vec![Busy(0), Lost, Says(503, "Switchover failed"), Pass(60)], &["n1", failed]);
}

#[test]
fn a_member_that_cannot_be_reached_has_not_heard_the_question() {
    let refused = || Fails(PollFailure::Unreachable("connection refused".to_owned()));
    check(vec![Busy(0), refused()], &["n1", "n2", "under way"]);
    check(
        vec![Busy(0), refused(), refused()],
        &[
            "n1",
            "n2",
            "no member's REST API could be asked; the last one cannot be reached: connection refused",
        ],
    );
}

#[test]
fn an_answer_that_is_lost_is_not_asked_for_again() {
    let unknown = "Patroni was asked and broke off: x; the leader has not changed so far";
    let broken = || Fails(PollFailure::Broken("x".to_owned()));
    check(vec![Busy(0), broken(), Pass(9)], &["n1", "under way"]);
    check(vec![Busy(0), broken(), Pass(10)], &["n1", unknown]);
    check(vec![Busy(0), Lost, broken(), Pass(3), Leads("n2", 2)], &["n1", "n2 leads on timeline 2"]);
    let late = "Patroni was asked and did not answer in time; the leader has not changed so far";
    check(vec![Busy(0), Pass(61)], &["n1", late]);
}

#[test]
fn each_refusal_says_what_to_do() {
    let refused = |status| Outcome::Refused { status, words: String::new() }.hint().unwrap_or_default();
    assert!(refused(401).contains("patroni.username"));
    assert!(refused(403).contains("patroni.cert_file"));
    assert!(refused(412).contains("patronictl list"));
    assert!(Outcome::Unfinished.hint().is_some_and(|hint| hint.contains("KILL_CLIENT")));
}
