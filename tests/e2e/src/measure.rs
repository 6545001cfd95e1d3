//! What a process costs, read from /proc. Knows nothing of what the process does.

use std::fs;

use anyhow::{Context, Result};

/// User plus system CPU time since the process began, in microseconds. The kernel counts in ticks of 10 ms.
///
/// # Errors
/// The process is gone.
pub fn cpu_micros(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("/proc/{pid}/stat reads {stat}"))?;
    Ok(ticks * 1_000_000 / rustix::param::clock_ticks_per_second())
}

/// Resident memory in bytes.
///
/// # Errors
/// The process is gone or belongs to somebody else.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    kilobytes(&text, "Rss:").with_context(|| format!("no Rss in {path}"))
}

/// The most resident memory the process ever had, in bytes.
///
/// # Errors
/// The process is gone.
pub fn resident_peak_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    kilobytes(&text, "VmHWM:").with_context(|| format!("no VmHWM in {path}"))
}

/// Open file descriptors.
///
/// # Errors
/// The process is gone or belongs to somebody else.
pub fn open_files(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Lets this process and the children it starts open as many files as the system allows.
///
/// # Errors
/// The kernel refused.
pub fn raise_file_limit() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(())
}

fn kilobytes(text: &str, label: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(label))?;
    Some(value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn cpu_ticks(stat: &str) -> Option<u64> {
    // The program's name in brackets may hold spaces; the state behind it is field 3.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(USER_TIME_FIELD - 3);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

const USER_TIME_FIELD: usize = 14;

#[cfg(test)]
mod tests {
    use super::cpu_ticks;

    #[test]
    fn a_bracket_in_the_name_does_not_shift_the_fields() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 1 0";
        assert_eq!(cpu_ticks(stat), Some(42));
    }
}
