//! Times of the operations that must not creep: `cargo bench -p ffmesh-bench`.
#![allow(clippy::print_stderr, reason = "a benchmark says what it could not do")]

use criterion::Criterion;
use ffmesh_bench::operations::OPERATIONS;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for operation in OPERATIONS {
        match operation.prepare() {
            Ok(mut job) => _ = criterion.bench_function(operation.name, |bencher| bencher.iter(&mut job)),
            Err(e) => eprintln!("{}: {e}", operation.name),
        }
    }
    criterion.final_summary();
}
