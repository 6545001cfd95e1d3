//! Every input that was worth keeping still holds, and every target has some.

use std::fs;
use std::path::Path;

use weir_fuzz::TARGETS;

#[test]
fn every_target_takes_its_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in TARGETS {
        let inputs = fs::read_dir(corpus.join(name)).expect("every target has a corpus");
        let mut count = 0;
        for input in inputs {
            let path = input.expect("it can be listed").path();
            let bytes = fs::read(&path).expect("it can be read");
            let outcome = std::panic::catch_unwind(|| target(&bytes));
            assert!(outcome.is_ok(), "{}", path.display());
            count += 1;
        }
        assert!(count > 0, "{name} has an empty corpus");
    }
}

#[test]
fn every_corpus_has_a_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in fs::read_dir(corpus).expect("there is a corpus") {
        let path = entry.expect("it can be listed").path();
        let Some(name) = path.file_name().filter(|_| path.is_dir()) else { continue };
        assert!(TARGETS.iter().any(|(known, _)| **known == *name), "{name:?}");
    }
}
