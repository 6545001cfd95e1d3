//! What Patroni's REST API answers, honestly or not.

use weir_discovery::Answer;

use crate::database::Phase;
use crate::node::Api;
use crate::process::{Ask, address};
use crate::wire::Host;
use crate::world::{Place, World};

impl World {
    /// What Patroni's REST API answers; nothing if it cannot ask the store for it.
    pub(crate) fn rest(&self, node: usize, ask: Ask) -> Option<Answer> {
        match ask {
            Ask::Cluster => (self.dcs.is_up && self.network.reach_each_other(Host::Node(node), Host::Dcs))
                .then(|| self.cluster_body()),
            Ask::Primary | Ask::Ping => Some(self.primary_body(node)),
        }
    }

    fn primary_body(&self, node: usize) -> Answer {
        let (agent, data) = (&self.nodes[node].patroni, &self.nodes[node].data);
        let leads = match agent.api {
            Api::Lies(says) => says,
            Api::Honest | Api::Hangs | Api::Refuses | Api::WrongRole | Api::Garbage => {
                agent.leads && !self.dcs.is_standby
            }
        };
        if agent.api == Api::Garbage {
            return Answer { status: if leads { 200 } else { 503 }, body: b"{\"state\": [\"\xff".to_vec() };
        }
        let says_primary = data.writes() != (agent.api == Api::WrongRole);
        let leads_standby = self.dcs.is_standby && agent.leads;
        let role = match (says_primary, leads_standby) {
            (true, _) => "primary",
            (false, true) => "standby_leader",
            (false, false) => "replica",
        };
        // Patroni asks PostgreSQL, and says so when it gets no answer.
        let answers = !self.is_frozen(Place::Postgres(node));
        let state = match data.phase {
            _ if !answers => "unknown",
            Phase::Down => "stopped",
            Phase::Starting { .. } => "starting",
            Phase::Stopping { .. } => "stopping",
            Phase::Standby | Phase::Promoting | Phase::Primary => "running",
        };
        let position = data.replayed();
        let xlog = if data.writes() { "location" } else { "replayed_location" };
        let seen = if data.is_open() && answers {
            format!(
                r#", "timeline": {}, "xlog": {{"{xlog}": {position}}}, "database_system_identifier": "{}""#,
                data.timeline,
                crate::backend::SYSTEM
            )
        } else {
            String::new()
        };
        let (away, weight) = (agent.noloadbalance, self.plan.weights[node]);
        let tags = format!(r#", "tags": {{"noloadbalance": {away}, "weir_weight": {weight}}}"#);
        let body = format!(
            r#"{{"state": "{state}", "role": "{role}"{seen}{tags},
                "patroni": {{"version": "4.1.5", "scope": "s", "name": "n{node}"}}}}"#
        );
        Answer { status: if leads { 200 } else { 503 }, body: body.into_bytes() }
    }

    fn cluster_body(&self) -> Answer {
        let holder = self.dcs.holder(self.agenda.now());
        let members: Vec<String> = (0..self.nodes.len())
            .filter(|node| self.nodes[*node].patroni.is_up)
            .map(|node| {
                let leads = if self.dcs.is_standby { "standby_leader" } else { "leader" };
                let role = if holder == Some(node) { leads } else { "replica" };
                let host = address(node).host;
                format!(
                    r#"{{"name": "n{node}", "role": "{role}", "state": "running", "timeline": {},
                        "host": "{host}", "port": 5432, "api_url": "http://{host}:8008/patroni"}}"#,
                    self.nodes[node].data.timeline
                )
            })
            .collect();
        Answer {
            status: 200,
            body: format!(r#"{{"members": [{}], "scope": "s"{}}}"#, members.join(","), self.scheduled_body())
                .into_bytes(),
        }
    }
}
