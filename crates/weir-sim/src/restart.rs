//! A weir dies, and another one is started in its place: nothing of what it knew is left, nor any connection. Its clients
//! come back by themselves.

use std::time::Duration;

use crate::process::Process;
use crate::wire::{End, Host, Segment, WireId};
use crate::world::{Event, Place, World};

impl World {
    /// The kernel ends its connections.
    pub(crate) fn kill_weir(&mut self, weir: usize) {
        if !std::mem::replace(&mut self.weirs[weir].is_up, false) {
            return;
        }
        let mut wires: Vec<(WireId, End)> = self.weirs[weir].wires.drain().map(|(_, wire)| wire).collect();
        wires.sort_unstable();
        for (wire, end) in wires {
            self.network.close(wire, end);
            let how = if self.dice.once_in(2) { Segment::Fin } else { Segment::Reset };
            self.transmit(wire, end, how);
        }
        // Nor is anybody left to carry out what an operator wanted of it.
        if let Some(waiting) = self.frozen.get_mut(&Place::Host(Host::Weir(weir))) {
            waiting.retain(|event| !matches!(event, Event::Operator { .. }));
        }
        for node in &mut self.nodes {
            node.monitors.remove(&weir);
        }
        for client in self.clients.iter_mut().filter(|client| client.weir == weir) {
            client.is_forced = true;
        }
    }

    /// A new process; answers to the last one's questions are nothing to it.
    pub(crate) fn start_weir(&mut self, weir: usize) {
        if self.weirs[weir].is_up {
            return;
        }
        let mut process = Process::new(&self.plan, self.instant(), self.dice.fork());
        let last = &self.weirs[weir];
        (process.last_question, process.stamp) = (last.last_question, last.stamp + 1);
        process.calendar = last.calendar;
        let stamp = process.stamp;
        self.weirs[weir] = process;
        self.note(format!("w{weir}: starts"));
        self.agenda.after(Duration::ZERO, Event::Due { weir, stamp });
    }
}
