//! Time and allocations of a key's check (goal 1 us) and of a quota's check and settlement (goal 2 us).

use std::hint::black_box;

use allocation_counter::measure;
use criterion::{Criterion, criterion_group, criterion_main};
use speechstack_proxy::timing::Door;

type Call = fn(&Door) -> bool;

/// Calls whose allocations are counted.
const CALLS: u64 = 1000;

fn bench(criterion: &mut Criterion) {
    let door = match Door::new() {
        Ok(door) => door,
        Err(error) => return eprintln!("unable to make keys: {error:#}"),
    };
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let rows: [(&str, Call); 3] =
        [("key check", Door::key), ("caller", Door::caller), ("quota check and settle", Door::quota)];
    let mut group = criterion.benchmark_group("edge");
    for (name, call) in rows {
        assert!(call(&door), "{name} is refused");
        let counted = measure(|| {
            for _ in 0..CALLS {
                black_box(call(&door));
            }
        });
        println!("{name}, {profile}: {} allocations a call", counted.count_total as f64 / CALLS as f64);
        group.bench_function(format!("{name}, {profile}"), |bencher| {
            bencher.iter(|| assert!(call(black_box(&door))));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
