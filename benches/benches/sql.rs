//! Time that the lexer needs to tell what a query text holds.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use weir_benches::TEXTS;
use weir_protocol::sql;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("classify");
    for (name, text) in TEXTS {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| sql::classify(black_box(text.as_bytes()))));
    }
    group.finish();
    criterion.final_summary();
}
