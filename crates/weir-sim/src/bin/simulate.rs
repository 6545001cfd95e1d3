//! `simulate FROM TO`: tells the stories of these seeds (TO is not one of them) and stops at the first that breaks a law,
//! which is printed with all that happened. `scripts/simulate.sh` runs one for each core.

use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let [from, to] = numbers[..] else {
        return say(&mut io::stderr(), "usage: simulate FROM TO", ExitCode::from(2));
    };
    // A broken law is told with its story.
    std::panic::set_hook(Box::new(|_| {}));
    match (from..to).find_map(|seed| weir_sim::tell(seed).err()) {
        Some(story) => say(&mut io::stdout(), &story, ExitCode::FAILURE),
        None => ExitCode::SUCCESS,
    }
}

fn say(to: &mut dyn Write, text: &str, code: ExitCode) -> ExitCode {
    // Where nobody listens the exit code has to do.
    let _ = writeln!(to, "{text}");
    code
}
