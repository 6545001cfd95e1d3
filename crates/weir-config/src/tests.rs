//! What `load` says about configurations: good ones, bad ones, and the examples that weir is shipped with.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad;
mod examples;
mod good;
mod reloads;

use std::collections::BTreeMap;
use std::path::Path;

use crate::{FileContents, Files, Loaded, Override, Problems, Source, Value, load};

/// Files that exist only here: contents and whether everybody may read them.
pub(super) struct Shelf(BTreeMap<&'static str, (&'static str, bool)>);

pub(super) const OPEN: crate::Access = crate::Access { mode: 0o644, owner: crate::Owner::Weir };

impl Files for Shelf {
    fn read(&self, path: &Path) -> Result<FileContents, String> {
        let (text, is_open) =
            path.to_str().and_then(|path| self.0.get(path)).ok_or("No such file or directory")?;
        Ok(FileContents {
            bytes: (*text).into(),
            access: if *is_open { OPEN } else { crate::Access::PRIVATE },
        })
    }

    fn variable(&self, name: &str) -> Result<String, String> {
        match name {
            "PASSWORD" => Ok("hunter2".to_owned()),
            "USER" => Ok("weir".to_owned()),
            "HOST" => Ok("db1".to_owned()),
            "CREDENTIALS_DIRECTORY" => Ok("/etc/weir".to_owned()),
            _ => Err("is not set".to_owned()),
        }
    }
}

/// `/etc/weir` with a user list, certificates, and the like.
pub(super) fn shelf() -> Shelf {
    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n";
    const REVOKED: &str = "-----BEGIN X509 CRL-----\nAA==\n-----END X509 CRL-----\n";
    Shelf(BTreeMap::from([
        ("/etc/weir/userlist.txt", (USERS, false)),
        ("userlist.txt", (USERS, false)),
        ("/etc/weir/open.txt", ("\"alice\" \"wonderland\"\n", true)),
        ("/etc/weir/empty.txt", ("", false)),
        ("/etc/weir/broken.txt", ("\"alice\" \"wonderland\"\nbob\n\"carol\" \"SCRAM-SHA-256$x\"\n", false)),
        ("/etc/weir/md5.txt", ("\"old\" \"md51234567890abcdef1234567890abcdef\"\n", false)),
        (
            "/etc/weir/hba.conf",
            ("host all all 127.0.0.1/32 scram-sha-256\nhost @dbs.txt all all md5\n", true),
        ),
        ("/etc/weir/dbs.txt", ("shop\nblog\n", true)),
        ("/etc/weir/groups.conf", ("host samerole all all md5\n", true)),
        ("/etc/weir/cert.conf", ("hostssl all all all cert map=mail\n", true)),
        (
            "/etc/weir/broken.conf",
            ("host all all all md5\nlocal all +dba peer\nhost all all nowhere md5\n", true),
        ),
        ("/etc/weir/ident.conf", ("mail /^(.*)@example.com$ \\1\n", true)),
        ("/etc/weir/broken_ident.conf", ("mail\n", true)),
        ("/etc/weir/weir.password", ("sesame\n", false)),
        ("/etc/weir/reporter.password", ("hush\n", false)),
        ("/etc/weir/monitor.password", ("tick\r\n", false)),
        ("/etc/weir/patroni.password", ("tock\n", false)),
        ("/etc/weir/nothing.password", ("\nsecond line\n", false)),
        ("/etc/weir/weir.crt", (CERTIFICATE, true)),
        ("/etc/weir/weir.key", (KEY, false)),
        ("/etc/weir/open.key", (KEY, true)),
        ("/etc/weir/clients-ca.crt", (CERTIFICATE, true)),
        ("/etc/weir/servers-ca.crt", (CERTIFICATE, true)),
        ("/etc/weir/patroni-ca.crt", (CERTIFICATE, true)),
        ("/etc/weir/clients.crl", (REVOKED, true)),
        ("/etc/weir/servers.crl", (REVOKED, true)),
        ("/etc/weir/shop.example.com.crt", (CERTIFICATE, true)),
        ("/etc/weir/shop.example.com.key", (KEY, false)),
        ("/etc/weir/weir-client.crt", (CERTIFICATE, true)),
        ("/etc/weir/weir-client.key", (KEY, false)),
    ]))
}

/// A password and a verifier (of the password `pencil`).
const USERS: &str = "\"alice\" \"wonderland\"\n\"weir_scram\" \"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                     WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\"\n";

/// Loads `/etc/weir/weir.toml` with this text.
pub(super) fn load_text(text: &str) -> Result<Loaded, Problems> {
    load(
        Some(Source { path: Path::new("/etc/weir/weir.toml"), text, access: crate::Access::PRIVATE }),
        &[],
        &shelf(),
    )
}

/// Loads options alone.
pub(super) fn load_options(options: &[(&'static str, &'static str, &str)]) -> Result<Loaded, Problems> {
    load(None, &overrides(options), &shelf())
}

pub(super) fn overrides(options: &[(&'static str, &'static str, &str)]) -> Vec<Override> {
    let value = |key: &str, text: &str| {
        if key.ends_with("urls") || key.ends_with("_users") {
            return Value::Words(text.split(',').map(str::to_owned).collect());
        }
        text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Number)
    };
    options.iter().map(|(option, key, text)| Override { option, key, value: value(key, text) }).collect()
}

/// What is shown for every setting that has a value.
pub(super) fn shown(loaded: &Loaded) -> Vec<String> {
    let lines = crate::KEYS.iter().map(|key| (key.path, (key.show)(&loaded.config)));
    lines.filter(|(_, value)| !value.is_empty()).map(|(path, value)| format!("{path} = {value}")).collect()
}
