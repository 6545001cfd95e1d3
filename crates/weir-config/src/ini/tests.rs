//! PgBouncer's file: notation, names, defaults, what is refused and how, and that nothing is lost in conversion.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::{
    AuthMethod, Config, FileContents, Files, KEYS, LoadBalance, Loaded, PoolMode, Problems, Source, TlsMode,
    Upstream, config_rows, diff, load, load_with, to_toml,
};

mod dialect;
mod notation;
mod settings;

const DEPLOYMENT: &str = include_str!("../../../../configs/pgbouncer.ini");

/// Files that exist only here.
struct Shelf(BTreeMap<&'static str, &'static str>);

impl Files for Shelf {
    fn read(&self, path: &Path) -> Result<FileContents, String> {
        let text = path.to_str().and_then(|path| self.0.get(path)).ok_or("No such file or directory")?;
        Ok(FileContents { bytes: (*text).into(), access: crate::Access::PRIVATE })
    }
}

fn shelf() -> Shelf {
    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n";
    Shelf(BTreeMap::from([
        ("/etc/pgbouncer/userlist.txt", "\"alice\" \"wonderland\"\n"),
        ("/etc/pgbouncer/hba.conf", "host all all 127.0.0.1/32 scram-sha-256\n"),
        ("/etc/pgbouncer/ident.conf", "map CN user\n"),
        ("/crt", CERTIFICATE),
        ("/crl", "-----BEGIN X509 CRL-----\n"),
        ("/key", KEY),
        ("/password", "secret\n"),
        ("/more.ini", "default_pool_size = 9\n[databases]\nincluded = host=h9\n"),
        ("/loop.ini", "%include /loop.ini\n"),
    ]))
}

fn source(text: &str) -> Source<'_> {
    Source { path: Path::new("/p.ini"), text, access: crate::Access::PRIVATE }
}

fn load_ini(text: &str) -> Result<Loaded, Problems> {
    load(Some(source(text)), &[], &shelf())
}

/// Loads `[pgbouncer]` with these lines behind a few that are good.
fn with(lines: &str) -> Config {
    load_ini(&format!("[pgbouncer]\nauth_type = trust\n{lines}")).unwrap().config
}

fn problems(text: &str) -> Vec<String> {
    let problems = load_ini(text).err().map(|problems| problems.to_string()).unwrap_or_default();
    problems.lines().map(|line| line.trim_start_matches("/p.ini:").to_owned()).collect()
}
