//! SWITCHOVER on the console, with a Patroni of a few lines.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use weir_admin::snapshot::UnfinishedRow;
use weir_discovery::{Leadership, Topology};
use weir_pool::ClientId;
use weir_worker::{Asker, ConsoleRequest, Order};

use super::fakes::{Postgres, Worker, config, control, http, rest};
use super::on_control_thread;
use crate::control::console;
use crate::control::state::Control;

/// Two members; one leads, and `POST /switchover` does what the test says.
struct Cluster {
    /// What `POST /switchover` is answered with; 200 makes n2 lead.
    status: Rc<Cell<u16>>,
    posts: Rc<RefCell<Vec<String>>>,
    control: Rc<Control>,
    worker: Worker,
}

impl Cluster {
    async fn start(settings: &str) -> Self {
        let old = Postgres::start(false).await;
        let new = Postgres::start(true).await;
        let ports = [old.address.port(), new.address.port()];
        let (status, switched) = (Rc::new(Cell::new(200)), Rc::new(Cell::new(false)));
        let posts: Rc<RefCell<Vec<String>>> = Rc::default();
        let urls: Rc<RefCell<Vec<String>>> = Rc::default();
        for (index, name) in ["n1", "n2"].into_iter().enumerate() {
            let (status, switched, posts) = (Rc::clone(&status), Rc::clone(&switched), Rc::clone(&posts));
            let (all, old, new) = (Rc::clone(&urls), old.clone(), new.clone());
            let address = rest(move |path| match path {
                "/cluster" => http(200, &listing(&all.borrow(), ports, switched.get())),
                "/switchover" => {
                    posts.borrow_mut().push(name.to_owned());
                    if status.get() == 200 {
                        switched.set(true);
                        old.in_hot_standby.set(true);
                        new.in_hot_standby.set(false);
                    }
                    http(status.get(), "words of Patroni")
                }
                _ => primary(name, (index == 1) == switched.get(), if switched.get() { 6 } else { 5 }),
            })
            .await;
            urls.borrow_mut().push(format!("http://{address}"));
        }
        let seeds = urls.borrow().join("\", \"");
        let text = format!(
            "[patroni]\nurls = [\"{seeds}\"]\nmonitor_user = \"monitor\"\nusername = \"p\"\npassword = \"q\"\n{settings}"
        );
        let (control, mut worker) = control(config(&text), None);
        until(&mut worker, |topology| leader(topology) == Some("n1") && !topology.replicas.is_empty()).await;
        Self { status, posts, control, worker }
    }

    fn say(&self, sql: &str) {
        let request = ConsoleRequest { client: ClientId(3), sql: sql.as_bytes().to_vec(), admin: true };
        console::execute(&self.control, 0, request);
    }

    /// What the console reads, up to the end of the answer, and every state of things on the way.
    async fn answer(&mut self) -> (String, Vec<(Option<String>, bool)>) {
        let (mut text, mut seen) = (String::new(), Vec::new());
        loop {
            let order = self.worker.orders.recv().await.unwrap();
            if let Order::Adopt(topology) = order {
                seen.push((leader(&topology).map(str::to_owned), topology.planned.is_some()));
            } else if let Order::ConsoleNotice(ClientId(3), bytes) = order {
                text += &String::from_utf8_lossy(&bytes);
            } else if let Order::ConsoleReply(ClientId(3), bytes) = order {
                return (text + &String::from_utf8_lossy(&bytes), seen);
            }
        }
    }
}

fn listing(urls: &[String], ports: [u16; 2], switched: bool) -> String {
    let member = |index: usize| {
        let role = if (index == 1) == switched { "leader" } else { "replica" };
        let timeline = if switched { 6 } else { 5 };
        format!(
            r#"{{"name": "n{}", "role": "{role}", "state": "running", "host": "127.0.0.1", "port": {},
            "api_url": "{}/patroni", "timeline": {timeline}, "lag": 0}}"#,
            index + 1,
            ports[index],
            urls[index]
        )
    };
    format!(r#"{{"members": [{}, {}], "scope": "s"}}"#, member(0), member(1))
}

fn primary(name: &str, leads: bool, timeline: u32) -> Vec<u8> {
    let role = if leads { "primary" } else { "replica" };
    let position = if leads { "location" } else { "replayed_location" };
    http(
        if leads { 200 } else { 503 },
        &format!(
            r#"{{"state": "running", "role": "{role}", "timeline": {timeline}, "xlog": {{"{position}": 1}},
            "database_system_identifier": "7710409261021857494",
            "patroni": {{"version": "4.1.5", "scope": "s", "name": "{name}"}}}}"#
        ),
    )
}

fn leader(topology: &Topology) -> Option<&str> {
    match &topology.leader {
        Leadership::Led { member, .. } => Some(member),
        Leadership::Leaderless { .. } => None,
    }
}

async fn until(worker: &mut Worker, fits: impl Fn(&Topology) -> bool) {
    loop {
        if let Order::Adopt(topology) = worker.orders.recv().await.unwrap()
            && fits(&topology)
        {
            return;
        }
    }
}

fn somebody() -> UnfinishedRow {
    UnfinishedRow {
        client: 17,
        user: "alice".to_owned(),
        database: "shop".to_owned(),
        peer: "10.0.0.9:4711".to_owned(),
        application_name: "reports".to_owned(),
        is_own: false,
        open_for: Duration::from_millis(2500),
        running_for: None,
    }
}

#[test]
fn the_new_leader_s_evidence_ends_it() {
    on_control_thread(async {
        let mut cluster = Cluster::start("").await;
        *cluster.worker.unfinished.borrow_mut() = (vec![somebody()], Asker::Waits);
        cluster.say("SWITCHOVER TO n2");
        let open = Rc::clone(&cluster.worker.unfinished);
        while cluster.worker.looks.get() < 3 {
            tokio::task::yield_now().await;
        }
        assert!(cluster.posts.borrow().is_empty(), "a transaction is open");
        open.borrow_mut().0.clear();
        let (text, seen) = cluster.answer().await;
        assert!(text.contains("SWITCHOVER\0") && text.contains("n2 leads on timeline 6"), "{text}");
        assert!(text.contains("speaks for itself only"), "{text}");
        assert_eq!(seen.first(), Some(&(Some("n1".to_owned()), true)), "{seen:?}");
        assert_eq!(seen.last(), Some(&(Some("n2".to_owned()), false)), "{seen:?}");
        assert!(!seen.contains(&(Some("n1".to_owned()), false)), "the old leader gets nobody back: {seen:?}");
        assert_eq!(*cluster.posts.borrow(), ["n1"]);
        cluster.say("SHOW FAILOVERS");
        let (text, _) = cluster.answer().await;
        assert!(text.contains("a switchover from n1 to n2 is under way"), "{text}");
    });
}

#[test]
fn a_refusal_lets_transactions_start_again_and_says_what_to_do() {
    on_control_thread(async {
        let mut cluster = Cluster::start("").await;
        for (status, hint) in
            [(401, "patroni.username"), (403, "patroni.cert_file"), (412, "patronictl list")]
        {
            cluster.status.set(status);
            cluster.say("SWITCHOVER");
            let (text, _) = cluster.answer().await;
            assert!(text.contains("C55000\0") && text.contains("words of Patroni"), "{text}");
            assert!(text.contains(hint), "{text}");
            until(&mut cluster.worker, |t| leader(t) == Some("n1") && t.planned.is_none()).await;
        }
    });
}

#[test]
fn transactions_that_do_not_end_are_named() {
    on_control_thread(async {
        let mut cluster = Cluster::start("switchover_wait = \"200ms\"").await;
        cluster.worker.unfinished.borrow_mut().0 = vec![somebody()];
        cluster.say("SWITCHOVER");
        cluster.say("SWITCHOVER");
        let (text, _) = cluster.answer().await;
        assert!(text.contains("a switchover is under way already"), "{text}");
        let (text, _) = cluster.answer().await;
        assert!(text.contains("transactions did not end in time; Patroni was not asked"), "{text}");
        let line = "client 17: shop/alice@10.0.0.9:4711 (reports), in a transaction for 2.5 s, no statement is running";
        assert!(text.contains(line), "{text}");
        assert!(cluster.posts.borrow().is_empty());
    });
}

#[test]
fn it_is_called_off_by_a_cancel_request_or_by_leaving() {
    on_control_thread(async {
        let mut cluster = Cluster::start("").await;
        for asker in [Asker::ThinksBetterOfIt, Asker::IsGone] {
            *cluster.worker.unfinished.borrow_mut() = (vec![somebody()], asker);
            cluster.say("SWITCHOVER");
            let (text, _) = cluster.answer().await;
            assert!(
                text.contains("C57014\0") && text.contains("called off before Patroni was asked"),
                "{text}"
            );
        }
        assert!(cluster.posts.borrow().is_empty());
    });
}

#[test]
fn what_patroni_would_refuse_is_not_begun() {
    on_control_thread(async {
        let mut cluster = Cluster::start("").await;
        for (to, why) in [("n1", "n1 leads already"), ("n9", "no member is called")] {
            cluster.say(&format!("SWITCHOVER TO {to}"));
            let (text, seen) = cluster.answer().await;
            assert!(text.contains(why), "{text}");
            assert!(seen.iter().all(|(_, planned)| !planned), "{seen:?}");
        }
    });
}
