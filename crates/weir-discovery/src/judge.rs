//! Who gets the writes, given whom we follow and what each member's REST API and PostgreSQL say right now. One
//! total function without memory or clock, so that its truth table is its test.

use crate::topology::Epoch;

/// What one member's REST API last said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ApiSays {
    /// It was not asked yet.
    Unasked,
    /// The last request failed.
    Silent,
    /// `/primary` answered 503.
    Denies { role: String, state: String },
    /// `/primary` answered 200.
    Claims(Claim),
}

/// The body that came with a 200. The status code alone is the leader key's age, no word about PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Claim {
    pub role: String,
    /// Role is `primary` or `master`.
    pub is_primary: bool,
    pub state: String,
    pub timeline: Option<u32>,
    pub system_identifier: Option<u64>,
    /// Set if the answer comes from another scope.
    pub foreign_scope: Option<String>,
}

/// What one member's PostgreSQL says itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PostgresSays {
    /// No monitor runs, or it is not let in: alive or not, its role is unknown.
    Unwatched,
    /// Asked, no answer yet.
    Pending,
    /// `in_hot_standby` is off.
    Primary { timeline: Option<u32>, system_identifier: Option<u64> },
    /// `in_hot_standby` is on.
    Standby,
    /// The monitor connection ended just now; asking again.
    Suspect,
    /// It takes no connections.
    Gone(String),
}

/// One member as the judge sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sighting<'a> {
    pub name: &'a str,
    /// The last `/cluster` answer names it the holder of the leader key. Of two who claim to lead it has the better claim.
    pub named: bool,
    pub api: ApiSays,
    pub postgres: PostgresSays,
}

/// Whom we followed last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Followed {
    pub member: String,
    pub epoch: Epoch,
    /// False after a loss: then only a fresh claim brings the member back.
    pub holding_on: bool,
    /// It was lost just now, for less time than any failover takes, and its server was not started anew since.
    pub lately: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Send writes to `sightings[index]` under this epoch.
    Lead { index: usize, epoch: Epoch, degraded: Option<String> },
    /// Send writes nowhere.
    Hold { why: String },
}

/// One member's standing for leadership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// May be followed.
    Eligible { epoch: Epoch, degraded: Option<String> },
    /// Claims to lead and is never followed as it is.
    Fenced { why: String },
    /// Claims to lead, but its PostgreSQL is not there yet or not there any more.
    NotReady { why: String },
    /// Does not claim to lead.
    No,
}

/// Standing of one member. `followed` carries the fence: nothing of another cluster or an older timeline passes.
pub(crate) fn standing(followed: Option<&Followed>, member: &Sighting<'_>) -> Standing {
    let claim = match &member.api {
        ApiSays::Unasked | ApiSays::Silent | ApiSays::Denies { .. } => return Standing::No,
        ApiSays::Claims(claim) => claim,
    };
    if let Some(scope) = &claim.foreign_scope {
        return Standing::Fenced { why: format!("it belongs to another cluster, scope \"{scope}\"") };
    }
    let kept = followed.filter(|followed| followed.holding_on && followed.member == member.name);
    match &member.postgres {
        PostgresSays::Primary { timeline, system_identifier } => {
            confirmed(followed, claim, *timeline, *system_identifier)
        }
        PostgresSays::Standby => not_ready("its PostgreSQL is still in recovery"),
        // The leader keeps its place while a first look at it is under way, which is bounded; a new one waits for it.
        PostgresSays::Pending if kept.is_some() => {
            by_body(followed, kept, claim, Some("its monitor is being connected"))
        }
        PostgresSays::Pending => not_ready("its PostgreSQL has not answered yet"),
        PostgresSays::Gone(why) => not_ready(&format!("its PostgreSQL {why}")),
        // One ended connection is no proof. The leader keeps its place until the second look, a new one waits for it.
        PostgresSays::Suspect if kept.is_some() => {
            by_body(followed, kept, claim, Some("its monitor connection ended"))
        }
        PostgresSays::Suspect => not_ready("its monitor connection ended"),
        PostgresSays::Unwatched => by_body(followed, kept, claim, None),
    }
}

/// PostgreSQL itself says that it takes writes; Patroni's body only fills what the monitor could not read.
fn confirmed(
    followed: Option<&Followed>,
    claim: &Claim,
    timeline: Option<u32>,
    system_identifier: Option<u64>,
) -> Standing {
    let from_body = claim.timeline.filter(|_| claim.is_primary);
    if let (Some(postgres), Some(patroni)) = (system_identifier, claim.system_identifier)
        && postgres != patroni
    {
        return Standing::Fenced {
            why: format!(
                "its PostgreSQL belongs to another cluster ({postgres}) than its Patroni ({patroni})"
            ),
        };
    }
    match (timeline.or(from_body), system_identifier.or(claim.system_identifier)) {
        (Some(timeline), Some(system_identifier)) => {
            fenced(followed, Epoch { system_identifier, timeline }, None)
        }
        (None, _) => not_ready("its timeline is not known yet"),
        (_, None) => not_ready("its system identifier is not known yet"),
    }
}

/// Nobody could ask PostgreSQL, so Patroni's word has to be complete. The leader that we follow already (`kept`)
/// stays over a failed look of Patroni's own (`unknown`).
fn by_body(
    followed: Option<&Followed>,
    kept: Option<&Followed>,
    claim: &Claim,
    degraded: Option<&str>,
) -> Standing {
    if !claim.is_primary {
        return not_ready(&format!("its role is still \"{}\"", claim.role));
    }
    let kept = kept.map(|kept| kept.epoch);
    let degraded = match (claim.state.as_str(), kept) {
        ("running", _) => degraded,
        ("unknown", Some(_)) => Some("its Patroni cannot ask PostgreSQL"),
        (state, _) => return not_ready(&format!("its state is \"{state}\"")),
    };
    // What the answer leaves out has not changed as far as anybody knows.
    let timeline = claim.timeline.or(kept.map(|epoch| epoch.timeline));
    let system_identifier = claim.system_identifier.or(kept.map(|epoch| epoch.system_identifier));
    match (timeline, system_identifier) {
        (Some(timeline), Some(system_identifier)) => {
            fenced(followed, Epoch { system_identifier, timeline }, degraded)
        }
        (None, _) => not_ready("its timeline is not known yet"),
        (_, None) => not_ready("its system identifier is not known yet"),
    }
}

fn fenced(followed: Option<&Followed>, epoch: Epoch, degraded: Option<&str>) -> Standing {
    let Some(known) = followed.map(|followed| followed.epoch) else {
        return Standing::Eligible { epoch, degraded: degraded.map(str::to_owned) };
    };
    if epoch.system_identifier != known.system_identifier {
        return Standing::Fenced {
            why: format!(
                "its system identifier is {}, ours is {}",
                epoch.system_identifier, known.system_identifier
            ),
        };
    }
    if epoch.timeline < known.timeline {
        return Standing::Fenced {
            why: format!("it is on timeline {}, we followed {} already", epoch.timeline, known.timeline),
        };
    }
    Standing::Eligible { epoch, degraded: degraded.map(str::to_owned) }
}

fn not_ready(why: &str) -> Standing {
    Standing::NotReady { why: why.to_owned() }
}

/// Whom to send writes to. Never an older timeline, never another cluster, never one of two that tie, never by the
/// order of the list.
pub(crate) fn judge(followed: Option<&Followed>, members: &[Sighting<'_>]) -> Verdict {
    let standings: Vec<Standing> = members.iter().map(|member| standing(followed, member)).collect();
    let eligible: Vec<(usize, Epoch)> = standings
        .iter()
        .enumerate()
        .filter_map(|(index, standing)| match standing {
            Standing::Eligible { epoch, .. } => Some((index, *epoch)),
            Standing::Fenced { .. } | Standing::NotReady { .. } | Standing::No => None,
        })
        .collect();
    let Some(&(_, first)) = eligible.first() else {
        return keep_or_hold(followed, members, &standings);
    };
    if eligible.iter().any(|(_, epoch)| epoch.system_identifier != first.system_identifier) {
        return Verdict::Hold {
            why: format!("{} claim to lead different clusters", names(members, &eligible)),
        };
    }
    let newest = eligible.iter().map(|(_, epoch)| epoch.timeline).fold(0, u32::max);
    let top: Vec<(usize, Epoch)> =
        eligible.into_iter().filter(|(_, epoch)| epoch.timeline == newest).collect();
    break_tie(followed, members, &standings, &top)
}

/// `top` holds the claimants of the newest timeline, at least one.
fn break_tie(
    followed: Option<&Followed>,
    members: &[Sighting<'_>],
    standings: &[Standing],
    top: &[(usize, Epoch)],
) -> Verdict {
    let holders: Vec<&(usize, Epoch)> = top.iter().filter(|(index, _)| members[*index].named).collect();
    let (&(index, epoch), rivals) = match (top, holders.as_slice()) {
        ([only], _) => (only, None),
        (_, [holder]) => (*holder, Some(names(members, top))),
        _ => {
            return Verdict::Hold {
                why: format!("{} claim to lead on the same timeline", names(members, top)),
            };
        }
    };
    let name = members[index].name;
    if let Some(old) = still_writing(followed, members, epoch).filter(|old| *old != name) {
        let timeline = epoch.timeline;
        return Verdict::Hold {
            why: format!(
                "{name} claims to lead on timeline {timeline}, but the PostgreSQL of {old} still takes writes on it"
            ),
        };
    }
    let degraded = match (rivals, &standings[index]) {
        (Some(rivals), _) => {
            Some(format!("{rivals} claim to lead on the same timeline, and /cluster names {name}"))
        }
        (None, Standing::Eligible { degraded, .. }) => degraded.clone(),
        (None, Standing::Fenced { .. } | Standing::NotReady { .. } | Standing::No) => None,
    };
    Verdict::Lead { index, epoch, degraded }
}

/// The followed leader, if its PostgreSQL is known to write on the very epoch that somebody else claims. A
/// promotion always starts a new timeline, so two writers on one are a split brain, not a failover.
fn still_writing<'a>(
    followed: Option<&'a Followed>,
    members: &[Sighting<'_>],
    claimed: Epoch,
) -> Option<&'a str> {
    let followed = followed.filter(|followed| followed.epoch == claimed)?;
    let old = members.iter().find(|member| member.name == followed.member)?;
    match &old.postgres {
        PostgresSays::Primary { timeline, .. }
            if timeline.is_none_or(|timeline| timeline == claimed.timeline) =>
        {
            Some(&followed.member)
        }
        PostgresSays::Primary { .. }
        | PostgresSays::Unwatched
        | PostgresSays::Pending
        | PostgresSays::Standby
        | PostgresSays::Suspect
        | PostgresSays::Gone(_) => None,
    }
}

/// Nobody may be followed by a claim. A leader whose REST API is silent keeps its place while its PostgreSQL is not
/// known to be gone: a sick API must not cut healthy sessions.
fn keep_or_hold(followed: Option<&Followed>, members: &[Sighting<'_>], standings: &[Standing]) -> Verdict {
    let Some(leader) = followed.filter(|followed| followed.holding_on || is_back(followed, members)) else {
        return Verdict::Hold { why: nobody(followed, members, standings) };
    };
    let Some(index) = members.iter().position(|member| member.name == leader.member) else {
        return Verdict::Hold { why: format!("{} is no member of the cluster any more", leader.member) };
    };
    if let Some(why) = lost(leader, &members[index], &standings[index]) {
        return Verdict::Hold { why: leader.is_lost(&why) };
    }
    // Somebody else holds the leader key and is about to write: what the old leader still takes could be lost.
    match heir(followed, members, standings) {
        Some(why) => Verdict::Hold { why },
        None => Verdict::Lead {
            index,
            epoch: leader.epoch,
            degraded: Some("its REST API does not answer".to_owned()),
        },
    }
}

/// A leader that stood still for a moment while no REST API answers: PostgreSQL itself says that it is as it was, it was
/// away for less time than a failover takes, and nobody else writes.
fn is_back(leader: &Followed, members: &[Sighting<'_>]) -> bool {
    let as_it_was = PostgresSays::Primary {
        timeline: Some(leader.epoch.timeline),
        system_identifier: Some(leader.epoch.system_identifier),
    };
    leader.lately
        && members.iter().all(|member| match &member.postgres {
            PostgresSays::Primary { .. } => member.name == leader.member,
            PostgresSays::Unwatched
            | PostgresSays::Pending
            | PostgresSays::Standby
            | PostgresSays::Suspect
            | PostgresSays::Gone(_) => true,
        })
        && members.iter().any(|member| member.name == leader.member && member.postgres == as_it_was)
}

/// Why the leader that we follow leads no more; `None` while only its API is silent.
fn lost(leader: &Followed, member: &Sighting<'_>, standing: &Standing) -> Option<String> {
    match (&member.api, standing) {
        (_, Standing::Fenced { why } | Standing::NotReady { why }) => return Some(why.clone()),
        (ApiSays::Denies { role, state }, _) => {
            return Some(format!(
                "its Patroni says that it does not lead (role \"{role}\", state \"{state}\")"
            ));
        }
        (ApiSays::Unasked | ApiSays::Silent | ApiSays::Claims(_), _) => {}
    }
    match &member.postgres {
        PostgresSays::Primary { timeline, system_identifier } => {
            let same = timeline.is_none_or(|timeline| timeline == leader.epoch.timeline)
                && system_identifier.is_none_or(|system| system == leader.epoch.system_identifier);
            (!same)
                .then(|| "its PostgreSQL came back under another epoch and its Patroni is silent".to_owned())
        }
        PostgresSays::Unwatched | PostgresSays::Pending | PostgresSays::Suspect => None,
        PostgresSays::Standby => Some("its PostgreSQL is in recovery".to_owned()),
        PostgresSays::Gone(why) => Some(format!("its PostgreSQL {why}")),
    }
}

/// A member, other than the leader that we follow or lost, that claims to lead and whose PostgreSQL is not there yet.
fn heir(followed: Option<&Followed>, members: &[Sighting<'_>], standings: &[Standing]) -> Option<String> {
    let is_new = |member: &Sighting<'_>| followed.is_none_or(|followed| followed.member != member.name);
    members.iter().zip(standings).filter(|(member, _)| is_new(member)).find_map(|(member, standing)| {
        match standing {
            Standing::NotReady { why } => Some(format!("{} is to lead, but {why}", member.name)),
            Standing::Fenced { .. } | Standing::Eligible { .. } | Standing::No => None,
        }
    })
}

/// Why nobody is followed, most telling reason first.
fn nobody(followed: Option<&Followed>, members: &[Sighting<'_>], standings: &[Standing]) -> String {
    let refused = members.iter().zip(standings).find_map(|(member, standing)| match standing {
        Standing::Fenced { why } => Some(format!("{} claims to lead and is refused: {why}", member.name)),
        Standing::NotReady { .. } | Standing::Eligible { .. } | Standing::No => None,
    });
    heir(followed, members, standings)
        .or(refused)
        .or_else(|| standby_leader(members).map(|name| format!("a standby cluster, led by {name}")))
        .or_else(|| still_lost(followed?, members, standings))
        .unwrap_or_else(|| "no member claims to lead".to_owned())
}

/// Who leads a standby cluster, which follows another cluster and has nobody who takes writes.
pub(crate) fn standby_leader<'a>(members: &[Sighting<'a>]) -> Option<&'a str> {
    let leads = |member: &&Sighting<'a>| matches!(&member.api, ApiSays::Denies { role, state: _ } if role == "standby_leader");
    members.iter().find(leads).map(|member| member.name)
}

/// What keeps the leader that was lost from coming back.
fn still_lost(leader: &Followed, members: &[Sighting<'_>], standings: &[Standing]) -> Option<String> {
    let index = members.iter().position(|member| member.name == leader.member)?;
    let why = lost(leader, &members[index], &standings[index])
        .unwrap_or_else(|| "its REST API does not answer".to_owned());
    Some(leader.is_lost(&why))
}

impl Followed {
    fn is_lost(&self, why: &str) -> String {
        format!("{} is lost: {why}", self.member)
    }

    /// True if `why` tells nothing but how this leader does, which the log hears anyway.
    pub(crate) fn is_old_story(&self, why: &str) -> bool {
        why.strip_prefix(self.member.as_str()).is_some_and(|rest| rest.starts_with(" is lost: "))
    }
}

fn names(members: &[Sighting<'_>], among: &[(usize, Epoch)]) -> String {
    let names: Vec<&str> = among.iter().map(|(index, _)| members[*index].name).collect();
    names.join(" and ")
}

#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;
