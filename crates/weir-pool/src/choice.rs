//! Which of several members serves next: of those that may, by their weights, and by how busy they are or in turn. Knows no
//! limit and no client.

use std::time::Instant;

use crate::dice::index_below;
use crate::members::{Member, Members};
use crate::{Balance, Dice, MemberId, ServerId, Target};

/// What a client is given, and what it should have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pick {
    pub(crate) server: ServerId,
    /// The member whose turn it was, if it had nothing to give.
    pub(crate) missed: Option<Target>,
}

/// How to choose an idle connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) balance: Balance,
    /// The connection that has rested longest, not the one used last.
    pub(crate) oldest: bool,
    /// Not of this member.
    pub(crate) not: Option<MemberId>,
}

impl Members {
    /// An idle connection of the member that is chosen; if that one has none, of the least busy member that has one: nobody
    /// waits while a connection is idle.
    pub(crate) fn pick_idle(&mut self, wish: Wish, dice: &mut (impl Dice + ?Sized)) -> Option<Pick> {
        let Wish { balance, oldest, not } = wish;
        let pick = |member: &Member| if oldest { member.idle.front() } else { member.idle.back() }.copied();
        let chosen = self.choose(balance, not, dice)?;
        let chosen = self.list.get(chosen)?;
        if let Some(server) = pick(chosen) {
            return Some(Pick { server, missed: None });
        }
        let with_idle =
            self.list.iter().filter(|member| !member.idle.is_empty() && Some(member.target.member) != not);
        let best =
            with_idle.reduce(|best, other| if other.is_less_busy_than(best) { other } else { best })?;
        Some(Pick { server: pick(best)?, missed: Some(chosen.target) })
    }

    /// The place of the member that serves next. One of no weight is chosen only where no other is.
    fn choose(
        &mut self,
        balance: Balance,
        not: Option<MemberId>,
        dice: &mut (impl Dice + ?Sized),
    ) -> Option<usize> {
        if let [only] = &self.list[..] {
            return (Some(only.target.member) != not).then_some(0);
        }
        let total = self.total_weight(not);
        match balance {
            Balance::InTurn => self.next_in_turn(not),
            Balance::FewerBusy => {
                let one = self.draw(total, not, None, dice)?;
                let other = self.draw(total, not, Some(one), dice);
                let (first, second) = (self.list.get(one)?, other.and_then(|other| self.list.get(other)));
                let second_is_better = second.is_some_and(|second| second.is_less_busy_than(first));
                Some(other.filter(|_| second_is_better).unwrap_or(one))
            }
        }
    }

    /// Sum of the weights of those that may be chosen; 0: only members of no weight may.
    fn total_weight(&self, not: Option<MemberId>) -> u64 {
        let may = |member: &&Member| Some(member.target.member) != not;
        self.list.iter().filter(may).map(|member| u64::from(member.weight)).sum()
    }

    /// One of those that may be chosen, but for `skipped`, with a chance in proportion to its weight.
    fn draw(
        &self,
        total: u64,
        not: Option<MemberId>,
        skipped: Option<usize>,
        dice: &mut (impl Dice + ?Sized),
    ) -> Option<usize> {
        let weight = |member: &Member| if total == 0 { 1 } else { u64::from(member.weight) };
        let may = |(at, member): &(usize, &Member)| {
            Some(member.target.member) != not && Some(*at) != skipped && weight(member) > 0
        };
        let among: u64 = self.list.iter().enumerate().filter(may).map(|(_, member)| weight(member)).sum();
        if among == 0 {
            return None;
        }
        let mut drawn = dice.below(among).min(among - 1);
        for (at, member) in self.list.iter().enumerate().filter(may) {
            match drawn.checked_sub(weight(member)) {
                Some(rest) => drawn = rest,
                None => return Some(at),
            }
        }
        None
    }

    /// Smooth weighted round-robin: everybody gains its weight, and who has most pays for all.
    fn next_in_turn(&mut self, not: Option<MemberId>) -> Option<usize> {
        let total = self.total_weight(not);
        let weight = |member: &Member| if total == 0 { 1 } else { i64::from(member.weight) };
        let mut best: Option<(usize, i64)> = None;
        let mut paid = 0;
        for (at, member) in self.list.iter_mut().enumerate() {
            let gain = weight(member);
            if Some(member.target.member) == not || gain == 0 {
                continue;
            }
            member.credit += gain;
            paid += gain;
            if best.is_none_or(|(_, most)| member.credit > most) {
                best = Some((at, member.credit));
            }
        }
        let (at, _) = best?;
        self.list.get_mut(at)?.credit -= paid;
        Some(at)
    }

    /// Where to dial, but for the targets that `not`: fewest connections for its weight first, ties by chance; those that
    /// have not let the pool's user in lately come behind all others. `None` if all must be left alone for now.
    pub(crate) fn lightest(
        &self,
        now: Instant,
        not: impl Fn(Target) -> bool,
        dice: &mut (impl Dice + ?Sized),
    ) -> Option<Target> {
        let is_wanted = |member: &&Member| !not(member.target);
        let others = self.list.iter().filter(is_wanted).any(|member| member.is_promising(now));
        let may = |member: &&Member| {
            is_wanted(member) && if others { member.is_promising(now) } else { member.may_dial(now) }
        };
        let lighter = |best, other| if Member::is_lighter(other, best) { other } else { best };
        let best = self.list.iter().filter(may).reduce(lighter)?;
        let fits = |member: &&Member| may(member) && !best.is_lighter(member);
        let ties = self.list.iter().filter(fits).count();
        let drawn = if ties < 2 { 0 } else { index_below(dice, ties) };
        self.list.iter().filter(fits).nth(drawn).map(|member| member.target)
    }

    /// The member with most connections for its weight.
    pub(crate) fn heaviest(&self) -> Option<&Member> {
        self.list.iter().reduce(|best, other| if other.is_heavier(best) { other } else { best })
    }

    /// The member that one connection should leave for another; `None` if the spread is as the weights say.
    pub(crate) fn uneven(&self, now: Instant) -> Option<Target> {
        let from = self.heaviest()?;
        let dialable = self.list.iter().filter(|member| member.is_promising(now));
        let to = dialable.reduce(|best, other| if other.is_lighter(best) { other } else { best })?;
        (to.target != from.target && to.has_room_beside(from)).then_some(from.target)
    }

    /// The member has fewer connections than its weight gives it a right to.
    pub(crate) fn is_short(&self, target: Target, now: Instant) -> bool {
        let Some(member) = self.list.iter().find(|member| member.target == target) else { return false };
        let connections: u64 = self.list.iter().map(|member| member.load() as u64).sum();
        let (weight, total) = match self.total_weight(None) {
            0 => (1, self.list.len() as u64),
            total => (u64::from(member.weight), total),
        };
        let is_below = (member.load() as u64) * total < connections * weight;
        member.dialing == 0 && member.is_promising(now) && is_below
    }
}

impl Member {
    fn is_less_busy_than(&self, other: &Self) -> bool {
        self.is_better(u64::from(self.busy), other, u64::from(other.busy))
    }

    /// With one more connection it would have fewer for its weight than the other with one more.
    fn is_lighter(&self, other: &Self) -> bool {
        self.is_better(self.load() as u64 + 1, other, other.load() as u64 + 1)
    }

    /// It has more connections for its weight; one of no weight that has any, most of all.
    fn is_heavier(&self, other: &Self) -> bool {
        let (own, others) = (self.load() as u64, other.load() as u64);
        match (self.weight, other.weight) {
            (0, 0) => own > others,
            (0, _) => own > 0,
            (_, 0) => others == 0 && own > 0,
            (own_weight, weight) => own * u64::from(weight) > others * u64::from(own_weight),
        }
    }

    /// A connection more here would be fewer for the weight than those that `from` has now.
    fn has_room_beside(&self, from: &Self) -> bool {
        let (own, others) = (self.load() as u64 + 1, from.load() as u64);
        match (self.weight, from.weight) {
            (0, 0) => own < others,
            (0, _) => false,
            (_, 0) => others > 0,
            (weight, from_weight) => own * u64::from(from_weight) < others * u64::from(weight),
        }
    }

    /// Fewer for its weight. A member of no weight comes behind all that have some.
    fn is_better(&self, own: u64, other: &Self, others: u64) -> bool {
        match (self.weight, other.weight) {
            (0, 0) => own < others,
            (0, _) => false,
            (_, 0) => true,
            (weight, other_weight) => own * u64::from(other_weight) < others * u64::from(weight),
        }
    }
}
