//! One PostgreSQL that knows everybody, and the weirs in front of it.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use tokio::process::Command;
use weir_cluster::{Postgres, PostgresOptions, RunDir, ServerTls, schema};
use weir_e2e::logins::{Driver, How, Try};
use weir_e2e::stack::{CERTIFIED, Front, Setup};

use crate::expect::{Gate, check, expected};
use crate::people::{Kind, Method, PASSWORD, Person, SHARED};

/// A user that may come in by SCRAM, for who makes it.
pub(crate) const LATE: &str = "late";

/// How users are looked up who are in no list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lookups {
    /// By a function, and by a user who may do nothing but call it.
    ByFunction,
    /// By weir's default query, which needs a superuser.
    Usual,
}

/// A weir.
#[derive(Debug)]
pub(crate) struct Door {
    gate: Gate,
    /// `None`: each user's own.
    method: Option<Method>,
    front: Front,
}

/// All that runs.
#[derive(Debug)]
pub(crate) struct World {
    people: Vec<Person>,
    doors: Vec<Door>,
    sockets: RunDir,
    // Ends last.
    pub(crate) postgres: Postgres,
}

impl World {
    /// Users of these methods, and a weir that asks each as an HBA file says.
    pub(crate) async fn start(
        methods: &[Method],
        bin_dir: Option<PathBuf>,
        lookups: Lookups,
    ) -> Result<Self> {
        let people = Person::all(methods);
        let postgres = start_postgres(&people, bin_dir).await?;
        let mut world = Self { people, doors: Vec::new(), sockets: RunDir::create("sockets")?, postgres };
        let rules = rules(&world.people, &own_name().await?);
        let setup = world
            .setup(lookups)
            .client_tls("prefer")
            .set("client_tls", "ca_file = \"authority.crt\"")
            .set("auth", "type = \"hba\"")
            .set("auth", "hba_file = \"hba.conf\"")
            .set("auth", "ident_file = \"ident.conf\"")
            .file("hba.conf", &rules.hba)
            .file("ident.conf", &rules.ident);
        let front = setup.start_beside(&world.postgres).await?;
        world.doors.push(Door { gate: Gate::Rules, method: None, front });
        Ok(world)
    }

    /// One more weir, which asks everybody in the same way.
    pub(crate) async fn add(&mut self, gate: Gate, method: Method, tls: &str) -> Result<()> {
        let name = match method {
            Method::Scram => "scram-sha-256",
            Method::Md5 => "md5",
            Method::Plain => "plain",
            Method::Trust => "trust",
            Method::Cert => "cert",
            Method::Peer => "peer",
        };
        let setup = self
            .setup(Lookups::ByFunction)
            .client_tls(tls)
            .set("client_tls", "ca_file = \"authority.crt\"")
            .set("auth", &format!("type = \"{name}\""));
        let front = setup.start_beside(&self.postgres).await?;
        self.doors.push(Door { gate, method: Some(method), front });
        Ok(())
    }

    /// All weirs; the first is the one with the HBA file.
    pub(crate) fn doors(&self) -> &[Door] {
        &self.doors
    }

    /// Where the weir with the HBA file listens.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        Ok(self.doors.first().context("no weir")?.front.weir.write())
    }

    /// Tries all cells of the table that this driver can try at these doors, with one start of its program, and lists
    /// those that end otherwise than they have to.
    pub(crate) async fn compare(&self, driver: &Driver, doors: &[Door], hows: &[How]) -> Result<Vec<String>> {
        let cells = self.cells(driver, doors, hows);
        let tries: Vec<Try> = cells.iter().map(|cell| self.attempt(cell)).collect();
        let answers = driver.log_in(&tries).await?;
        let mut wrong = Vec::new();
        for ((cell, attempt), answer) in cells.iter().zip(&tries).zip(&answers) {
            let Cell { door, person, how, knows_password } = *cell;
            if let Err(why) = check(answer, &expected(door.gate, person, how, knows_password)) {
                let password = if knows_password { "" } else { ", wrong password" };
                wrong.push(format!("{} at {:?}, {attempt}{password}: {why}", driver.name, door.gate));
            }
        }
        Ok(wrong)
    }

    fn cells<'a>(&'a self, driver: &Driver, doors: &'a [Door], hows: &[How]) -> Vec<Cell<'a>> {
        let mut cells = Vec::new();
        for door in doors {
            let fits = |person: &&Person| door.method.is_none_or(|only| only == person.method);
            for person in self.people.iter().filter(fits) {
                for how in hows.iter().copied().filter(|how| driver.can(*how)) {
                    let ways = [true, false].map(|knows_password| Cell { door, person, how, knows_password });
                    cells.extend(ways.into_iter().filter(Cell::is_telling));
                }
            }
        }
        cells
    }

    fn attempt(&self, cell: &Cell<'_>) -> Try {
        let Cell { door, person, how, knows_password } = *cell;
        Try {
            how,
            folder: door.front.folder().to_owned(),
            sockets: self.sockets.path().to_owned(),
            port: door.front.weir.write().port(),
            user: person.name.clone(),
            password: if knows_password { PASSWORD } else { "guess" }.to_owned(),
            database: if person.kind.is_shared() { "shared" } else { schema::DATABASE }.to_owned(),
        }
    }

    /// The settings that all weirs share.
    fn setup(&self, lookups: Lookups) -> Setup {
        let people = self.people.iter();
        let listed = people.filter_map(|person| Some((person.name.as_str(), person.listed.as_deref()?)));
        let own = [schema::AUTH, schema::SUPERUSER].map(|login| (login.user, login.password));
        let setup = Setup::new()
            .users(&listed.chain(own).collect::<Vec<_>>())
            .pool_size(2)
            // Everybody comes from one address.
            .set("auth", "failed_login_delay_max = \"0\"")
            .set("listen", &format!("unix_dir = \"{}\"", self.sockets.path().display()))
            .set("server_tls", "mode = \"require\"")
            .set("databases.shared", &format!("dbname = \"{}\"", schema::DATABASE))
            .set("databases.shared", &format!("user = \"{SHARED}\""))
            .set("databases.shared", &format!("password = \"{PASSWORD}\""));
        match lookups {
            Lookups::ByFunction => setup
                .set("auth", &format!("user = \"{}\"", schema::AUTH.user))
                .set("auth", &format!("query = \"{}\"", schema::AUTH_QUERY)),
            Lookups::Usual => setup.set("auth", &format!("user = \"{}\"", schema::SUPERUSER.user)),
        }
    }
}

/// One login of the table.
#[derive(Debug, Clone, Copy)]
struct Cell<'a> {
    door: &'a Door,
    person: &'a Person,
    how: How,
    knows_password: bool,
}

impl Cell<'_> {
    /// Whether its end says something that no other cell does.
    fn is_telling(&self) -> bool {
        let Self { door: _, person, how, knows_password } = *self;
        // What a user is asked for whom nobody knows depends on what others have, and when a driver gives up on itself.
        let is_open = how == How::Bound && person.method != Method::Scram && !person.kind.is_known();
        // A guess fails the same way however it travels.
        let is_worth = matches!(how, How::Plain | How::Tls) && person.method.wants_password();
        !is_open && (knows_password || is_worth)
    }
}

async fn start_postgres(people: &[Person], bin_dir: Option<PathBuf>) -> Result<Postgres> {
    let options = PostgresOptions {
        tls: ServerTls::Required,
        // What is asked for is what is stored.
        hba: vec!["hostssl all all all md5".to_owned()],
        settings: vec![("max_connections".to_owned(), "400".to_owned())],
        bin_dir,
        ..PostgresOptions::default()
    };
    let postgres = Postgres::start(options).await?;
    let mut script: String = people.iter().filter_map(Person::statement).collect();
    script.push_str(&format!("CREATE ROLE {SHARED} LOGIN PASSWORD '{PASSWORD}'"));
    postgres.superuser(&script).await?;
    Ok(postgres)
}

struct Rules {
    hba: String,
    ident: String,
}

fn rules(people: &[Person], own_name: &str) -> Rules {
    let mut hba = format!("host all {LATE},{} 127.0.0.1/32 scram-sha-256\n", schema::SUPERUSER.user);
    let mut ident = String::new();
    for person in people {
        let name = &person.name;
        let (kinds, asked): (&[&str], &str) = match person.method {
            Method::Scram => (&["host", "local"], "scram-sha-256"),
            Method::Md5 => (&["host", "local"], "md5"),
            Method::Plain => (&["host", "local"], "password"),
            Method::Trust => (&["host", "local"], "trust"),
            Method::Cert => (&["hostssl"], "cert map=certified"),
            Method::Peer => (&["local"], "peer map=operators"),
        };
        for kind in kinds {
            let address = if *kind == "local" { "" } else { "127.0.0.1/32" };
            hba.push_str(&format!("{kind} all {name} {address} {asked}\n"));
        }
        if person.kind == Kind::Unmapped {
            continue;
        }
        match person.method {
            Method::Cert => ident.push_str(&format!("certified {CERTIFIED} {name}\n")),
            Method::Peer => ident.push_str(&format!("operators {own_name} {name}\n")),
            Method::Scram | Method::Md5 | Method::Plain | Method::Trust => {}
        }
    }
    Rules { hba, ident }
}

async fn own_name() -> Result<String> {
    let id = Command::new("id").arg("-un").output().await?;
    Ok(String::from_utf8(id.stdout)?.trim().to_owned())
}
