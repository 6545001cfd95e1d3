//! Files, environment variables and the machine's own addresses for the configuration's checks. Understands none of them.

use std::env::{self, VarError};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use rustix::process::geteuid;
use weir_config::{Access, FileContents, Files, Owner};

/// The file system, and what the process was started with.
pub(crate) struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> Result<FileContents, String> {
        let read = || -> io::Result<FileContents> {
            let mut file = File::open(path)?;
            let metadata = file.metadata()?;
            // Room for all of it: a buffer that grows leaves copies of its contents behind.
            let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default() + 1);
            file.read_to_end(&mut bytes)?;
            Ok(FileContents { bytes: bytes.into(), access: access(path, &metadata) })
        };
        read().map_err(|error| for_people(&error))
    }

    fn variable(&self, name: &str) -> Result<String, String> {
        env::var(name).map_err(|error| match error {
            VarError::NotPresent => "is not set".to_owned(),
            VarError::NotUnicode(_) => "is not UTF-8 text".to_owned(),
        })
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, String> {
        let list =
            || -> io::Result<Vec<PathBuf>> { fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect() };
        list().map_err(|error| for_people(&error))
    }

    fn has_feature(&self, name: &str) -> bool {
        (name == "ldap" && cfg!(feature = "ldap")) || (name == "pam" && cfg!(feature = "pam"))
    }

    fn networks(&self) -> Result<Vec<(IpAddr, IpAddr)>, String> {
        let interfaces = getifaddrs().map_err(|error| error.desc().to_owned())?;
        Ok(interfaces.filter_map(|interface| network(interface.address?, interface.netmask?)).collect())
    }
}

fn network(address: SockaddrStorage, mask: SockaddrStorage) -> Option<(IpAddr, IpAddr)> {
    Some(match (address.as_sockaddr_in(), mask.as_sockaddr_in()) {
        (Some(address), Some(mask)) => (address.ip().into(), mask.ip().into()),
        (_, _) => (address.as_sockaddr_in6()?.ip().into(), mask.as_sockaddr_in6()?.ip().into()),
    })
}

fn access(path: &Path, metadata: &Metadata) -> Access {
    // systemd keeps its credentials from others by access control lists, which these bits do not show.
    if env::var_os(CREDENTIALS).is_some_and(|directory| path.starts_with(directory)) {
        return Access::PRIVATE;
    }
    let owner = match metadata.uid() {
        0 => Owner::Root,
        uid if uid == geteuid().as_raw() => Owner::Weir,
        _ => Owner::Other,
    };
    Access { mode: metadata.mode() & 0o777, owner }
}

/// An error's words without the system's number for it, wherever it stands.
pub(crate) fn for_people(error: &impl ToString) -> String {
    let text = error.to_string();
    match text.split_once(" (os error ") {
        Some((words, rest)) => {
            format!("{words}{}", rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ')'))
        }
        None => text,
    }
}

/// Where systemd puts what `LoadCredential=` names (systemd.exec(5), "Credentials").
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

#[cfg(test)]
mod tests {
    //! Errors read like sentences.

    use super::for_people;

    #[test]
    fn the_system_s_number_is_left_out() {
        let error = std::io::Error::from_raw_os_error(2);
        assert_eq!(for_people(&error), "No such file or directory");
        assert_eq!(
            for_people(&format!("cannot listen: {error}; really")),
            "cannot listen: No such file or directory; really"
        );
        assert_eq!(for_people(&"nothing special"), "nothing special");
    }
}
