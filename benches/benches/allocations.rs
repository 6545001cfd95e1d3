//! Allocations of one round trip, counted: the query path reuses its buffers, so one is too many. Prints a table. Takes
//! names of cases as arguments to run only those, so that a profiler sees one kind of round trip.

#![expect(clippy::print_stdout, reason = "the table is all that this program is for")]

use std::alloc::System;

use anyhow::ensure;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use weir_benches::{CASES, Case, World};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    println!("{:<20} {:>12} {:>14} {:>12}", "per round trip", "allocations", "reallocations", "bytes");
    for case in CASES.iter().filter(|case| wanted.is_empty() || wanted.iter().any(|name| name == case.name)) {
        count(case)?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "the figures are far below 2^52")]
fn count(case: &Case) -> anyhow::Result<()> {
    let (mut world, conversation) = World::new(case)?;
    let region = Region::new(ALLOCATOR);
    for _ in 0..ROUND_TRIPS {
        ensure!(world.round_trip(&conversation) == conversation.reply_bytes(), "{} went wrong", case.name);
    }
    let change = region.change();
    let per_trip = |count: usize| count as f64 / ROUND_TRIPS as f64;
    println!(
        "{:<20} {:>12.2} {:>14.2} {:>12.1}",
        case.name,
        per_trip(change.allocations),
        per_trip(change.reallocations),
        per_trip(change.bytes_allocated),
    );
    ensure!(change.allocations + change.reallocations == 0, "{} allocates", case.name);
    Ok(())
}

const ROUND_TRIPS: usize = 10_000;
