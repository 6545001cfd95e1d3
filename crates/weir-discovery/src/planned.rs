//! Planned changes of the leader: while one is under way nobody starts a transaction on the leader, so that nothing is
//! cut off when it goes. Owns from when and until when at the latest; knows no transaction, and decides no succession.

use std::time::{Duration, Instant};

use crate::machine::Discovery;
use crate::patroni::{Listed, is_set};
use crate::topology::{Epoch, Leadership};
use crate::url::ApiUrl;

/// Whom writes go to, or went to last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reign {
    /// The member.
    pub member: String,
    /// Its cluster and timeline.
    pub epoch: Epoch,
    /// Grows with each (member, timeline) that is newly followed.
    pub number: u64,
    /// Writes go to it at this moment; false while nobody leads.
    pub lasts: bool,
}

/// What SWITCHOVER needs to know when it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchoverPlan {
    /// Who leads.
    pub from: Reign,
    /// Who shall; `None`: Patroni chooses.
    pub to: Option<String>,
    /// REST APIs that can be asked for it, the leader's first.
    pub urls: Vec<ApiUrl>,
}

/// Transactions are kept from starting on the leader, by somebody's command.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    why: String,
    /// Whatever becomes of whoever asked, it ends here.
    until: Instant,
}

impl Discovery {
    /// SWITCHOVER begins: from now on nobody is given a connection to the leader, until [`Discovery::end_switchover`], a
    /// new reign, or `bound` has passed.
    ///
    /// # Errors
    /// A sentence that says why Patroni would not do it, as far as can be known.
    pub fn begin_switchover(
        &mut self,
        now: Instant,
        to: Option<&str>,
        bound: Duration,
    ) -> Result<SwitchoverPlan, String> {
        let plan = self.plan_switchover(to)?;
        let heir = to.map(|to| format!(" to {to}")).unwrap_or_default();
        let why = format!("a switchover from {}{heir} is under way", plan.from.member);
        self.news(now, false, format!("SWITCHOVER: {why}, no transaction is started"));
        self.asked = Some(Asked { why, until: now + bound });
        self.conclude(now);
        Ok(plan)
    }

    /// Lets transactions start again, wherever writes go now; `outcome` is written down.
    pub fn end_switchover(&mut self, now: Instant, outcome: &str) {
        self.asked = None;
        self.news(now, false, format!("SWITCHOVER: {outcome}"));
        self.conclude(now);
    }

    /// Writes down how far a switchover has come.
    pub fn note_switchover(&mut self, now: Instant, progress: &str) {
        self.news(now, false, format!("SWITCHOVER: {progress}"));
    }

    /// The last one that was followed, if there was one.
    pub fn reign(&self) -> Option<Reign> {
        let followed = self.followed.as_ref()?;
        Some(Reign {
            member: followed.member.clone(),
            epoch: followed.epoch,
            number: self.epoch_number,
            lasts: followed.holding_on,
        })
    }

    fn plan_switchover(&self, to: Option<&str>) -> Result<SwitchoverPlan, String> {
        let from = self.reign().filter(|reign| reign.lasts).ok_or("nobody leads at the moment")?;
        if let Leadership::Led { degraded: Some(why), .. } = &self.topology().leader {
            return Err(format!("the state of the leader is not certain: {why}"));
        }
        match to {
            Some(to) if to == from.member => return Err(format!("{to} leads already")),
            Some(to) => {
                let member = self.members.iter().find(|member| member.listed.name == to);
                let member = member.ok_or_else(|| format!("no member is called \"{to}\""))?;
                if let Some(why) = unfit(&member.listed, member.in_list) {
                    return Err(format!("{to} cannot lead: {why}"));
                }
            }
            None if self.is_paused => {
                return Err("Patroni is paused, and then switches over to a named member only".to_owned());
            }
            None => {
                let fit = |member: &crate::member::Member| {
                    member.listed.name != from.member && unfit(&member.listed, member.in_list).is_none()
                };
                if !self.members.iter().any(fit) {
                    return Err("no other member could lead".to_owned());
                }
            }
        }
        let (own, others): (Vec<_>, Vec<_>) = self
            .members
            .iter()
            .filter_map(|member| Some((&member.listed.name, member.listed.url.clone()?)))
            .partition(|(name, _)| **name == from.member);
        let urls: Vec<ApiUrl> = own.into_iter().chain(others).map(|(_, url)| url).collect();
        if urls.is_empty() {
            return Err("/cluster tells no member's REST API".to_owned());
        }
        Ok(SwitchoverPlan { from, to: to.map(str::to_owned), urls })
    }

    /// Why nobody is given a connection to the leader although one is known; `None` if that is not so.
    pub(crate) fn planned(&self, now: Instant) -> Option<String> {
        self.asked.as_ref().filter(|asked| now < asked.until).map(|asked| asked.why.clone())
    }

    /// When [`Discovery::planned`] may change by itself.
    pub(crate) fn planned_changes(&self, now: Instant) -> Option<Instant> {
        self.asked.as_ref().map(|asked| asked.until).filter(|until| *until > now)
    }

    /// Somebody else is followed, or the same on another timeline: what was planned is over.
    pub(crate) fn plan_is_done(&mut self) {
        self.asked = None;
    }
}

/// Why Patroni would not take a member for the next leader, by what `/cluster` says of it.
fn unfit(listed: &Listed, in_list: bool) -> Option<String> {
    if !in_list {
        return Some("/cluster does not name it".to_owned());
    }
    if !matches!(listed.role.as_str(), "replica" | "sync_standby" | "quorum_standby") {
        return Some(format!("its role is \"{}\"", listed.role));
    }
    if !matches!(listed.state.as_str(), "running" | "streaming") {
        return Some(format!("its state is \"{}\"", listed.state));
    }
    is_set(&listed.tags, "nofailover").then(|| "it is tagged nofailover".to_owned())
}
