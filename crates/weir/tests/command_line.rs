//! The program as it is typed: what it prints where, and how it ends. Starts nothing that listens.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Exit status, standard output and standard error of `weir` with these arguments.
#[track_caller]
fn weir(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_weir")).args(arguments).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A directory with a user list and a configuration file.
fn directory(name: &str, config: &str) -> PathBuf {
    let directory =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("weir-{name}-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("userlist.txt"), "\"alice\" \"wonderland\"\n").unwrap();
    fs::write(directory.join("weir.toml"), config).unwrap();
    directory
}

#[test]
fn version_and_help_go_to_standard_output() {
    assert_eq!(weir(&["--version"]), (0, format!("weir {}\n", env!("CARGO_PKG_VERSION")), String::new()));
    let (code, help, _) = weir(&["--help"]);
    assert_eq!(code, 0);
    assert!(help.lines().all(|line| line.len() <= 110), "{help}");
}

#[test]
fn without_arguments_it_says_how_to_use_it() {
    let (code, out, error) = weir(&[]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(error.contains("Usage: weir"), "{error}");
}

#[test]
fn a_good_file_is_called_good_and_warned_about() {
    use std::os::unix::fs::PermissionsExt;
    let directory = directory("good", "[patroni]\nurls = [\"http://n1\"]\n[auth]\nfile = \"userlist.txt\"\n");
    let (list, file) = (directory.join("userlist.txt"), directory.join("weir.toml"));
    let file = file.to_str().unwrap();
    for (mode, warned) in [(0o600, false), (0o644, true)] {
        fs::set_permissions(&list, fs::Permissions::from_mode(mode)).unwrap();
        let (code, out, error) = weir(&["--check-config", file]);
        assert_eq!((code, out), (0, format!("{file}: the configuration is good\n")));
        assert_eq!(error.contains("warning: ") && error.contains("o-rwx"), warned, "{error}");
    }
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_bad_file_ends_with_2_and_all_its_problems() {
    let directory =
        directory("bad", "[patroni]\nurls = []\n[auth]\nfile = \"nowhere.txt\"\n[pool]\nsize = -1\n");
    let file = directory.join("weir.toml");
    let file = file.to_str().unwrap();
    for arguments in [vec!["--check-config", file], vec![file]] {
        let (code, out, error) = weir(&arguments);
        let places: Vec<_> = error.lines().map(|line| line.split(": ").next().unwrap_or_default()).collect();
        assert_eq!((code, out.as_str()), (2, ""));
        assert_eq!(
            places,
            [format!("{file}:2"), format!("{file}:4"), format!("{file}:6"), "weir".to_owned()]
        );
        assert!(error.ends_with("weir: 3 problems in the configuration\n"), "{error}");
    }
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let (code, _, error) = weir(&["/nonexistent/weir.toml"]);
    assert_eq!(code, 2);
    assert_eq!(
        error,
        "weir: cannot read /nonexistent/weir.toml: No such file or directory; name a file that weir's user can read\n"
    );
}

// covers: workers
#[test]
fn nobody_is_let_in_by_silence_and_several_workers_are_refused() {
    let (code, _, error) = weir(&["--upstream", "postgres://127.0.0.1:5432", "--workers", "2"]);
    assert_eq!(code, 2);
    assert!(error.contains("psql -h 127.0.0.1 -p 5432 -U postgres -XAtc"), "{error}");
    assert!(error.contains("--workers: 2 workers are not supported in this version"), "{error}");
}

#[test]
fn a_password_on_the_command_line_is_not_repeated() {
    let (code, _, error) = weir(&["--upstream", "postgres://u:hunter2@h:port"]);
    assert_eq!(code, 2);
    assert!(!error.contains("hunter2"), "{error}");
}
