//! Files for the configuration's checks. Understands none of them.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use weir_config::{FileContents, Files};

/// The file system.
pub(crate) struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> Result<FileContents, String> {
        let read = || -> io::Result<FileContents> {
            let world_readable = fs::metadata(path)?.permissions().mode() & READABLE_BY_OTHERS != 0;
            Ok(FileContents { bytes: fs::read(path)?.into(), world_readable })
        };
        read().map_err(|error| for_people(&error))
    }
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

const READABLE_BY_OTHERS: u32 = 0o004;

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
