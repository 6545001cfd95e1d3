//! Where log lines go: standard error, a file that is opened anew on demand, syslog. Knows no event.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;
use weir_config::{Log, Syslog};

/// All of them. Copies share one set.
#[derive(Clone)]
pub(super) struct Sinks(Arc<Mutex<Open>>);

struct Open {
    standard_error: bool,
    file: Option<LogFile>,
    syslog: Option<Sender>,
}

struct LogFile {
    path: PathBuf,
    file: File,
}

impl Sinks {
    /// # Errors
    /// The log file cannot be opened; in words for people.
    pub(super) fn open(log: &Log, standard_error: bool) -> Result<Self, String> {
        let file = log.file.as_deref().map(LogFile::open).transpose()?;
        let syslog = log.syslog.clone().map(Sender::new);
        Ok(Self(Arc::new(Mutex::new(Open { standard_error, file, syslog }))))
    }

    /// Goes on with other files. One that cannot be opened leaves the former in use.
    pub(super) fn change(&self, log: &Log) -> Result<(), String> {
        self.lock().syslog = log.syslog.clone().map(Sender::new);
        let is_same = self.lock().file.as_ref().map(|file| &file.path) == log.file.as_ref();
        if !is_same {
            let file = log.file.as_deref().map(LogFile::open).transpose()?;
            self.lock().file = file;
        }
        Ok(())
    }

    /// Opens the file of that name anew: it may have been moved away.
    pub(super) fn reopen(&self) -> Result<(), String> {
        let Some(path) = self.lock().file.as_ref().map(|file| file.path.clone()) else { return Ok(()) };
        let file = LogFile::open(&path)?;
        self.lock().file = Some(file);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // A line that was cut short by a panic is no reason to lose the ones that explain it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogFile {
    fn open(path: &Path) -> Result<Self, String> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|error| {
            format!("cannot write to the log file {}: {}", path.display(), crate::disk::for_people(&error))
        })?;
        Ok(Self { path: path.to_owned(), file })
    }
}

impl<'a> MakeWriter<'a> for Sinks {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { sinks: self.clone(), level: Level::INFO }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        Line { sinks: self.clone(), level: *metadata.level() }
    }
}

/// Takes one event's line, in one piece.
pub(super) struct Line {
    sinks: Sinks,
    level: Level,
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut open = self.sinks.lock();
        // There is nobody left to tell about a sink that cannot be written to, and the others still can.
        if open.standard_error {
            let _ = io::stderr().write_all(line);
        }
        if let Some(file) = &mut open.file {
            let _ = file.file.write_all(line);
        }
        if let Some(syslog) = &open.syslog {
            syslog.send(self.level, line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Speaks RFC 3164 to the local syslog.
struct Sender {
    socket: Option<UnixDatagram>,
    to: PathBuf,
    settings: Syslog,
}

impl Sender {
    fn new(settings: Syslog) -> Self {
        let socket = UnixDatagram::unbound().and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
        Self { socket: socket.ok(), to: PathBuf::from(SYSLOG_SOCKET), settings }
    }

    fn send(&self, level: Level, line: &[u8]) {
        if let Some(socket) = &self.socket {
            // A syslog that is away or slow must not hold up anything; its line is lost.
            let _ = socket.send_to(&self.message(level, line), &self.to);
        }
    }

    fn message(&self, level: Level, line: &[u8]) -> Vec<u8> {
        let Syslog { ident, facility } = &self.settings;
        let priority = facility_code(facility) * 8 + severity(level);
        let line = line.trim_ascii_end();
        // syslog has a clock and a process id of its own.
        let bracket = line.windows(2).position(|pair| pair == b"] ");
        let text = bracket.and_then(|at| line.get(at + 2..)).unwrap_or(line);
        let mut message = format!("<{priority}>{ident}[{}]: ", process::id()).into_bytes();
        message.extend_from_slice(text);
        message
    }
}

/// RFC 5424, table 2.
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// RFC 5424, table 1; the configuration knows these names only.
fn facility_code(name: &str) -> u8 {
    match name {
        "user" => 1,
        "auth" => 4,
        "authpriv" => 10,
        _ => match name.strip_prefix("local").and_then(|number| number.parse::<u8>().ok()) {
            Some(number @ 0..=7) => 16 + number,
            Some(_) | None => 3,
        },
    }
}

const SYSLOG_SOCKET: &str = "/dev/log";

#[cfg(test)]
mod tests {
    //! Lines reach each sink once, and a file that was moved away is made anew.
    #![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::fs;
    use std::time::Duration;

    use weir_config::LogFormat;

    use super::*;

    #[test]
    fn syslog_s_line_has_priority_and_name_and_no_clock_of_ours() {
        let settings = |facility: &str| Syslog { ident: "pool".to_owned(), facility: facility.to_owned() };
        let message = |facility, level, line: &str| {
            String::from_utf8(Sender::new(settings(facility)).message(level, line.as_bytes())).unwrap()
        };
        let id = process::id();
        assert_eq!(
            message("local3", Level::WARN, "2026-11-21 01:23:45.678 UTC [4711] WARNING hello] there\n"),
            format!("<156>pool[{id}]: WARNING hello] there")
        );
        assert_eq!(message("daemon", Level::INFO, "{}\n"), format!("<30>pool[{id}]: {{}}"));
    }

    // covers: syslog syslog_ident syslog_facility
    #[test]
    fn a_line_arrives_at_syslog_if_it_is_wanted_there() {
        let directory = std::env::temp_dir().join(format!("weir-syslog-{}", process::id()));
        fs::create_dir_all(&directory).unwrap();
        let receiver = UnixDatagram::bind(directory.join("log")).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let sinks = |syslog: Option<(&str, &str)>| {
            let syslog = syslog
                .map(|(ident, facility)| Syslog { ident: ident.to_owned(), facility: facility.to_owned() });
            let log = Log {
                format: LogFormat::Text,
                level: "info".to_owned(),
                file: None,
                syslog,
                connections: true,
                disconnections: true,
                pooler_errors: true,
                stats: true,
                stats_period: Duration::from_secs(60),
            };
            let sinks = Sinks::open(&log, false).unwrap();
            if let Some(sender) = &mut sinks.lock().syslog {
                sender.to = directory.join("log");
            }
            sinks.make_writer().write_all(b"x] INFO y\n").unwrap();
            let mut buffer = [0; 100];
            receiver.recv(&mut buffer).ok().map(|length| String::from_utf8(buffer[..length].into()).unwrap())
        };
        let id = process::id();
        assert_eq!(sinks(None), None);
        assert_eq!(sinks(Some(("i", "user"))), Some(format!("<14>i[{id}]: INFO y")));
        assert_eq!(sinks(Some(("pool", "local7"))), Some(format!("<190>pool[{id}]: INFO y")));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_file_is_appended_to_and_made_anew_when_it_was_moved() {
        let directory = std::env::temp_dir().join(format!("weir-log-{}", process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (path, moved) = (directory.join("weir.log"), directory.join("weir.log.1"));
        fs::write(&path, "before\n").unwrap();
        let sinks = Sinks(Arc::new(Mutex::new(Open {
            standard_error: false,
            file: Some(LogFile::open(&path).unwrap()),
            syslog: None,
        })));
        sinks.make_writer().write_all(b"one\n").unwrap();
        fs::rename(&path, &moved).unwrap();
        sinks.make_writer().write_all(b"two\n").unwrap();
        sinks.reopen().unwrap();
        sinks.make_writer().write_all(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&moved).unwrap(), "before\none\ntwo\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "three\n");
        fs::remove_dir_all(directory).unwrap();
    }
}
