//! Bytes from a server connection that are forwarded in one piece, less what is dropped or kept back. Owns which stretch
//! of the input has not reached the client yet; refuses to know what messages mean.

use weir_protocol::frame::Header;

use crate::server::Server;
use crate::wires::Wires;

/// A stretch of the input that is forwarded in one piece.
pub(crate) struct Run<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) start: usize,
    pub(crate) at: usize,
}

impl<'a> Run<'a> {
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// The rest of a message whose beginning came earlier.
    pub(crate) fn pass(&mut self, server: &mut Server) {
        let relayed = server.relaying.min(self.bytes.len());
        server.relaying -= relayed;
        self.at += relayed;
        let dropped = server.dropping.min(self.bytes.len() - self.at);
        server.dropping -= dropped;
        self.at += dropped;
        if relayed == 0 {
            self.start = self.at;
        }
    }

    /// What has not been handed to the client never will be.
    pub(crate) fn withdraw(&mut self) {
        self.start = self.at;
    }

    pub(crate) fn keep(&mut self, header: Header, server: &mut Server) {
        let here = header.total.min(self.rest().len());
        self.at += here;
        server.relaying = header.total - here;
    }

    pub(crate) fn skip<W: Wires>(&mut self, header: Header, server: &mut Server, wires: &mut W) {
        self.flush(server, wires);
        let here = header.total.min(self.rest().len());
        self.at += here;
        self.start = self.at;
        server.dropping = header.total - here;
    }

    /// Hands the stretch to the client. What has answered a request part of the way cannot be repeated.
    pub(crate) fn flush<W: Wires>(&mut self, server: &mut Server, wires: &mut W) {
        let stretch = &self.bytes[self.start..self.at];
        self.start = self.at;
        if !stretch.is_empty() {
            server.replay.give_up();
            wires.to_client(|out| out.extend_from_slice(stretch));
        }
    }

    /// Keeps the message back.
    pub(crate) fn hold<W: Wires>(&mut self, header: Header, server: &mut Server, wires: &mut W) {
        self.give_warning(server, wires);
        let whole = header.total.min(self.rest().len());
        server.warning.extend_from_slice(&self.rest()[..whole]);
        self.skip(header, server, wires);
    }

    /// The warning was not the connection's last word.
    pub(crate) fn give_warning<W: Wires>(&mut self, server: &mut Server, wires: &mut W) {
        if !server.warning.is_empty() {
            self.flush(server, wires);
            server.replay.give_up();
            let warning = std::mem::take(&mut server.warning);
            wires.to_client(|out| out.extend_from_slice(&warning));
        }
    }
}
