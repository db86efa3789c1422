use std::time::Duration;

use proptest::prelude::*;

use crate::upstream::balance::*;

fn candidate(weight: f64, wait: f64, in_flight: usize) -> Candidate {
    Candidate { tier: Tier::Reported, standby: false, weight, wait, in_flight }
}

fn shares(candidates: &[Candidate]) -> Vec<f64> {
    let mut counts = vec![0_u32; candidates.len()];
    for roll in 0..10_000 {
        if let Some(at) = pick(candidates, mix(roll)) {
            counts[at] += 1;
        }
    }
    counts.into_iter().map(|count| f64::from(count) / 10_000.0).collect()
}

#[test]
fn a_standby_gets_what_the_others_do_not() {
    let standby = Candidate { standby: true, ..candidate(1.0, 0.0, 0) };
    assert_eq!(shares(&[candidate(1.0, 60.0, 9), standby]), [1.0, 0.0]);
    assert_eq!(shares(&[candidate(0.0, 0.0, 0), standby]), [0.0, 1.0]);
    let doubted = shares(&[candidate(0.1, 0.0, 0), standby]);
    assert!((doubted[0] - 0.1).abs() < 0.02, "{doubted:?}");
    let both = shares(&[candidate(1.0, 0.0, 0), candidate(1.0, 0.0, 0), standby]);
    assert!(both[2] == 0.0 && (both[0] - 0.5).abs() < 0.02, "{both:?}");
}

proptest! {
    #[test]
    fn the_pick_is_routable_of_the_best_tier_and_of_full_weight_none_waits_less(
        all in prop::collection::vec(
            (any::<bool>(), prop_oneof![Just(0.0), Just(0.1), Just(1.0)], 0.0..100.0_f64, 0_usize..5), 0..8),
        roll: u64,
    ) {
        let all: Vec<Candidate> = all.into_iter().map(|(reported, weight, wait, in_flight)| Candidate {
            tier: if reported { Tier::Reported } else { Tier::Unreported }, standby: false, weight, wait, in_flight,
        }).collect();
        let routable = || all.iter().filter(|candidate| candidate.weight > 0.0);
        match pick(&all, roll) {
            None => prop_assert_eq!(routable().count(), 0),
            Some(at) => {
                let picked = all[at];
                prop_assert!(picked.weight > 0.0);
                prop_assert_eq!(Some(picked.tier), routable().map(|candidate| candidate.tier).min());
                for other in routable().filter(|other| other.tier == picked.tier && other.weight >= 1.0) {
                    prop_assert!(picked.wait <= other.wait + TIE_SECONDS);
                }
                prop_assert_eq!(pick(&all, roll), Some(at), "the same roll picks the same");
            }
        }
    }

    #[test]
    fn a_backlog_never_grows_by_itself_and_never_falls_below_nothing(
        queue in prop_oneof![0.0..1e6_f64, Just(f64::NAN), Just(-1.0)],
        predicted in prop_oneof![0.0..1e6_f64, Just(f64::INFINITY)],
        later in 0_u64..1_000_000,
    ) {
        let now = Instant::now();
        let mut backlog = Backlog::none(now);
        backlog.report(queue, now);
        backlog.dispatch(predicted, now);
        let then = now + Duration::from_millis(later);
        prop_assert!(backlog.wait(then) >= 0.0);
        prop_assert!(backlog.wait(then) <= backlog.wait(now));
    }
}

#[test]
fn equal_endpoints_share_by_chance() {
    for share in shares(&[candidate(1.0, 0.0, 0), candidate(1.0, 0.001, 0), candidate(1.0, 0.0, 0)]) {
        assert!((0.30..0.37).contains(&share), "{share}");
    }
}

#[test]
fn of_equal_waits_the_fewest_in_flight_wins() {
    assert_eq!(shares(&[candidate(1.0, 0.0, 1), candidate(1.0, 0.0, 0)]), [0.0, 1.0]);
}

#[test]
fn a_light_endpoint_gets_some_traffic_and_no_more_than_its_weight() {
    let idle = shares(&[candidate(0.1, 0.0, 0), candidate(1.0, 5.0, 3)])[0];
    assert!((0.08..0.12).contains(&idle), "{idle}");
    let tied = shares(&[candidate(0.1, 0.0, 0), candidate(1.0, 0.0, 0)])[0];
    assert!((0.03..0.07).contains(&tied), "{tied}");
    assert_eq!(shares(&[candidate(0.1, 5.0, 0)]), [1.0], "and all of it when it is the last one");
}

#[test]
fn unreported_endpoints_are_the_last_resort() {
    let unreported = Candidate { tier: Tier::Unreported, ..candidate(1.0, 0.0, 0) };
    assert_eq!(shares(&[unreported, candidate(0.1, 9.0, 9)]), [0.0, 1.0]);
    assert_eq!(shares(&[unreported, candidate(0.0, 0.0, 0)]), [1.0, 0.0]);
}

/// A job in an engine's lane, seconds of virtual time.
struct Job {
    start: f64,
    end: f64,
    predicted: f64,
}

/// What a guard would report: it sees jobs start and end, and knows only predictions of what is left.
fn reported_queue(lane: &[Job], now: f64) -> f64 {
    lane.iter().map(|job| (job.predicted - (now - job.start).max(0.0)).max(0.0)).sum()
}

/// A virtual-clock run of engines that do one job at a time: seconds from arrival to start, sorted. Guards
/// report every half second.
fn simulate(seed: u64, load: f64, choose: impl Fn(&[Candidate], u64) -> Option<usize>) -> Vec<f64> {
    const ENGINES: usize = 4;
    const JOBS: u64 = 40_000;
    let mut seed = seed;
    let mut uniform = move || {
        seed = mix(seed);
        (seed >> 11) as f64 / (1_u64 << 53) as f64
    };
    // 80 % up to 30 s, 17 % up to 15 min, 3 % 15 to 120 min; an engine works at 120 times real time.
    let mean = 0.08 + (0.80 * 15.0 + 0.17 * 465.0 + 0.03 * 4_050.0) / 120.0;
    let epoch = Instant::now();
    let at = |seconds: f64| epoch + Duration::from_secs_f64(seconds);
    let mut now = 0.0_f64;
    let mut backlogs = [Backlog::none(epoch); ENGINES];
    let mut free_at = [0.0_f64; ENGINES];
    let mut lanes: [Vec<Job>; ENGINES] = Default::default();
    let mut report_due = 0.0;
    let mut waits = Vec::new();
    for _ in 0..JOBS {
        now += -(1.0 - uniform()).ln() * mean / (load * ENGINES as f64);
        let class = uniform();
        let audio = if class < 0.80 {
            30.0 * uniform()
        } else if class < 0.97 {
            30.0 + 870.0 * uniform()
        } else {
            900.0 + 6_300.0 * uniform()
        };
        let service = 0.08 + audio / 120.0;
        // The prediction is off by up to 2 either way.
        let predicted = service * 2.0_f64.powf(2.0 * uniform() - 1.0);
        let candidates: Vec<Candidate> = (0..ENGINES)
            .map(|engine| {
                lanes[engine].retain(|job| job.end > now);
                if now >= report_due {
                    backlogs[engine].report(reported_queue(&lanes[engine], now), at(now));
                }
                candidate(1.0, backlogs[engine].wait(at(now)), lanes[engine].len())
            })
            .collect();
        report_due = if now >= report_due { now + 0.5 } else { report_due };
        let engine = choose(&candidates, (uniform() * 1e15) as u64).unwrap();
        backlogs[engine].dispatch(predicted, at(now));
        let start = free_at[engine].max(now);
        free_at[engine] = start + service;
        lanes[engine].push(Job { start, end: free_at[engine], predicted });
        waits.push(start - now);
    }
    waits.sort_by(f64::total_cmp);
    waits
}

#[test]
fn on_skewed_audio_least_predicted_wait_beats_least_outstanding_count() {
    let by_count = |candidates: &[Candidate], roll: u64| {
        let alike: Vec<Candidate> =
            candidates.iter().map(|candidate| Candidate { wait: 0.0, ..*candidate }).collect();
        pick(&alike, roll)
    };
    for (seed, load) in [(1, 0.6), (2, 0.7), (3, 0.8)] {
        let (predicted, counted) = (simulate(seed, load, pick), simulate(seed, load, by_count));
        let percentile = |waits: &[f64], share: f64| waits[(waits.len() as f64 * share) as usize];
        for share in [0.90, 0.99] {
            let (predicted, counted) = (percentile(&predicted, share), percentile(&counted, share));
            println!(
                "load {load}, p{:.0}: predicted {predicted:.1} s, counted {counted:.1} s",
                share * 100.0
            );
            assert!(predicted < counted);
        }
    }
}
