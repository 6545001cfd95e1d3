//! Which addresses a name no longer has. Most names have all of their addresses in each answer, and one that is missing has
//! left: a failover by DNS. Others deal their addresses out, a few with each answer: there a missing one comes back soon,
//! and connections to it are as good as before. Knows no clock; counts answers.

use std::net::IpAddr;

/// The addresses of one name that were missing from its last answers.
#[derive(Debug, Default)]
pub(super) struct Absences {
    /// Missing for longest first.
    list: Vec<Absence>,
    /// Addresses that came back after they had left, each as the answer's number.
    returns: Vec<u64>,
    answers: u64,
}

#[derive(Debug)]
struct Absence {
    address: IpAddr,
    /// The first answer without it.
    since: u64,
    has_left: bool,
}

impl Absences {
    /// Takes the next answer in, and tells which addresses are to be taken for gone because of it.
    pub(super) fn note(&mut self, before: &[IpAddr], fresh: &[IpAddr]) -> Vec<IpAddr> {
        self.answers += 1;
        let now = self.answers;
        let is_back = |absence: &&Absence| fresh.contains(&absence.address);
        if self.list.iter().any(|absence| is_back(&absence)) {
            self.returns.push(now);
        }
        self.returns.retain(|at| now - at < REMEMBERED_FOR);
        let is_old = |absence: &Absence| absence.has_left && now - absence.since >= REMEMBERED_FOR;
        self.list.retain(|absence| !is_back(&absence) && !is_old(absence));
        for &address in before.iter().filter(|address| !fresh.contains(address)) {
            self.list.push(Absence { address, since: now, has_left: false });
        }
        let too_many = self.list.len().saturating_sub(ABSENT_MAX);
        let patience = if self.returns.len() < RETURNS_OF_CHANCE { 0 } else { PATIENCE };
        let mut gone = Vec::new();
        for (at, absence) in self.list.iter_mut().enumerate() {
            if !absence.has_left && (now - absence.since >= patience || at < too_many) {
                absence.has_left = true;
                gone.push(absence.address);
            }
        }
        self.list.drain(..too_many);
        gone
    }
}

/// Answers for which it is remembered who left and who came back: ten minutes with the usual `dns_max_ttl`.
const REMEMBERED_FOR: u64 = 40;

/// So many answers with somebody who is back make a name one that deals its addresses out; one is a failover that was
/// undone.
const RETURNS_OF_CHANCE: usize = 2;

/// Addresses of such a name have left when so many further answers come without them.
const PATIENCE: u64 = 20;

/// Absent addresses that are kept in mind.
const ABSENT_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(addresses: &[u8]) -> Vec<IpAddr> {
        addresses.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect()
    }

    /// Feeds answers in; returns, for each, who was taken for gone.
    fn feed(absences: &mut Absences, before: &mut Vec<IpAddr>, answers: &[&[u8]]) -> Vec<Vec<IpAddr>> {
        let step = |answer: &&[u8]| {
            let fresh = ips(answer);
            let gone = absences.note(before, &fresh);
            *before = fresh;
            gone
        };
        answers.iter().map(step).collect()
    }

    #[test]
    fn a_failover_counts_at_once_and_so_does_its_undoing() {
        let gone = feed(&mut Absences::default(), &mut Vec::new(), &[&[1], &[1], &[2], &[2], &[1], &[1]]);
        assert_eq!(gone, [ips(&[]), ips(&[]), ips(&[1]), ips(&[]), ips(&[2]), ips(&[])]);
        let gone = feed(&mut Absences::default(), &mut Vec::new(), &[&[1, 2, 3], &[1, 3], &[1, 2, 3]]);
        assert_eq!(gone, [ips(&[]), ips(&[2]), ips(&[])]);
    }

    #[test]
    fn addresses_that_are_dealt_out_in_turn_do_not_leave() {
        let (mut absences, mut before) = (Absences::default(), Vec::new());
        let (two, three): (&[&[u8]], &[&[u8]]) = (&[&[1], &[2]], &[&[1], &[2], &[3]]);
        feed(&mut absences, &mut before, &three.repeat(3));
        let gone = feed(&mut absences, &mut before, &three.repeat(50));
        assert!(gone.iter().all(Vec::is_empty), "{gone:?}");
        // The third one really goes.
        let gone: Vec<_> = feed(&mut absences, &mut before, &two.repeat(20)).into_iter().flatten().collect();
        assert_eq!(gone, ips(&[3]));
        // From now on there is one, and after a while that is nothing special.
        feed(&mut absences, &mut before, &[&[1][..]; 60]);
        assert_eq!(feed(&mut absences, &mut before, &[&[4]]), [ips(&[1])]);
    }

    #[test]
    fn memory_is_bounded() {
        let (mut absences, mut before) = (Absences::default(), Vec::new());
        let two: &[&[u8]] = &[&[1], &[2]];
        feed(&mut absences, &mut before, &two.repeat(9));
        let all: Vec<u8> = (0..=255).collect();
        let mut gone: Vec<IpAddr> =
            all.chunks(8).flat_map(|few| feed(&mut absences, &mut before, &[few])).flatten().collect();
        assert!(absences.list.len() <= ABSENT_MAX && absences.returns.len() <= 40);
        gone.extend(feed(&mut absences, &mut before, &[&[1][..]; 70]).into_iter().flatten());
        gone.sort_unstable();
        gone.dedup();
        assert_eq!(gone.len(), 256, "each of them has left");
    }
}
