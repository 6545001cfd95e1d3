//! Time that one core needs for one round trip between a client and its server connection, without the system calls.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use weir_benches::{CASES, World};

fn main() -> anyhow::Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("turn");
    for case in &CASES {
        let (mut world, conversation) = World::new(case)?;
        group.throughput(Throughput::Elements(1));
        group.bench_function(case.name, |bencher| {
            bencher.iter(|| world.round_trip(black_box(&conversation)));
        });
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}
