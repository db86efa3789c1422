use std::sync::atomic::AtomicUsize;

use bytesize::ByteSize;
use http_body::Body;
use http_body_util::BodyExt;
use proptest::prelude::*;

use crate::upstream::spool::*;

fn budget(memory: u64, disk: u64) -> Arc<SpoolBudget> {
    let config = config::Spool { memory_per_request: ByteSize(memory), disk: ByteSize(disk), dir: None };
    let mut budget = SpoolBudget::new(&config, IntGauge::new("held", "held").unwrap());
    // However slow the machine: tests are about bytes.
    Arc::get_mut(&mut budget).unwrap().lag_timeout = Duration::from_secs(60);
    budget
}

/// Bytes that differ from their neighbours, so that a shift shows.
fn pattern(len: usize) -> Bytes {
    (0..len).map(|at| (at.wrapping_mul(31) ^ (at >> 8)) as u8).collect::<Vec<_>>().into()
}

fn chunked(body: &Bytes, sizes: &[usize]) -> Vec<Result<Bytes, error::Error>> {
    let mut rest = body.clone();
    let mut chunks = Vec::new();
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let size = sizes.next().copied().unwrap_or(1).clamp(1, rest.len());
        chunks.push(Ok(rest.split_to(size)));
    }
    chunks
}

fn replay(body: &Bytes, sizes: &[usize], budget: &Arc<SpoolBudget>) -> Replay {
    Replay::new(futures::stream::iter(chunked(body, sizes)), None, Arc::clone(budget))
}

async fn all(reader: Reader) -> Bytes {
    reader.collect().await.unwrap().to_bytes()
}

async fn frames(reader: &mut Reader, count: usize) {
    for _ in 0..count {
        if reader.frame().await.transpose().unwrap().is_none() {
            break;
        }
    }
}

/// Until the writer rests.
async fn written(replay: &Replay) {
    while replay.shared.state.lock().kept.as_ref().is_some_and(Kept::is_writing) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_reader_gets_every_byte_wherever_the_ones_before_it_were_cut(
        len in 0_usize..700_000,
        sizes in prop::collection::vec(1_usize..100_000, 1..6),
        cuts in prop::collection::vec(0_usize..40, 0..4),
        memory in prop_oneof![Just(0_u64), Just(50_000), Just(1 << 20)],
        announced: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let body = pattern(len);
            let budget = budget(memory, 1 << 30);
            let source = futures::stream::iter(chunked(&body, &sizes));
            let replay = Replay::new(source, announced.then_some(len as u64), Arc::clone(&budget));
            for cut in cuts {
                let mut reader = replay.reader();
                frames(&mut reader, cut).await;
            }
            assert!(replay.is_replayable());
            assert_eq!(all(replay.reader()).await, body);
            assert_eq!(replay.complete().await, Ok(()));
            let (left, right) = tokio::join!(all(replay.reader()), all(replay.reader()));
            assert_eq!(left, body);
            assert_eq!(right, body);
        });
    }
}

#[tokio::test]
async fn the_first_pass_shares_the_bytes_of_the_source() {
    let chunk = pattern(70_000);
    let source = futures::stream::iter([Ok(chunk.clone())]);
    let replay = Replay::new(source, None, budget(1 << 20, 0));
    let frame = replay.reader().frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(frame.as_ptr(), chunk.as_ptr());
}

#[tokio::test]
async fn nothing_is_pulled_while_no_reader_is_polled() {
    let pulled = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&pulled);
    let source = futures::stream::repeat_with(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(Bytes::from_static(&[7; 1024]))
    });
    let replay = Replay::new(source, None, budget(1 << 20, 0));
    let mut reader = replay.reader();
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(pulled.load(Ordering::Relaxed), 0);
    frames(&mut reader, 3).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(pulled.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn memory_stays_bounded_and_what_a_body_held_is_given_back() {
    let body = pattern(3_000_000);
    let budget = budget(100_000, 1 << 30);
    let replay = replay(&body, &[10_000], &budget);
    let mut reader = replay.reader();
    let mut most = 0;
    while reader.frame().await.transpose().unwrap().is_some() {
        most = most.max(replay.shared.state.lock().kept.as_ref().unwrap().in_memory());
    }
    assert!(most <= 100_000 + kept::WRITE_BEHIND + 10_000, "{most}");
    assert_eq!(budget.held.get(), 3_000_000);
    written(&replay).await;
    assert!(budget.on_disk() >= 3_000_000 - kept::BLOCK as u64);
    drop((reader, replay));
    assert_eq!(budget.held.get(), 0);
    assert_eq!(budget.on_disk(), 0);
}

#[tokio::test]
async fn a_body_of_tiny_chunks_is_kept_without_them() {
    let body = pattern(20_000);
    let chunks =
        chunked(&body, &[1]).into_iter().map(|chunk| chunk.map(|chunk| Bytes::copy_from_slice(&chunk)));
    let last = Bytes::from(vec![7; 8]);
    let source = futures::stream::iter(chunks).chain(futures::stream::iter([Ok(last.clone())]));
    let replay = Replay::new(source, None, budget(100_000, 1 << 20));
    let all_of_it = [&body[..], &last[..]].concat();
    assert_eq!(all(replay.reader()).await, all_of_it);
    assert!(last.is_unique(), "its memory is free again");
    assert_eq!(all(replay.reader()).await, all_of_it);
}

#[tokio::test]
async fn nothing_is_written_of_a_body_that_cannot_be_kept_to_its_end() {
    let body = pattern(2_000_000);
    let budget = budget(100_000, 1_999_999);
    let source = futures::stream::iter(chunked(&body, &[50_000]));
    let replay = Replay::new(source, Some(2_000_000), Arc::clone(&budget));
    let mut reader = replay.reader();
    frames(&mut reader, 4).await;
    written(&replay).await;
    assert_eq!((replay.is_replayable(), budget.on_disk()), (false, 0));
    // The stream goes on.
    assert_eq!(all(reader).await.len(), 1_800_000);
}

#[tokio::test]
async fn an_exhausted_budget_costs_the_replay_and_not_the_request() {
    let body = pattern(2_000_000);
    let budget = budget(100_000, 500_000);
    let replay = replay(&body, &[50_000], &budget);
    assert_eq!(all(replay.reader()).await, body);
    written(&replay).await;
    assert!(!replay.is_replayable());
    assert_eq!(budget.on_disk(), 0);
    assert_eq!(budget.held.get(), 0);
    let failure = replay.reader().frame().await.unwrap().unwrap_err();
    assert!(matches!(failure, Error::GivenUp));
}

#[tokio::test]
async fn an_unusable_folder_costs_the_replay_and_not_the_request() {
    let config = config::Spool {
        memory_per_request: ByteSize(0),
        disk: ByteSize::gib(1),
        dir: Some("/proc/nowhere".into()),
    };
    let body = pattern(500_000);
    let replay = replay(&body, &[50_000], &SpoolBudget::new(&config, IntGauge::new("held", "held").unwrap()));
    assert_eq!(all(replay.reader()).await, body);
    written(&replay).await;
    assert!(!replay.is_replayable());
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_stalls_costs_the_replay_and_not_the_request() {
    let body = pattern(2_000_000);
    let replay = replay(&body, &[50_000], &budget(100_000, 1 << 30));
    replay.shared.state.lock().kept.as_mut().unwrap().stall();
    let begun = tokio::time::Instant::now();
    assert_eq!(all(replay.reader()).await, body);
    assert!(!replay.is_replayable());
    assert!(begun.elapsed() <= Duration::from_secs(61), "it waits once");
}

#[tokio::test]
async fn a_failing_source_is_remembered() {
    let source = futures::stream::iter([Ok(Bytes::from_static(b"abc")), Err(error::Error::Truncated)]);
    let replay = Replay::new(source, None, budget(1024, 0));
    let failure = replay.reader().collect().await.unwrap_err();
    assert!(matches!(failure, Error::Source(error::Error::Truncated)));
    assert_eq!(replay.failure(), Some(error::Error::Truncated));
    assert_eq!(replay.complete().await, Err(error::Error::Truncated));
}

#[tokio::test]
async fn a_body_shorter_or_longer_than_announced_is_truncated() {
    for announced in [2, 4] {
        let source = futures::stream::iter([Ok(Bytes::from_static(b"abc"))]);
        let replay = Replay::new(source, Some(announced), budget(1024, 0));
        assert!(replay.reader().collect().await.is_err());
        assert_eq!(replay.failure(), Some(error::Error::Truncated));
    }
}

#[tokio::test]
async fn the_last_announced_byte_ends_the_source() {
    let source = futures::stream::iter([Ok(Bytes::from_static(b"abc"))]).chain(futures::stream::pending());
    let replay = Replay::new(source, Some(3), budget(1024, 0));
    let mut reader = replay.reader();
    assert_eq!(reader.size_hint().exact(), Some(3));
    frames(&mut reader, 1).await;
    assert!(reader.is_end_stream());
    assert_eq!(replay.complete().await, Ok(()));
}

#[tokio::test]
async fn a_later_reader_supersedes_the_one_that_waits_for_the_source() {
    let source = futures::stream::iter([Ok(Bytes::from_static(b"abc"))]).chain(futures::stream::pending());
    let replay = Replay::new(source, None, budget(1024, 0));
    let mut early = replay.reader();
    frames(&mut early, 1).await;
    let waiting = tokio::spawn(async move { early.frame().await });
    tokio::task::yield_now().await;
    let mut late = replay.reader();
    assert!(matches!(waiting.await.unwrap(), Some(Err(Error::Superseded))));
    assert_eq!(late.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
}

#[tokio::test]
async fn a_full_body_needs_no_source() {
    let replay = Replay::full(Bytes::from_static(b"{}"), budget(0, 0));
    assert_eq!(replay.len(), Some(2));
    assert_eq!(replay.complete().await, Ok(()));
    for _ in 0..2 {
        assert_eq!(all(replay.reader()).await, "{}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_bodies_share_a_few_writers() {
    let budget = budget(0, 1 << 30);
    let body = pattern(1 << 20);
    let replays: Vec<_> = (0..32).map(|_| replay(&body, &[10_000], &budget)).collect();
    let read = replays.iter().map(|replay| async {
        let mut reader = replay.reader();
        while let Some(frame) = reader.frame().await {
            frame.unwrap();
            assert!(budget.writers.lock().running <= 2);
        }
    });
    futures::future::join_all(read).await;
    for replay in &replays {
        written(replay).await;
        assert_eq!(all(replay.reader()).await, body);
    }
    assert_eq!(budget.on_disk(), 32 << 20);
    while budget.writers.lock().running > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn bodies_that_are_gone_are_not_written() {
    let budget = budget(0, 1 << 30);
    let body = pattern(1 << 20);
    // As while the writers wait for a slow disk.
    budget.writers.lock().running = 2;
    let replay = replay(&body, &[100_000], &budget);
    let mut reader = replay.reader();
    frames(&mut reader, 1).await;
    drop((reader, replay));
    writers::work(&budget);
    assert_eq!(budget.on_disk(), 0);
    assert_eq!(budget.writers.lock().running, 1);
}
