//! libFuzzer's entry. The environment variable `WEIR_FUZZ_TARGET` names the target.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use weir_fuzz::TARGETS;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("WEIR_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    found.map(|(_, target)| *target).expect("WEIR_FUZZ_TARGET names one of weir_fuzz::TARGETS")
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
