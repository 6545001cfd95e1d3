//! What a client is told when the server connection it holds is lost. The rules decide between "sent once more", "one
//! honest error", and "close", and never guess: a request is repeated only if PostgreSQL itself said that it was rolled
//! back.

use weir_protocol::backend;
use weir_protocol::frame::{self, HEADER_BYTES, MESSAGE_BYTES_MAX};
use weir_protocol::frontend;
use weir_protocol::message::Report;
use weir_protocol::sqlstate::SqlState;
use weir_protocol::tag::FromClient;

use crate::aborted::{Aborted, in_failed_transaction};
use crate::cause::{Doubt, LossCause, Session as LostSession, UnderWay, name_failover_behind};
use crate::owed::Owed;
use crate::prepared::StatementKind;
use crate::server::{Answered, Server, TxStatus, Unsynced};
use crate::session::{Mode, Phase, Session};
use crate::wires::Wires;

/// What the caller has to do with the client.
#[derive(Debug)]
pub enum AfterLoss {
    /// It stays, holds no server connection, and was told what there is to tell.
    Stays(Told),
    /// It stays, and these bytes are its input once more, in front of any that have not been consumed.
    Again(Vec<u8>),
    /// Send this and close it.
    Close(Box<Report>),
    /// Close it without a word: half a message has already been sent.
    CloseSilently,
}

/// What a client that stays was told, or will be with its next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Nothing that it did not know, or had asked for.
    Nothing,
    /// A transaction was certainly rolled back.
    RolledBack,
    /// Requests may have been carried out.
    InDoubt,
}

impl Session {
    /// The server connection is gone. Answers what is owed according to what can be known about it.
    pub fn server_lost<W: Wires>(
        &mut self,
        server: &mut Server,
        cause: &LossCause,
        wires: &mut W,
    ) -> AfterLoss {
        self.swallowing += std::mem::take(&mut self.passing);
        if server.relaying > 0 {
            return AfterLoss::CloseSilently;
        }
        if self.mode == Mode::Session || server.watch.would_be_missed() {
            return self.session_lost(server, cause);
        }
        if let Some(again) = server.again.take() {
            // It has failed, its error was not forwarded, and it was to run again anyway.
            return self.repeat(again.bytes, server);
        }
        let repeats = self.was_rolled_back(server) || (cause.read_only_member && self.can_repeat(server));
        if repeats && let Some(bytes) = server.replay.take() {
            return self.repeat(bytes, server);
        }
        self.retried = false;
        if server.answered.has_ended() {
            self.tx = TxStatus::Idle;
        }
        let mut sent = Vec::new();
        while let Some(owed) = server.owed.pop() {
            if !owed.is_hidden() && !matches!(owed, Owed::CopyEnd) {
                sent.push(owed);
            }
        }
        let told = server.failed && self.finish_failed(&mut sent, wires);
        let verdict = self.verdict(&sent, told, server);
        let told = verdict.tells();
        match verdict {
            Verdict::Nothing => {}
            Verdict::Skip => {
                self.leave_with(if self.tx == TxStatus::Idle { self.tx } else { TxStatus::Failed }, true)
            }
            Verdict::TellNext => self.tell_next(cause),
            Verdict::Play => self.leave_with(TxStatus::Failed, false),
            Verdict::Done => {
                wires.to_client(|out| backend::ready_for_query(TxStatus::Idle.byte(), out));
                self.leave_with(TxStatus::Idle, false);
            }
            Verdict::Confirm(tag) => self.confirm(&sent, tag, wires),
            Verdict::InDoubt(status) => {
                let report = cause.in_doubt(self.doubt(&sent, status, cause));
                self.answer_all(sent, &report, status, server, wires);
            }
            Verdict::RolledBack => {
                self.answer_all(sent, &cause.rolled_back(), TxStatus::Failed, server, wires)
            }
            Verdict::StillFailed => {
                self.answer_all(sent, &in_failed_transaction(), TxStatus::Failed, server, wires);
            }
        }
        if let Phase::Aborted(block) = &mut self.phase {
            block.begun = server.begun;
        }
        AfterLoss::Stays(told)
    }

    /// The loss that its next request is going to be told of.
    fn untold(&mut self) -> Option<&mut Report> {
        match &mut self.phase {
            Phase::Aborted(block) => block.explanation.as_mut(),
            Phase::Refusing(report) => Some(report),
            Phase::Relaying | Phase::Skipping | Phase::Deferred(_) => None,
        }
    }

    /// The next request is going to get an error.
    #[must_use]
    pub fn owes_explanation(&self) -> bool {
        match &self.phase {
            Phase::Aborted(block) => block.explanation.is_some(),
            Phase::Refusing(_) => true,
            Phase::Relaying | Phase::Skipping | Phase::Deferred(_) => false,
        }
    }

    /// The loss that its next request is going to be told of turned out to be the beginning of this failover.
    pub fn belongs_to_failover(&mut self, number: u64) {
        if let Some(report) = self.untold() {
            name_failover_behind(report, number);
        }
    }

    /// PostgreSQL has said that it rolled back the request in flight, and all of the request is at hand.
    pub(crate) fn was_rolled_back(&self, server: &Server) -> bool {
        let said = server.dying.as_ref().is_some_and(|dying| dying.code == SqlState::ADMIN_SHUTDOWN);
        said && server.warning.is_empty() && self.can_repeat(server)
    }

    pub(crate) fn can_repeat(&self, server: &Server) -> bool {
        self.mode != Mode::Session
            && !server.watch.would_be_missed()
            && self.tx == TxStatus::Idle
            && !self.retried
            && server.replay.is_complete()
    }

    fn repeat(&mut self, bytes: Vec<u8>, server: &mut Server) -> AfterLoss {
        self.retried = true;
        let promised: Vec<Owed> = std::iter::from_fn(|| server.owed.pop()).collect();
        for owed in promised.into_iter().rev() {
            self.undo(owed, server);
        }
        self.forget_parsed_in(&bytes);
        AfterLoss::Again(bytes)
    }

    /// These messages will be sent once more: a name that their Parse has made, without the client hearing of it, is free.
    pub(crate) fn forget_parsed_in(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Ok(Some(header)) = frame::peek(rest, MESSAGE_BYTES_MAX)
            && let Some((frame, behind)) = rest.split_at_checked(header.total)
        {
            let body = frame.get(HEADER_BYTES..).unwrap_or_default();
            if FromClient::of(header.tag) == Some(FromClient::Parse)
                && let Ok(parse) = frontend::read::parse(body)
            {
                self.statements.remove(parse.name);
            }
            rest = behind;
        }
    }

    /// Session pooling, or a client that is tied to its connection: settings, temporary tables, locks and statements died with the connection.
    fn session_lost(&mut self, server: &Server, cause: &LossCause) -> AfterLoss {
        let mut kinds = server.owed.iter().filter(|owed| !owed.is_hidden()).map(kind_of_request).peekable();
        let is_waiting = kinds.peek().is_some();
        if !self.has_run && !is_waiting {
            return AfterLoss::Stays(Told::Nothing);
        }
        let is_in_transaction = self.tx != TxStatus::Idle && !server.answered.has_ended();
        let under_way = if is_in_transaction && !kinds.flatten().any(StatementKind::may_end) {
            UnderWay::Transaction
        } else if is_waiting || server.unsynced == Unsynced::Work {
            UnderWay::Request
        } else {
            UnderWay::Nothing
        };
        let is_pinned = self.mode != Mode::Session;
        AfterLoss::Close(Box::new(cause.session_over(LostSession { is_pinned, under_way })))
    }

    /// What is in doubt of these requests, which leave the client in this status.
    fn doubt(&self, sent: &[Owed], status: TxStatus, cause: &LossCause) -> Doubt {
        let kind = sent.iter().find_map(kind_of_request).filter(|_| is_lone(sent));
        match (self.tx, kind) {
            (TxStatus::Open, Some(StatementKind::Commit)) => Doubt::Commit,
            _ if status == TxStatus::Failed => Doubt::InBlock,
            _ if cause.read_only_member => Doubt::Read,
            _ => Doubt::Request,
        }
    }

    /// The oldest request has got its error already: it gets its ReadyForQuery, unless its Sync is still to come from the
    /// client (then true).
    fn finish_failed<W: Wires>(&mut self, sent: &mut Vec<Owed>, wires: &mut W) -> bool {
        let status = match (self.tx, sent.first()) {
            (_, None) => return true,
            // A COMMIT that failed has rolled back.
            (TxStatus::Idle, _) | (_, Some(Owed::Query(StatementKind::Commit))) => TxStatus::Idle,
            (TxStatus::Open | TxStatus::Failed, Some(_)) => TxStatus::Failed,
        };
        sent.remove(0);
        wires.to_client(|out| backend::ready_for_query(status.byte(), out));
        self.tx = status;
        false
    }

    fn verdict(&self, sent: &[Owed], told: bool, server: &Server) -> Verdict {
        if told {
            return Verdict::Skip;
        }
        match self.tx {
            TxStatus::Idle if sent.is_empty() && server.unsynced == Unsynced::Work => Verdict::TellNext,
            TxStatus::Idle if sent.is_empty() => Verdict::Nothing,
            TxStatus::Idle if is_done(sent, server.answered) => Verdict::Done,
            TxStatus::Idle => verdict_outside(sent, server.answered),
            TxStatus::Open if sent.is_empty() => Verdict::TellNext,
            TxStatus::Failed if sent.is_empty() => Verdict::Play,
            TxStatus::Open => verdict_in_transaction(sent),
            TxStatus::Failed => verdict_in_failed_transaction(sent),
        }
    }

    /// Nothing was in flight: the next request gets the error.
    fn tell_next(&mut self, cause: &LossCause) {
        let report = cause.rolled_back();
        match self.tx {
            TxStatus::Idle => self.phase = Phase::Refusing(Box::new(report)),
            TxStatus::Open | TxStatus::Failed => {
                self.phase = Phase::Aborted(Box::new(Aborted::owing(report, None)));
                self.tx = TxStatus::Failed;
            }
        }
    }

    /// One error for each request in flight, and the ReadyForQuery it waits for. A batch whose Sync has not been sent is
    /// skipped up to there. What the requests had promised is undone.
    fn answer_all<W: Wires>(
        &mut self,
        sent: Vec<Owed>,
        report: &Report,
        status: TxStatus,
        server: &mut Server,
        wires: &mut W,
    ) {
        let mut answered = false;
        for owed in &sent {
            if !std::mem::replace(&mut answered, true) {
                wires.to_client(|out| backend::error(report, out));
            }
            if owed.ends_in_ready() {
                answered = false;
                wires.to_client(|out| backend::ready_for_query(status.byte(), out));
            }
        }
        for owed in sent.into_iter().rev() {
            self.undo(owed, server);
        }
        self.leave_with(status, answered);
    }

    /// The only request in flight ends the transaction, and nothing else can have become of it: it gets plain success.
    fn confirm<W: Wires>(&mut self, sent: &[Owed], tag: &str, wires: &mut W) {
        for owed in sent {
            wires.to_client(|out| match owed {
                Owed::Query(_) => {
                    backend::command_complete(tag, out);
                    backend::ready_for_query(TxStatus::Idle.byte(), out);
                }
                Owed::Sync => backend::ready_for_query(TxStatus::Idle.byte(), out),
                Owed::Parse(_) | Owed::LocalParse(_) => backend::parse_complete(out),
                Owed::Bind => backend::bind_complete(out),
                Owed::Describe { statement } => {
                    if *statement {
                        backend::parameter_description(&[], out);
                    }
                    backend::no_data(out);
                }
                Owed::Execute(_) => backend::command_complete(tag, out),
                Owed::Close | Owed::LocalClose(_) => backend::close_complete(out),
                Owed::HiddenParse(_)
                | Owed::HiddenClose(_)
                | Owed::HiddenSettings
                | Owed::HiddenState { .. }
                | Owed::HiddenBegin
                | Owed::CopyEnd => {}
            });
        }
        // If its batch goes on, it goes on elsewhere.
        self.leave_with(TxStatus::Idle, false);
    }

    fn leave_with(&mut self, status: TxStatus, in_batch: bool) {
        self.tx = status;
        self.phase = match (status, in_batch) {
            (TxStatus::Failed | TxStatus::Open, _) => Phase::Aborted(Box::new(Aborted::in_batch(in_batch))),
            (TxStatus::Idle, true) => Phase::Skipping,
            (TxStatus::Idle, false) => Phase::Relaying,
        };
    }
}

/// What becomes of the requests in flight.
enum Verdict {
    /// Nothing was in flight, and nothing is lost.
    Nothing,
    /// The request in flight has got its error: everything up to its Sync is skipped.
    Skip,
    /// Nothing was in flight, but something is lost: the next request gets the error.
    TellNext,
    /// Nothing was in flight, and the client knows that its transaction has failed.
    Play,
    /// PostgreSQL has said that the transaction is over, and only ReadyForQuery is missing.
    Done,
    /// What it asked for is done, and has this tag: see [`Session::confirm`].
    Confirm(&'static str),
    /// They may have been carried out. Then this status.
    InDoubt(TxStatus),
    /// Nothing of the transaction was committed.
    RolledBack,
    /// PostgreSQL had refused them in any case.
    StillFailed,
}

impl Verdict {
    fn tells(&self) -> Told {
        match self {
            Self::Nothing | Self::Skip | Self::Play | Self::Done | Self::Confirm(_) | Self::StillFailed => {
                Told::Nothing
            }
            Self::TellNext | Self::RolledBack => Told::RolledBack,
            Self::InDoubt(_) => Told::InDoubt,
        }
    }
}

/// Requests in flight outside of a transaction. A ROLLBACK there has no effect, and a COMMIT none if nothing has run in the
/// same batch: what became of it makes no difference.
fn verdict_outside(sent: &[Owed], answered: Answered) -> Verdict {
    match sent.iter().find_map(kind_of_request).filter(|_| is_lone(sent)) {
        Some(StatementKind::Rollback) => Verdict::Confirm("ROLLBACK"),
        Some(StatementKind::Commit) if !answered.has_worked() => Verdict::Confirm("COMMIT"),
        Some(_) | None => Verdict::InDoubt(TxStatus::Idle),
    }
}

/// Requests in flight in an open transaction, which is gone unless one of them has ended it.
fn verdict_in_transaction(sent: &[Owed]) -> Verdict {
    let mut kinds = sent.iter().filter_map(kind_of_request).skip_while(|kind| !kind.may_end());
    match (kinds.next(), kinds.next()) {
        (None, _) => Verdict::RolledBack,
        (Some(StatementKind::Rollback), None) if is_lone(sent) => Verdict::Confirm("ROLLBACK"),
        // Behind other requests, or in front of a new block: all was rolled back, whether it was carried out or not.
        (Some(StatementKind::Rollback | StatementKind::RollbackAndChain), None) => Verdict::RolledBack,
        (Some(StatementKind::MayEnd | StatementKind::CommitAndChain), None) => {
            Verdict::InDoubt(TxStatus::Failed)
        }
        // What comes behind the end of the transaction may have been carried out on its own.
        (Some(_), _) => Verdict::InDoubt(TxStatus::Idle),
    }
}

/// The client knows already that its transaction has failed: COMMIT, too, can only have rolled back.
fn verdict_in_failed_transaction(sent: &[Owed]) -> Verdict {
    let mut kinds = sent.iter().filter_map(kind_of_request);
    match (kinds.next(), kinds.next()) {
        (Some(StatementKind::Rollback | StatementKind::Commit), None) if is_lone(sent) => {
            Verdict::Confirm("ROLLBACK")
        }
        // The block that it was to open is lost.
        (Some(StatementKind::RollbackAndChain | StatementKind::CommitAndChain), None) => Verdict::RolledBack,
        (Some(StatementKind::MayEnd), None) => Verdict::InDoubt(TxStatus::Failed),
        (_, None) => Verdict::StillFailed,
        // ROLLBACK TO may have brought the transaction back before a COMMIT.
        (Some(_), Some(_)) if sent.iter().filter_map(kind_of_request).any(StatementKind::may_end) => {
            Verdict::InDoubt(TxStatus::Idle)
        }
        (_, Some(_)) => Verdict::StillFailed,
    }
}

fn is_done(sent: &[Owed], answered: Answered) -> bool {
    match (sent, answered) {
        ([Owed::Sync], Answered::End { by_query }) => !by_query,
        ([Owed::Query(_)], Answered::End { by_query }) => by_query,
        _ => false,
    }
}

fn kind_of_request(owed: &Owed) -> Option<StatementKind> {
    match owed {
        Owed::Query(kind) | Owed::Execute(kind) => Some(*kind),
        Owed::Sync
        | Owed::Parse(_)
        | Owed::LocalParse(_)
        | Owed::Bind
        | Owed::Describe { .. }
        | Owed::Close
        | Owed::LocalClose(_)
        | Owed::HiddenParse(_)
        | Owed::HiddenClose(_)
        | Owed::HiddenSettings
        | Owed::HiddenState { .. }
        | Owed::HiddenBegin
        | Owed::CopyEnd => None,
    }
}

/// Exactly one request is in flight.
fn is_lone(sent: &[Owed]) -> bool {
    let endings = sent.iter().filter(|owed| owed.ends_in_ready()).count();
    sent.iter().filter_map(kind_of_request).count() == 1 && endings <= 1
}
