//! Segments on their way: sent, delayed, held up by a cut, and given to whoever holds the other end.

use std::hash::Hash;
use std::time::Duration;

use crate::wire::{Arrival, End, Party, Segment, WireId};
use crate::world::{Event, World};

impl World {
    pub(crate) fn transmit(&mut self, wire: WireId, from: End, segment: Segment) {
        let now = self.agenda.now();
        if let Some(at) = self.network.send(wire, from, segment, now) {
            self.agenda.at(at, Event::Segment(wire, from));
        }
    }

    /// Bytes arrive as the network likes.
    pub(crate) fn transmit_in_pieces(&mut self, wire: WireId, from: End, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let cut = if self.dice.once_in(20) { 1 + self.dice.index(bytes.len()) } else { bytes.len() };
            let (piece, rest) = bytes.split_at(cut);
            self.transmit(wire, from, Segment::Bytes(piece.to_vec()));
            bytes = rest;
        }
    }

    pub(crate) fn segment(&mut self, wire: WireId, from: End) {
        if let Some((sender, receiver)) = self.network.parties(wire, from)
            && self.network.is_cut(sender.host(), receiver.host())
        {
            return self.agenda.after(RETRANSMIT, Event::Segment(wire, from));
        }
        let Some(Arrival { segment, to, is_open }) = self.network.arrive(wire, from) else { return };
        (wire, from, &segment).hash(&mut self.history);
        if !is_open {
            // Whoever speaks to nobody is told so.
            if matches!(segment, Segment::Bytes(_) | Segment::SynAck) {
                self.transmit(wire, 1 - from, Segment::Reset);
            }
            return;
        }
        match to {
            Party::Backend(node, None) if segment == Segment::Syn => self.listen(node, wire),
            Party::Backend(_, None) => {}
            Party::Backend(node, Some(pid)) => self.backend_hears(node, pid, segment),
            Party::Back(weir, conn) => self.back_hears(weir, conn, segment),
            Party::Front(weir, client) => {
                let client = (client.0 != u32::MAX).then_some(client);
                self.front_hears(wire, weir, client, segment);
            }
            Party::Client(client) => self.client_hears(wire, client, segment),
        }
    }
}

/// What a cut holds up is tried again.
const RETRANSMIT: Duration = Duration::from_millis(100);
