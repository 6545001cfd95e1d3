//! Applications in the world: when they connect, ask, and leave; and the law that nobody is cut off.

use std::time::Duration;

use crate::application::Next;
use crate::weir::WRITER;
use crate::wire::{Party, Segment, WireId};
use crate::world::{Event, World};

impl World {
    /// An application's turn: it connects if it is not, asks if it is not waiting.
    pub(crate) fn act(&mut self, client: usize) {
        match self.clients[client].wire {
            None if self.is_draining => {}
            None => self.connect(client),
            Some(wire) => {
                if !self.clients[client].waits_for.is_empty() {
                    return;
                }
                let is_calm = self.is_calm;
                let bytes = self.clients[client].next_requests(&mut self.ledger, is_calm);
                self.transmit_in_pieces(wire, 0, &bytes);
            }
        }
    }

    fn connect(&mut self, client: usize) {
        let weir = self.dice.index(self.weirs.len());
        let wire =
            self.network.open(Party::Client(client), Party::Front(weir, weir_pool::ClientId(u32::MAX)));
        let application = &mut self.clients[client];
        (application.wire, application.weir) = (Some(wire), weir);
        let user = if application.is_reader { "reader" } else { WRITER };
        let hello = application.hello(user);
        self.transmit(wire, 0, Segment::Syn);
        self.transmit(wire, 0, Segment::Bytes(hello));
    }

    pub(crate) fn client_hears(&mut self, wire: WireId, client: usize, segment: Segment) {
        if self.clients[client].wire != Some(wire) {
            return;
        }
        match segment {
            Segment::Bytes(bytes) => match self.clients[client].receive(&bytes, &mut self.ledger) {
                Next::Nothing => {}
                Next::Think => self.think(client),
                Next::Gone => self.gone(client, true),
            },
            Segment::Fin | Segment::Reset => self.gone(client, false),
            Segment::SynAck | Segment::Syn | Segment::Refused => {}
        }
    }

    fn think(&mut self, client: usize) {
        let time = match self.dice.below(10) {
            0 => self.dice.millis(500, 3_000),
            1..4 => self.dice.millis(20, 200),
            _ => self.dice.millis(0, 10),
        };
        self.agenda.after(time, Event::Act { client });
    }

    /// weir has ended the connection.
    fn gone(&mut self, client: usize, is_told: bool) {
        if let Some(wire) = self.clients[client].wire {
            self.network.close(wire, 0);
            self.transmit(wire, 0, Segment::Fin);
        }
        let was_idle = self.clients[client].lost(&mut self.ledger);
        let may = self.is_draining || self.plan.session_pooling;
        assert!(may || !was_idle, "c{client}: weir cut an idle client off");
        self.note(format!("c{client}: cut off{}", if is_told { ", and told why" } else { "" }));
        self.cut_off += 1;
        let time = self.dice.millis(10, 300);
        self.agenda.after(time, Event::Act { client });
    }

    /// The application dies.
    pub(crate) fn vanish_client(&mut self, client: usize) {
        let Some(wire) = self.clients[client].wire else { return };
        self.network.close(wire, 0);
        let how = if self.dice.once_in(2) { Segment::Fin } else { Segment::Reset };
        self.transmit(wire, 0, how);
        self.clients[client].lost(&mut self.ledger);
        self.agenda.after(Duration::from_millis(100), Event::Act { client });
    }
}
