//! Applications in the world: when they connect, ask, cancel, and leave; and the law that nobody is cut off.

use std::time::Duration;

use weir_protocol::frontend;

use crate::application::Next;
use crate::laws::Law;
use crate::requests::Request;
use crate::wire::{Party, Segment, WireId};
use crate::world::{Event, World};

impl World {
    /// An application's turn: it connects if it is not, asks if it is not waiting.
    pub(crate) fn act(&mut self, client: usize) {
        match self.clients[client].wire {
            None if self.is_draining => {}
            None => self.connect(client),
            Some(wire) => {
                if let Some(bytes) = self.clients[client].next_of_copy() {
                    self.transmit_in_pieces(wire, 0, &bytes);
                    if self.clients[client].copy.is_some() {
                        return self.think(client);
                    }
                }
                let application = &self.clients[client];
                let is_done = self.is_calm && application.status == b'I';
                if is_done || !application.waits_for.is_empty() {
                    return;
                }
                let is_calm = self.is_calm;
                let bytes = self.clients[client].next_requests(&mut self.ledger, is_calm);
                self.transmit_in_pieces(wire, 0, &bytes);
                if !is_calm && self.dice.once_in(25) {
                    let (after, who) = (self.dice.millis(0, 400), self.clients[client].who);
                    self.agenda.after(after, Event::Cancel { client, who });
                }
            }
        }
    }

    fn connect(&mut self, client: usize) {
        let weir = self.dice.index(self.weirs.len());
        let wire =
            self.network.open(Party::Client(client), Party::Front(weir, weir_pool::ClientId(u32::MAX)));
        self.last_who += 1;
        let application = &mut self.clients[client];
        (application.wire, application.weir) = (Some(wire), weir);
        let hello = application.hello(self.last_who);
        self.transmit(wire, 0, Segment::Syn);
        self.transmit(wire, 0, Segment::Bytes(hello));
    }

    /// Impatience: what this connection waits for is to be cancelled, by a connection of its own.
    pub(crate) fn cancel(&mut self, client: usize, who: u32) {
        let application = &mut self.clients[client];
        let Some((pid, secret)) = &application.key else { return };
        if application.who != who || application.wire.is_none() || application.waits_for.is_empty() {
            return;
        }
        application.has_canceled = true;
        let mut bytes = Vec::new();
        frontend::cancel_request(*pid, secret, &mut bytes);
        let front = Party::Front(application.weir, weir_pool::ClientId(u32::MAX));
        let wire = self.network.open(Party::Client(client), front);
        self.transmit(wire, 0, Segment::Syn);
        self.transmit(wire, 0, Segment::Bytes(bytes));
    }

    pub(crate) fn client_hears(&mut self, wire: WireId, client: usize, segment: Segment) {
        if self.clients[client].wire != Some(wire) {
            return;
        }
        match segment {
            Segment::Bytes(bytes) => {
                let next = self.clients[client].receive(&bytes, &mut self.ledger);
                if let Some(failure) = self.clients[client].last_failure.take() {
                    self.note(format!("c{client}: {failure}"));
                }
                match next {
                    Next::Nothing => {}
                    Next::Think => self.think(client),
                    Next::Gone => self.gone(client, true),
                }
            }
            Segment::Fin | Segment::Reset | Segment::Refused => self.gone(client, false),
            Segment::SynAck | Segment::Syn => {}
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
        let application = &mut self.clients[client];
        let was_in = application.waits_for.front() != Some(&Request::Login);
        // Whoever keeps a server connection goes with it, and hears why.
        let may = self.is_draining || application.is_forced || application.is_tied() && is_told;
        let was_tied = application.is_tied();
        let was_idle = application.lost(&mut self.ledger);
        application.failures += u32::from(!was_tied);
        // Whoever is at work is cut off without a word only where half a message had reached it.
        let is_refused = was_idle || is_told && was_in;
        Law::NobodyCutOff.holds(may || !is_refused, || {
            let application = &self.clients[client];
            format!("c{client} was {}: {application:?}", if was_idle { "idle" } else { "at work" })
        });
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
