//! The machine: takes answers and reports in, asks the judge, and publishes a topology when it changes. Asks nobody
//! itself; what it wants to know it says in [`Discovery::due`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cadence::ClusterAsk;
use crate::endpoint::{Endpoint, Heard};
use crate::event::{Event, MonitorReport, PollFailure, Settings};
use crate::journal::{FailoverRecord, Journal, Note, Succession};
use crate::judge::{ApiSays, Followed, Sighting, Standing, Verdict, judge, standby_leader, standing};
use crate::lag::{Lateness, Told, Yardstick};
use crate::member::{Member, api_says, foreign, monitor_told};
use crate::patroni::{Answer, Listing, MEMBERS_MAX, Status};
use crate::planned::Asked;
use crate::schedule::{Schedule, SinceEpoch};
use crate::topology::{Address, Epoch, GivenUp, LagSource, Leadership, Monitor, Topology};
use crate::url::ApiUrl;

/// Follows one Patroni cluster. Time comes in with each call and never goes back.
#[derive(Debug)]
pub struct Discovery {
    pub(crate) settings: Settings,
    pub(crate) started: Instant,
    /// Seeds first, then what `/cluster` named.
    pub(crate) endpoints: Vec<Endpoint>,
    /// By name.
    pub(crate) members: Vec<Member>,
    pub(crate) cluster: ClusterAsk,
    /// When something new was last seen.
    pub(crate) news_at: Instant,
    pub(crate) followed: Option<Followed>,
    pub(crate) followed_at: Instant,
    /// [`Member::incarnation`] of the leader when it was followed.
    followed_incarnation: u64,
    /// When the leader was given up last.
    lost_at: Option<Instant>,
    given_up: Option<GivenUp>,
    /// When the judge was last asked.
    pub(crate) concluded_at: Instant,
    /// Scope of the first leader that was followed.
    scope_seen: Option<String>,
    pub(crate) epoch_number: u64,
    /// What lags are measured by.
    pub(crate) yardstick: Yardstick,
    /// `/cluster` says so: Patroni keeps its hands off.
    pub(crate) is_paused: bool,
    pub(crate) asked: Option<Asked>,
    pub(crate) schedule: Option<Schedule>,
    /// When a callback was last written down.
    pub(crate) pushed_at: Option<Instant>,
    /// What the calendar said at some moment, if anybody has told.
    pub(crate) wall: Option<(Instant, SinceEpoch)>,
    topology: Arc<Topology>,
    journal: Journal,
}

impl Discovery {
    /// Knows nothing yet; ask what is [`Discovery::due`].
    pub fn new(now: Instant, settings: Settings) -> Self {
        let endpoints = settings.seeds.iter().map(|url| Endpoint::new(url.clone(), true)).collect();
        let topology = Topology {
            generation: 1,
            leader: Leadership::Leaderless { why: "no member has answered yet".to_owned() },
            replicas: Vec::new(),
            fallback: settings.fallback,
            silent: Vec::new(),
            is_standby_cluster: false,
            failover: 0,
            given_up: None,
            planned: None,
            members: Vec::new(),
        };
        Self {
            settings,
            started: now,
            endpoints,
            members: Vec::new(),
            cluster: ClusterAsk::default(),
            news_at: now,
            followed: None,
            followed_at: now,
            followed_incarnation: 0,
            lost_at: None,
            given_up: None,
            concluded_at: now,
            scope_seen: None,
            epoch_number: 0,
            yardstick: Yardstick::default(),
            is_paused: false,
            asked: None,
            schedule: None,
            pushed_at: None,
            wall: None,
            topology: Arc::new(topology),
            journal: Journal::default(),
        }
    }

    /// Takes one event in and decides anew.
    pub fn step(&mut self, now: Instant, event: Event) {
        match event {
            Event::Polled { url, result } => self.polled(now, &url, result),
            Event::Cluster { url, result } => self.listed(now, &url, result),
            Event::Monitor { member, address, report } => self.watched(now, &member, &address, report),
            // It starts a poll and decides nothing: any application can raise any SQLSTATE.
            Event::Evidence(_) => self.news_at = now,
            Event::Pushed => self.pushed(now),
        }
        self.conclude(now);
    }

    /// What workers follow; a new generation whenever leader, read targets or fallback change.
    pub fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology)
    }

    /// Failovers since start, the last [`crate::FAILOVERS_MAX`] of them, oldest first.
    pub fn failovers(&mut self) -> &[FailoverRecord] {
        self.journal.failovers()
    }

    /// Lines for the log since the last call.
    pub fn notes(&mut self) -> impl Iterator<Item = Note> + '_ {
        self.journal.drain()
    }

    /// Takes over settings after a reload. Seeds and scope stay: whom weir follows does not change under its feet.
    pub fn configure(&mut self, now: Instant, settings: Settings) {
        for member in &mut self.members {
            // By another limit everybody is judged anew.
            if settings.max_lag_bytes != self.settings.max_lag_bytes {
                member.lateness = Lateness::default();
            }
            match (&member.monitor, settings.monitor) {
                (Monitor::Off, true) => member.monitor = Monitor::Pending,
                (_, false) => member.monitor = Monitor::Off,
                (_, true) => {}
            }
        }
        let Settings { seeds, scope, .. } = std::mem::replace(&mut self.settings, settings);
        self.settings.seeds = seeds;
        self.settings.scope = scope;
        self.conclude(now);
    }

    /// `ACCEPT LEADER member`: follow a claimant although its timeline is older or its cluster another one. This is
    /// the way out after a restore; it takes an administrator's word.
    ///
    /// # Errors
    /// A sentence that says why there is nothing to accept.
    pub fn accept_leader(&mut self, now: Instant, name: &str) -> Result<String, String> {
        let sightings = self.sightings();
        let Some(member) = sightings.iter().find(|member| member.name == name) else {
            return Err(format!("no member is called \"{name}\""));
        };
        match standing(self.followed.as_ref(), member) {
            Standing::Fenced { .. } => {}
            Standing::Eligible { .. } => return Err(format!("{name} is not refused")),
            Standing::NotReady { why } => return Err(format!("{name} cannot lead yet: {why}")),
            Standing::No => return Err(format!("{name} does not claim to lead")),
        }
        let epoch = match standing(None, member) {
            Standing::Eligible { epoch, .. } => epoch,
            Standing::Fenced { why } | Standing::NotReady { why } => {
                return Err(format!("{name} cannot be accepted: {why}"));
            }
            Standing::No => return Err(format!("{name} does not claim to lead")),
        };
        self.news(now, true, format!("an administrator accepted {name} on timeline {}", epoch.timeline));
        self.follow(now, name.to_owned(), epoch);
        self.conclude(now);
        Ok(format!("following {name} on timeline {}", epoch.timeline))
    }

    fn watched(&mut self, now: Instant, name: &str, address: &Address, report: MonitorReport) {
        let Some(index) = self.members.iter().position(|member| member.listed.name == name) else { return };
        let known = &mut self.members[index];
        let is_here = known.listed.address.as_ref() == Some(address);
        let vitals = report.vitals().filter(|_| is_here).unwrap_or_default();
        if known.observe(now, address, report) {
            let warning =
                matches!(known.monitor, Monitor::Suspect(_) | Monitor::Gone(_) | Monitor::RoleUnknown(_));
            let text = format!("{name}: {}", monitor_told(&known.monitor));
            self.news(now, warning, text);
        }
        if let Some(time) = vitals.round_trip {
            self.members[index].round_trips.note(time);
        }
        if let Some(location) = vitals.location {
            self.located(index, Told { location, at: now, source: LagSource::Monitor });
        }
    }

    fn polled(&mut self, now: Instant, url: &ApiUrl, result: Result<Answer, PollFailure>) {
        let Some(index) = self.endpoints.iter().position(|endpoint| endpoint.url == *url) else {
            return;
        };
        let before = self.endpoints[index].hear(now, result);
        let heard = self.endpoints[index].heard.clone();
        let about = self.about(url, heard.status());
        if heard.is_news_after(&before) {
            let who =
                about.map_or_else(|| url.to_string(), |member| self.members[member].listed.name.clone());
            let warning = matches!(heard, Heard::Failed { .. });
            self.news(now, warning, format!("{who}: {}", heard.told()));
        }
        let location = heard.status().and_then(Status::position);
        if let (Some(member), Some(location)) = (about, location) {
            self.located(member, Told { location, at: now, source: LagSource::RestApi });
        }
    }

    /// The member that an answer from this URL is about. Its own name counts first: a seed may be a balancer.
    fn about(&self, url: &ApiUrl, status: Option<&Status>) -> Option<usize> {
        let name = status.and_then(|status| status.name.as_deref());
        self.members
            .iter()
            .position(|member| name == Some(&member.listed.name))
            .or_else(|| self.members.iter().position(|member| member.listed.url.as_ref() == Some(url)))
    }

    fn listed(&mut self, now: Instant, url: &ApiUrl, result: Result<Answer, PollFailure>) {
        self.cluster.slot.done();
        self.cluster.asked = None;
        let listing = result
            .map_err(|failure| failure.to_string())
            .and_then(|answer| Listing::parse(&answer).map_err(|bad| bad.to_string()))
            .and_then(|listing| match foreign(self.scope(), listing.scope.as_deref()) {
                Some(scope) => Err(format!("belongs to another cluster, scope \"{scope}\"")),
                None => Ok(listing),
            });
        match listing {
            Ok(listing) => {
                self.cluster.failures = 0;
                self.cluster.heard = true;
                self.adopt(now, listing);
            }
            Err(why) => {
                if self.cluster.failures == 0 {
                    self.journal.note(now, true, format!("/cluster at {url}: {why}"));
                }
                self.cluster.failures = self.cluster.failures.saturating_add(1);
            }
        }
    }

    fn adopt(&mut self, now: Instant, listing: Listing) {
        self.is_paused = listing.is_paused;
        self.reschedule(now, listing.scheduled.clone());
        for member in &mut self.members {
            member.in_list = false;
        }
        for listed in listing.members {
            if let Some(member) = self.members.iter_mut().find(|member| member.listed.name == listed.name) {
                member.relist(now, listed);
            } else if self.members.len() < MEMBERS_MAX {
                self.news(now, false, format!("{}: joined", listed.name));
                self.members.push(Member::new(now, listed, self.settings.monitor));
            }
        }
        self.forget(now);
        self.members.sort_by(|a, b| a.listed.name.cmp(&b.listed.name));
        self.match_endpoints();
        self.locate_newcomers(now);
        self.note_restarts(now);
    }

    /// A member that `/cluster` has not named for a while is gone, unless writes go to it.
    fn forget(&mut self, now: Instant) {
        let leader = self.followed.as_ref().filter(|followed| followed.holding_on).map(|f| f.member.clone());
        for member in self.members.iter_mut().filter(|member| !member.in_list) {
            member.missing_since.get_or_insert(now);
        }
        // Time in which nobody could be asked does not count: behind an outage of the DCS members register one by one.
        let is_kept = |member: &Member| {
            let missing = member.missing_since.map(|since| now.saturating_duration_since(since));
            missing.is_none_or(|time| time < FORGET_AFTER) || leader.as_ref() == Some(&member.listed.name)
        };
        let (kept, gone) = std::mem::take(&mut self.members).into_iter().partition(is_kept);
        self.members = kept;
        for member in gone {
            self.journal.note(now, false, format!("{}: left the cluster", member.listed.name));
        }
    }

    /// Polls follow the members; seeds stay.
    fn match_endpoints(&mut self) {
        let wanted: Vec<ApiUrl> =
            self.members.iter().filter_map(|member| member.listed.url.clone()).collect();
        let asked = self.cluster.asked.map(|index| self.endpoints[index].url.clone());
        self.endpoints.retain(|endpoint| endpoint.seed || wanted.contains(&endpoint.url));
        for url in wanted {
            if !self.endpoints.iter().any(|endpoint| endpoint.url == url) {
                self.endpoints.push(Endpoint::new(url, false));
            }
        }
        self.cluster.asked =
            asked.and_then(|url| self.endpoints.iter().position(|endpoint| endpoint.url == url));
    }

    /// The last thing a member's REST API said, at its own URL or at a seed that answers for it.
    pub(crate) fn heard_of(&self, member: &Member) -> &Heard {
        let name = member.listed.name.as_str();
        let own = self.endpoints.iter().find(|endpoint| Some(&endpoint.url) == member.listed.url.as_ref());
        // Another member's answer at this URL (a reused address) says nothing about this one.
        let own = own.map(|endpoint| &endpoint.heard).filter(|heard| {
            let named = heard.status().and_then(|status| status.name.as_deref());
            named.is_none_or(|named| named == name || !self.members.iter().any(|m| m.listed.name == named))
        });
        if let Some(heard @ Heard::Said(_)) = own {
            return heard;
        }
        let elsewhere = self
            .endpoints
            .iter()
            .map(|endpoint| &endpoint.heard)
            .find(|heard| heard.status().is_some_and(|status| status.name.as_deref() == Some(name)));
        elsewhere.or(own).unwrap_or(&Heard::Nothing)
    }

    pub(crate) fn scope(&self) -> Option<&str> {
        self.settings.scope.as_deref().or(self.scope_seen.as_deref())
    }

    pub(crate) fn is_foreign_system(&self, system_identifier: Option<u64>) -> bool {
        let ours = self.followed.as_ref().map(|followed| followed.epoch.system_identifier);
        system_identifier.is_some_and(|theirs| ours.is_some_and(|ours| ours != theirs))
    }

    /// True while writes go somewhere.
    pub(crate) fn is_led(&self) -> bool {
        self.followed.as_ref().is_some_and(|followed| followed.holding_on)
    }

    pub(crate) fn sightings(&self) -> Vec<Sighting<'_>> {
        self.members
            .iter()
            .map(|member| Sighting {
                name: &member.listed.name,
                named: self.is_named(member),
                api: self.api_says(member),
                postgres: member.postgres_says(),
            })
            .collect()
    }

    fn api_says(&self, member: &Member) -> ApiSays {
        let heard = self.heard_of(member);
        let said = api_says(heard, self.scope());
        match said {
            ApiSays::Denies { role, state }
                if self.is_foreign_system(heard.status().and_then(|status| status.system_identifier)) =>
            {
                ApiSays::Denies { role: format!("{role} of another cluster"), state }
            }
            ApiSays::Denies { .. } | ApiSays::Unasked | ApiSays::Silent | ApiSays::Claims(_) => said,
        }
    }

    /// Judges, and publishes if anything changed.
    pub(crate) fn conclude(&mut self, now: Instant) {
        self.concluded_at = now;
        self.give_up_late_plan(now);
        self.end_restarts(now);
        let leader = self.decide(now);
        self.judge_lateness(now);
        let (planned, silent) = (self.planned(now), self.silent(now));
        let replicas = self.read_targets(now, &leader, planned.is_some());
        let is_standby_cluster =
            matches!(leader, Leadership::Leaderless { .. }) && standby_leader(&self.sightings()).is_some();
        let fallback = self.settings.fallback;
        let (generation, members) = (self.topology.generation + 1, Vec::new());
        let topology = Topology {
            generation,
            leader,
            replicas,
            fallback,
            silent,
            is_standby_cluster,
            failover: self.journal.count(),
            given_up: self.given_up,
            planned,
            members,
        };
        if !topology.says_the_same(&self.topology) {
            let members = self.views(now, &topology.leader);
            self.topology = Arc::new(Topology { members, ..topology });
        }
        self.check_invariants();
    }

    fn decide(&mut self, now: Instant) -> Leadership {
        if self.followed.is_none() && !self.started_up(now) {
            return Leadership::Leaderless {
                why: "all members are asked before the first leader is followed".to_owned(),
            };
        }
        self.know_followed(now);
        let sightings = self.sightings();
        let claimant = sightings
            .iter()
            .find(|member| match standing(self.followed.as_ref(), member) {
                Standing::Eligible { .. } => true,
                // A dead leader's key outlives it; only somebody else's claim is the start of something new.
                Standing::NotReady { .. } => self.followed.as_ref().is_none_or(|f| f.member != member.name),
                Standing::Fenced { .. } | Standing::No => false,
            })
            .map(|member| member.name.to_owned());
        match judge(self.followed.as_ref(), &sightings) {
            Verdict::Lead { index, epoch, degraded } => {
                let member = sightings[index].name.to_owned();
                self.lead(now, member, epoch, degraded)
            }
            Verdict::Hold { why } => {
                let why = self.hold(now, why);
                if let Some(claimant) = claimant {
                    self.journal.claimed(now, &claimant);
                }
                Leadership::Leaderless { why }
            }
        }
    }

    /// Finds whom we follow under the name that it has now, and notes whether it may come back without a claim.
    fn know_followed(&mut self, now: Instant) {
        let Some(followed) = &self.followed else { return };
        let known = self.members.iter().find(|member| member.listed.name == followed.member);
        let Some(known) = known else { return };
        let lately = !followed.holding_on
            && known.incarnation == self.followed_incarnation
            && self.lost_at.is_some_and(|at| now.saturating_duration_since(at) <= RETURN_MAX);
        let heir = self.members.iter().find(|member| self.is_renamed(known, member));
        let renamed =
            heir.map(|heir| (known.listed.name.clone(), heir.listed.name.clone(), heir.incarnation));
        if let Some((before, after, incarnation)) = renamed {
            self.news(now, false, format!("{before}: is called {after} now"));
            self.followed_incarnation = incarnation;
            if let Some(followed) = &mut self.followed {
                followed.member = after;
            }
        }
        if let Some(followed) = &mut self.followed {
            followed.lately = lately;
        }
    }

    /// The same server under a new name. `/cluster` lists both names until the old one's key has run out, but its Patroni
    /// knows its own; before Patroni 3.2, which does not tell it, the holder of the leader key counts.
    fn is_renamed(&self, old: &Member, new: &Member) -> bool {
        let same_server = old.listed.address.is_some() && old.listed.address == new.listed.address;
        let says_so = match self.heard_of(new).status().and_then(|status| status.name.as_deref()) {
            Some(name) => name == new.listed.name,
            None => !old.in_list || self.is_named(new),
        };
        new.listed.name != old.listed.name && same_server && new.in_list && says_so
    }

    /// The last `/cluster` answer names it the holder of the leader key.
    fn is_named(&self, member: &Member) -> bool {
        self.cluster.failures == 0 && member.in_list && member.listed.role == "leader"
    }

    fn lead(&mut self, now: Instant, member: String, epoch: Epoch, degraded: Option<String>) -> Leadership {
        let address = self
            .members
            .iter()
            .find(|known| known.listed.name == member)
            .and_then(|known| known.listed.address.clone());
        let Some(address) = address else {
            let why = self.hold(
                now,
                format!("{member} claims to lead, but /cluster tells no address of its PostgreSQL"),
            );
            return Leadership::Leaderless { why };
        };
        self.follow(now, member.clone(), epoch);
        Leadership::Led { member, address, epoch: Some(epoch), epoch_number: self.epoch_number, degraded }
    }

    /// Remembers whom writes go to. A new (member, timeline) is a new epoch number; one that comes back keeps it, unless
    /// its PostgreSQL was started anew.
    fn follow(&mut self, now: Instant, member: String, epoch: Epoch) {
        let before = self.followed.take();
        let known = self.members.iter().find(|known| known.listed.name == member);
        let incarnation = known.map_or(0, |known| known.incarnation);
        let same = before.as_ref().is_some_and(|before| before.member == member && before.epoch == epoch)
            && incarnation == self.followed_incarnation;
        self.followed_incarnation = incarnation;
        let led = before.as_ref().is_some_and(|before| before.holding_on);
        self.followed = Some(Followed { member: member.clone(), epoch, holding_on: true, lately: false });
        if same && led {
            return;
        }
        let timeline = epoch.timeline;
        if let Some(before) = before.filter(|before| before.holding_on) {
            let why = format!("{member} leads on timeline {timeline}");
            self.lose(now, &before.member, &why);
        }
        self.journal.claimed(now, &member);
        if !same {
            self.plan_is_done(now);
            self.epoch_number += 1;
            self.followed_at = now;
            let known = self.members.iter().find(|known| known.listed.name == member);
            let status = known.and_then(|known| self.heard_of(known).status());
            let scope = status.and_then(|status| status.scope.clone());
            self.yardstick.restart(known.and_then(|known| known.told));
            self.scope_seen = self.scope_seen.take().or(scope);
        }
        let again = if same { " again" } else { "" };
        self.news(now, false, format!("following {member} on timeline {timeline}{again}"));
        self.journal.followed(Succession { member, timeline, at: now });
    }

    /// Lets go of the leader, if there is one, and words why nobody leads.
    fn hold(&mut self, now: Instant, why: String) -> String {
        let unlisted = || {
            self.endpoints.iter().find(|endpoint| {
                endpoint.heard.status().is_some_and(|status| status.leads)
                    && self.about(&endpoint.url, endpoint.heard.status()).is_none()
            })
        };
        let why = match unlisted() {
            Some(endpoint) if self.members.is_empty() => {
                format!(
                    "{} claims to lead, but no /cluster answer tells where its PostgreSQL is",
                    endpoint.url
                )
            }
            Some(_) | None => why,
        };
        if let Some(followed) = self.followed.as_mut().filter(|followed| followed.holding_on) {
            followed.holding_on = false;
            self.lost_at = Some(now);
            let from = followed.member.clone();
            self.lose(now, &from, &why);
            self.news(now, true, format!("no leader: {why}"));
        } else {
            let told = matches!(&self.topology.leader, Leadership::Leaderless { why: told } if *told == why)
                || self.followed.as_ref().is_some_and(|followed| followed.is_old_story(&why));
            if !told {
                // Before the first leader it is only the order in which answers come.
                self.news(now, self.followed.is_some(), format!("no leader: {why}"));
            }
        }
        why
    }

    /// A failover begins.
    fn lose(&mut self, now: Instant, from: &str, why: &str) {
        let lived_at = self.members.iter().find(|member| member.listed.name == from).and_then(|m| m.lived_at);
        self.given_up = Some(GivenUp { epoch_number: self.epoch_number, lived_at });
        self.journal.lost(now, from, why, self.planned(now));
    }

    pub(crate) fn news(&mut self, now: Instant, warning: bool, text: String) {
        self.news_at = now;
        self.journal.note(now, warning, text);
    }

    /// What must hold between any two calls.
    fn check_invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        match &self.topology.leader {
            Leadership::Led { member, epoch, epoch_number, .. } => {
                let followed = self.followed.as_ref();
                assert!(
                    followed.is_some_and(|f| f.holding_on && f.member == *member && Some(f.epoch) == *epoch)
                );
                assert_eq!(*epoch_number, self.epoch_number);
                assert!(
                    self.topology
                        .replicas
                        .iter()
                        .all(|target| target.is_primary == (target.member == *member))
                );
            }
            Leadership::Leaderless { why } => {
                assert!(!why.is_empty() && !self.is_led());
                assert!(self.topology.replicas.iter().all(|target| !target.is_primary));
            }
        }
        assert!(self.members.len() <= MEMBERS_MAX);
        assert!(self.members.is_sorted_by(|a, b| a.listed.name < b.listed.name));
        assert!(
            self.settings.seeds.iter().all(|seed| self.endpoints.iter().any(|e| e.seed && e.url == *seed))
        );
    }
}

/// A leader that was given up and is back within this, on its timeline and without a restart, has had no successor: Patroni's
/// leader keys last at least 20 s, and are renewed when half of that is over at the latest.
const RETURN_MAX: Duration = Duration::from_secs(5);

/// How long `/cluster` may leave a member out before it is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(60);
