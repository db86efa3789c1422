//! Time of a merge: 10,000 words (an hour), 30,000 (three) and 100,000 (ten), under both rules.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mimalloc::MiMalloc;
use speechstack_proxy::transcript::{Params, Rule, Turn, Word, merge};

/// As in the binary.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// A meeting of four: about six and a half words a turn, words up to 0.15 s off, one in twenty without length,
/// some turns talked into. The numbers are the same in every run.
fn meeting(count: usize) -> (Vec<Word>, Vec<Turn>) {
    let mut state = 7u64;
    let mut random = |limit: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    };
    let (mut words, mut turns) = (Vec::with_capacity(count), Vec::new());
    let mut now = 0.0;
    while words.len() < count {
        let (start, length) = (now, 1 + random(12).min((count - words.len() - 1) as u64));
        for index in 1..=length {
            let duration = 0.1 + random(300) as f64 / 1000.0;
            let late = random(300) as f64 / 1000.0 - 0.15;
            let shown = if random(20) == 0 { 0.0 } else { duration };
            let any = ["budget", "yeah", "the", "go"][random(4) as usize];
            let text = if index == length { "word." } else { any };
            words.push(Word { start: now + late, end: now + late + shown, text: text.to_owned() });
            now += duration;
        }
        turns.push(Turn { start, end: now, speaker: format!("Speaker_{}", random(4)) });
        now += random(900) as f64 / 1000.0 - 0.3;
    }
    (words, turns)
}

fn bench(criterion: &mut Criterion) {
    for (name, rule) in [("continuity", Rule::Continuity), ("legacy", Rule::Legacy)] {
        let mut group = criterion.benchmark_group(name);
        for count in [10_000, 30_000, 100_000] {
            let (words, turns) = meeting(count);
            let params = Params { rule, language: Some("en"), confidences: false };
            group.throughput(Throughput::Elements(count as u64));
            let id = BenchmarkId::from_parameter(format!("{count} words, {} turns", turns.len()));
            group.bench_function(id, |bencher| {
                bencher.iter(|| merge(black_box(&words), black_box(&turns), &params));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
