//! What the machine wants computed or asked where it keeps nobody waiting. Each answer comes in a turn of its own.

use std::time::Instant;

use tokio::task;
use weir_auth::scram::Derivation;
use weir_worker::{Referral, Ticket};

use super::Shell;
use crate::machine::Machine;

impl<M: Machine> Shell<M> {
    pub(super) fn start_derivation(&mut self, ticket: Ticket, derivation: Derivation) {
        let Some(shell) = self.me.upgrade() else { return };
        let derived = self.deriver.derive(derivation);
        task::spawn_local(async move {
            let Ok(derived) = derived.await else { return };
            let mut shell = shell.borrow_mut();
            let Self { machine, effects, .. } = &mut *shell;
            machine.derived(Instant::now(), ticket, &derived, effects);
            shell.carry_out();
        });
    }

    pub(super) fn refer(&mut self, referral: Referral) {
        let Some(shell) = self.me.upgrade() else { return };
        let ticket = referral.ticket;
        let verdict = self.elsewhere.ask(referral);
        task::spawn_local(async move {
            let verdict = verdict.await;
            let mut shell = shell.borrow_mut();
            let Self { machine, effects, .. } = &mut *shell;
            machine.judged(Instant::now(), ticket, &verdict, effects);
            shell.carry_out();
        });
    }
}
