//! Passwords that others judge: Debian's slapd, and a PAM service. weir has to be built with both cargo features
//! (`cargo build -p weir --features ldap,pam`), as `scripts/test.sh` does.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use weir_cluster::process::{Process, run};
use weir_cluster::wait::{Limit, until};
use weir_cluster::{Authority, Postgres, PostgresOptions, RunDir, free_ports};
use weir_e2e::libpq::whoami;
use weir_e2e::stack::{Setup, Stack};
use weir_e2e::wire::PATIENCE;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// `ann` and `bob` are who they seem to be; two entries have one mail address.
const ENTRIES: &str = "dn: dc=example,dc=com\nobjectClass: dcObject\nobjectClass: organization\no: x\ndc: example\n\n\
    dn: ou=people,dc=example,dc=com\nobjectClass: organizationalUnit\nou: people\n\n\
    dn: uid=ann,ou=people,dc=example,dc=com\nobjectClass: inetOrgPerson\ncn: a\nsn: a\nuid: ann\nmail: both\n\
    userPassword: ann secret\n\n\
    dn: uid=bob,ou=people,dc=example,dc=com\nobjectClass: inetOrgPerson\ncn: b\nsn: b\nuid: bob\nmail: both\n\
    userPassword: bob secret\n";

/// A directory on a free port, with an administrator who may search where nobody else may.
struct Slapd {
    process: Process,
    port: u16,
    folder: RunDir,
}

impl Slapd {
    async fn start() -> Result<Self> {
        let folder = RunDir::create("slapd")?;
        let [port] = free_ports(LOCALHOST)?;
        let data = folder.folder("data")?;
        let authority = Authority::new()?;
        let own = authority.issue("localhost", &[])?;
        folder.write("ca.crt", &authority.certificate_pem())?;
        let certificate = folder.write("slapd.crt", &own.certificate_pem)?;
        let key = folder.write("slapd.key", &own.key_pem)?;
        let config = format!(
            "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
             include /etc/ldap/schema/inetorgperson.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n\
             TLSCertificateFile {}\nTLSCertificateKeyFile {}\ndatabase mdb\nsuffix \"dc=example,dc=com\"\n\
             rootdn \"cn=admin,dc=example,dc=com\"\nrootpw \"admin secret\"\ndirectory {}\n\
             access to attrs=userPassword by anonymous auth by * none\naccess to * by * none\n",
            certificate.display(),
            key.display(),
            data.display(),
        );
        let config = folder.write("slapd.conf", &config)?;
        let entries = folder.write("entries.ldif", ENTRIES)?;
        let tool = |name: &str| {
            let mut command = Command::new(Path::new("/usr/sbin").join(name));
            command.arg("-f").arg(&config);
            command
        };
        let mut add = tool("slapadd");
        add.arg("-l").arg(entries);
        run(add, folder.path(), &folder.log("slapadd"), PATIENCE).await?;
        let mut serve = tool("slapd");
        serve.args(["-d", "0", "-h", &format!("ldap://127.0.0.1:{port}")]);
        let process = Process::start(serve, folder.path(), &folder.log("slapd"))?;
        let connect = async || TcpStream::connect((LOCALHOST, port)).ok();
        until("slapd to listen", Limit::quick(PATIENCE), connect).await?;
        Ok(Self { process, port, folder })
    }

    /// Options for it, as an administrator would write them.
    fn options(&self, more: &str) -> String {
        format!("ldapserver=localhost ldapport={} {more}", self.port)
    }
}

const NAMED: &str = r#"ldapprefix="uid=" ldapsuffix=",ou=people,dc=example,dc=com""#;
const SOUGHT: &str =
    r#"ldapbasedn="dc=example,dc=com" ldapbinddn="cn=admin,dc=example,dc=com" ldapbindpasswd="admin secret""#;

/// PostgreSQL where the same passwords count.
async fn postgres() -> Result<Postgres> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let sql = "CREATE ROLE ann LOGIN PASSWORD 'ann secret'; CREATE ROLE bob LOGIN PASSWORD 'bob secret'";
    postgres.superuser(sql).await?;
    Ok(postgres)
}

async fn says(stack: &Stack, user: &str, password: &str) -> Result<String, String> {
    whoami(stack, &format!("user='{user}' password='{password}' sslmode=disable")).await
}

#[track_caller]
fn is_refused(seen: &Result<String, String>, why: &str) {
    assert!(seen.as_ref().is_err_and(|complaint| complaint.contains(why)), "{seen:?} is not {why}");
}

const WRONG: &str = "password authentication failed";

#[tokio::test]
async fn a_directory_judges_passwords_by_hba_rule() -> Result<()> {
    let mut slapd = Slapd::start().await?;
    let rules = [
        format!("host all ann all ldap {}", slapd.options(NAMED)),
        format!("host all /^[b*] all ldap {}", slapd.options(SOUGHT)),
        format!("host all both all ldap {}", slapd.options(&format!("{SOUGHT} ldapsearchattribute=mail"))),
        format!("host all \"/^ann,\" all ldap {}", slapd.options(NAMED)),
    ];
    let stack = Setup::new()
        .set("auth", "type = \"hba\"")
        .set("auth", "hba_file = \"hba.conf\"")
        .set("auth", "failed_login_delay_max = 0")
        .file("hba.conf", &(rules.join("\n") + "\n"))
        .start_before(postgres().await?)
        .await?;
    assert_eq!(says(&stack, "ann", "ann secret").await.as_deref(), Ok("ann"));
    assert_eq!(says(&stack, "bob", "bob secret").await.as_deref(), Ok("bob"));
    for (user, password) in [
        ("ann", "bob secret"),
        ("bob", "ann secret"),
        // Two entries fit, one of them with this password.
        ("both", "ann secret"),
        // As a filter it would find somebody, as a part of a name it would end it.
        ("b*", "bob secret"),
        ("ann,ou=people,dc=example,dc=com", "ann secret"),
    ] {
        is_refused(&says(&stack, user, password).await, WRONG);
    }
    slapd.process.stop(Signal::KILL, PATIENCE).await?;
    is_refused(&says(&stack, "ann", "ann secret").await, "the password could not be checked");
    Ok(())
}

// covers: auth_ldap_options
#[tokio::test]
async fn a_directory_judges_everybodys_password_over_tls() -> Result<()> {
    let slapd = Slapd::start().await?;
    let options = slapd.options(&format!("{SOUGHT} ldaptls=1 ldapsearchfilter=(&(uid=$username)(cn=a))"));
    let authorities = slapd.folder.path().join("ca.crt").display().to_string();
    let stack = Setup::new()
        .set("auth", "type = \"ldap\"")
        .set("auth", &format!("ldap_options = '{options}'"))
        .env("SSL_CERT_FILE", &authorities)
        .start_before(postgres().await?)
        .await?;
    assert_eq!(says(&stack, "ann", "ann secret").await.as_deref(), Ok("ann"));
    is_refused(&says(&stack, "ann", "guess").await, WRONG);
    // The filter lets him out.
    is_refused(&says(&stack, "bob", "bob secret").await, WRONG);
    Ok(())
}

#[tokio::test]
async fn a_directory_whose_certificate_nobody_vouches_for_is_told_no_password() -> Result<()> {
    let slapd = Slapd::start().await?;
    let stack = Setup::new()
        .set("auth", "type = \"ldap\"")
        .set("auth", &format!("ldap_options = '{}'", slapd.options(&format!("{NAMED} ldaptls=1"))))
        .start_before(postgres().await?)
        .await?;
    is_refused(&says(&stack, "ann", "ann secret").await, "the password could not be checked");
    Ok(())
}

/// A PAM service that goes when this is dropped.
struct Service(PathBuf);

impl Service {
    fn install(name: &str, rules: &str) -> Result<Self> {
        let file = Path::new("/etc/pam.d").join(name);
        fs::write(&file, rules).context("PAM services are made by root")?;
        Ok(Self(file))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

#[tokio::test]
async fn pam_judges_passwords() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let folder = RunDir::create("pam")?;
    let script =
        folder.write("check.sh", "#!/bin/sh\nread -r given\n[ \"$given\" = \"$PAM_USER secret\" ]\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let name = format!("weir-test-{}", std::process::id());
    let rules = format!(
        "auth required pam_exec.so expose_authtok quiet {}\naccount [success=1 default=ignore] pam_succeed_if.so quiet user != bob\n\
         account requisite pam_deny.so\naccount required pam_permit.so\n",
        script.display()
    );
    let _service = Service::install(&name, &rules)?;
    let stack = Setup::new()
        .set("auth", "type = \"hba\"")
        .set("auth", "hba_file = \"hba.conf\"")
        .file("hba.conf", &format!("host all all all pam pamservice={name}\n"))
        .start_before(postgres().await?)
        .await?;
    assert_eq!(says(&stack, "ann", "ann secret").await.as_deref(), Ok("ann"));
    is_refused(&says(&stack, "ann", "guess").await, WRONG);
    // Right, but the account may not be used.
    is_refused(&says(&stack, "bob", "bob secret").await, WRONG);
    ensure!(stack.wire().await.is_err(), "the user list is not asked");
    Ok(())
}
