//! SWITCHOVER at the console of a weir: drives the real machine as the control thread does. In stories where nothing else
//! happens, no statement may fail.

use std::time::Duration;

use weir_discovery::{Answer, Step, Switchover};

use crate::world::{Event, World};

impl World {
    /// An operator asks for it. weir may refuse, as in maintenance.
    pub(crate) fn begin_switchover(&mut self, weir: usize) {
        let now = self.instant();
        let process = &mut self.weirs[weir];
        if process.switchover.is_some() || !process.is_up {
            return;
        }
        match process.discovery.begin_switchover(now, None, WAIT + BOUND) {
            Ok(plan) => {
                process.switchover = Some(Switchover::new(now, plan, WAIT, BOUND));
                self.follow_up(weir);
                self.switch_over(weir);
            }
            Err(why) => self.note(format!("w{weir}: no switchover: {why}")),
        }
    }

    /// The next step of the one under way.
    pub(crate) fn switch_over(&mut self, weir: usize) {
        let now = self.instant();
        let process = &mut self.weirs[weir];
        let Some(machine) = &mut process.switchover else { return };
        if let Some(reign) = process.discovery.reign() {
            machine.reigns(now, &reign);
        }
        match machine.step(now) {
            Step::Look => machine.unfinished(now, process.worker.unfinished(now).len()),
            Step::Ask { .. } => {
                process.asked_of = self.dcs.holder(self.agenda.now());
                self.dcs.switchover = self.dcs.sync.1.or_else(|| self.any_standby());
            }
            // Patroni answers when it is over, one way or the other; success is seen before.
            Step::Watch if self.dcs.switchover.is_none() && self.dcs.holder(self.agenda.now()).is_some() => {
                let is_done = self.dcs.holder(self.agenda.now()) != process.asked_of;
                let status = if is_done { 200 } else { 503 };
                machine.answered(now, Ok(Answer { status, body: b"It is over".to_vec() }));
            }
            Step::Watch => {}
            Step::Finish(outcome) => {
                process.switchover = None;
                process.discovery.end_switchover(now, &outcome.to_string());
                return self.follow_up(weir);
            }
        }
        self.agenda.after(LOOK, Event::Planned { weir });
    }

    pub(crate) fn any_standby(&self) -> Option<usize> {
        self.nodes.iter().position(|node| node.data.is_open() && !node.data.writes())
    }
}

/// `switchover_wait`, and what it takes at most afterwards.
const WAIT: Duration = Duration::from_secs(10);
const BOUND: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);
