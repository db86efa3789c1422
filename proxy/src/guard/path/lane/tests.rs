use futures::FutureExt;
use proptest::prelude::*;

use crate::guard::path::lane::testing;
use crate::guard::path::lane::*;
use crate::protocol::Task;

fn lane(jobs: usize) -> Lane {
    Lane::new(&config::Lane { jobs, max_waiting: 8, max_wait_seconds: 100.0, ..config::Lane::default() })
}

fn enqueue(lane: &Lane, predicted: f64) -> Ticket {
    lane.enqueue(testing::claim(predicted, Priority::Short), clock()).unwrap()
}

/// What the ticket has right now.
fn claim(ticket: &mut Ticket) -> Option<Result<Slot, Ejected>> {
    ticket.granted().now_or_never()
}

#[test]
fn an_empty_lane_is_granted_at_once() {
    let lane = lane(1);
    assert!(claim(&mut enqueue(&lane, 1.0)).unwrap().is_ok());
}

#[test]
fn jobs_start_in_the_order_in_which_they_came() {
    let lane = lane(1);
    let first = claim(&mut enqueue(&lane, 1.0)).unwrap().unwrap();
    let (mut second, mut third) = (enqueue(&lane, 1.0), enqueue(&lane, 1.0));
    assert!(claim(&mut third).is_none());
    assert!(claim(&mut second).is_none());
    drop(first);
    assert!(claim(&mut third).is_none());
    let slot = claim(&mut second).unwrap().unwrap();
    drop(slot);
    assert!(claim(&mut third).unwrap().is_ok());
}

#[test]
fn a_job_that_is_not_ready_is_overtaken_and_keeps_its_place() {
    let lane = lane(1);
    let (mut slow, mut quick, mut late) = (enqueue(&lane, 1.0), enqueue(&lane, 1.0), enqueue(&lane, 1.0));
    let slot = claim(&mut quick).unwrap().unwrap();
    assert!(claim(&mut late).is_none());
    assert!(claim(&mut slow).is_none());
    drop(slot);
    assert!(claim(&mut late).is_none());
    assert!(claim(&mut slow).unwrap().is_ok());
}

#[test]
fn a_dropped_ticket_leaves_the_queue() {
    let lane = lane(1);
    let running = claim(&mut enqueue(&lane, 1.0)).unwrap().unwrap();
    let mut gone = enqueue(&lane, 5.0);
    assert!(claim(&mut gone).is_none());
    drop(gone);
    assert_eq!(lane.view().waiting, 0);
    drop(running);
    assert!(lane.view().running.is_empty());
}

#[test]
fn a_slot_that_nobody_claimed_is_not_lost() {
    let lane = lane(1);
    let running = claim(&mut enqueue(&lane, 1.0)).unwrap().unwrap();
    let mut second = enqueue(&lane, 1.0);
    assert!(claim(&mut second).is_none());
    drop(running);
    assert_eq!(lane.view().running.len(), 1);
    drop(second);
    assert!(claim(&mut enqueue(&lane, 1.0)).unwrap().is_ok());
}

#[test]
fn a_eject_ends_all_waiting_and_refuses_newcomers_until_opened() {
    let lane = lane(1);
    let running = claim(&mut enqueue(&lane, 1.0)).unwrap().unwrap();
    let (mut ready, mut uploading) = (enqueue(&lane, 1.0), enqueue(&lane, 1.0));
    assert!(claim(&mut ready).is_none());
    assert!(uploading.ejected().now_or_never().is_none());
    lane.eject();
    assert_eq!(claim(&mut ready).unwrap().unwrap_err(), Ejected);
    assert_eq!(uploading.ejected().now_or_never(), Some(Ejected));
    assert_eq!(
        lane.enqueue(testing::claim(1.0, Priority::Short), clock()).unwrap_err(),
        Refusal::Ejected(Ejected)
    );
    assert_eq!(lane.view().running.len(), 1);
    lane.readmit();
    drop(running);
    assert!(claim(&mut ready).unwrap().is_err());
    assert!(claim(&mut enqueue(&lane, 1.0)).unwrap().is_ok());
}

#[test]
fn a_probe_goes_first_also_while_ejected_but_never_beside_a_job() {
    let lane = lane(1);
    let running = claim(&mut enqueue(&lane, 1.0)).unwrap().unwrap();
    let mut waiting = enqueue(&lane, 1.0);
    assert!(claim(&mut waiting).is_none());
    let mut probe = Box::pin(lane.probe_slot(Claim::PROBE));
    assert!(probe.as_mut().now_or_never().is_none());
    drop(running);
    let slot = probe.as_mut().now_or_never().unwrap();
    assert!(claim(&mut waiting).is_none());
    lane.eject();
    drop(slot);
    assert!(lane.probe_slot(Claim::PROBE).now_or_never().is_some());
}

#[test]
fn an_abandoned_probe_does_not_block_the_lane() {
    let lane = lane(1);
    let running = claim(&mut enqueue(&lane, 1.0)).unwrap().unwrap();
    let mut probe = Box::pin(lane.probe_slot(Claim::PROBE));
    assert!(probe.as_mut().now_or_never().is_none());
    drop(probe);
    drop(running);
    assert!(claim(&mut enqueue(&lane, 1.0)).unwrap().is_ok());
}

#[test]
fn fewer_jobs_take_effect_as_jobs_end_and_more_at_once() {
    let lane = lane(2);
    let first = claim(&mut enqueue(&lane, 1.0)).unwrap().unwrap();
    let second = claim(&mut enqueue(&lane, 1.0)).unwrap().unwrap();
    let mut third = enqueue(&lane, 1.0);
    lane.set_jobs(1);
    drop(first);
    assert!(claim(&mut third).is_none());
    lane.set_jobs(2);
    assert!(claim(&mut third).unwrap().is_ok());
    drop(second);
}

#[test]
fn the_queue_counts_what_is_left_of_running_work() {
    let lane = lane(1);
    let now = clock();
    assert_eq!(lane.queue_seconds(now), 0.0);
    let _running = claim(&mut enqueue(&lane, 10.0)).unwrap().unwrap();
    let mut waiting = enqueue(&lane, 5.0);
    assert!(claim(&mut waiting).is_none());
    let later = lane.view().running[0].started + Duration::from_secs(4);
    assert_eq!(lane.queue_seconds(later), 11.0);
    assert_eq!(lane.queue_seconds(later + Duration::from_secs(60)), 5.0);
    assert_eq!(lane.view().waiting_seconds, 5.0);
}

#[test]
fn too_much_work_ahead_is_refused_with_the_time_until_there_is_room() {
    let lane = lane(1);
    let _running = claim(&mut enqueue(&lane, 90.0)).unwrap().unwrap();
    let started = lane.view().running[0].started;
    let mut waiting = lane.enqueue(testing::claim(40.0, Priority::Short), started).unwrap();
    assert!(claim(&mut waiting).is_none());
    assert_eq!(
        lane.enqueue(testing::claim(1.0, Priority::Short), started).unwrap_err(),
        Refusal::Full { wait: Duration::from_secs(90) },
        "nothing leaves the queue before the running job ends"
    );
    assert!(lane.enqueue(testing::claim(1.0, Priority::Short), started + Duration::from_secs(30)).is_ok());
}

#[test]
fn too_many_waiting_jobs_are_refused() {
    let lane = lane(1);
    let _running = claim(&mut enqueue(&lane, 7.0)).unwrap().unwrap();
    let mut waiting: Vec<Ticket> = (0..8).map(|_| enqueue(&lane, 0.0)).collect();
    assert!(waiting.iter_mut().all(|ticket| claim(ticket).is_none()));
    let refusal =
        lane.enqueue(testing::claim(0.0, Priority::Short), lane.view().running[0].started).unwrap_err();
    assert_eq!(refusal, Refusal::Full { wait: Duration::from_secs(7) });
}

#[test]
fn one_job_larger_than_the_bound_is_admitted_to_an_empty_lane() {
    let lane = lane(1);
    assert!(claim(&mut enqueue(&lane, 4000.0)).unwrap().is_ok());
}

#[test]
fn an_upload_under_way_is_no_work_ahead() {
    let lane = lane(1);
    let mut long = enqueue(&lane, 4000.0);
    assert_eq!(lane.queue_seconds(clock()), 0.0);
    assert_eq!((lane.view().waiting, lane.view().uploading), (0, 1));
    let slot = claim(&mut enqueue(&lane, 1.0)).unwrap().unwrap();
    assert!(claim(&mut long).is_none());
    assert_eq!((lane.view().waiting, lane.view().uploading), (1, 0));
    assert!(matches!(lane.enqueue(testing::claim(1.0, Priority::Short), clock()), Err(Refusal::Full { .. })));
    drop(slot);
}

#[test]
fn too_many_uploads_under_way_are_refused() {
    let lane = Lane::new(&config::Lane { max_uploads: 2, ..config::Lane::default() });
    let (mut first, _second) = (enqueue(&lane, 1.0), enqueue(&lane, 1.0));
    let refused = |lane: &Lane| lane.enqueue(testing::claim(1.0, Priority::Short), clock()).is_err();
    assert!(refused(&lane));
    let _slot = claim(&mut first).unwrap().unwrap();
    assert!(!refused(&lane));
}

#[test]
fn a_continuation_goes_before_newcomers_and_after_its_like() {
    let lane = lane(1);
    let mut running = Some(claim(&mut enqueue(&lane, 1.0)).unwrap().unwrap());
    let next = |lane: &Lane| lane.enqueue(testing::claim(1.0, Priority::Session), clock()).unwrap();
    let mut newcomers = [enqueue(&lane, 1.0), enqueue(&lane, 1.0)];
    let mut continuations = [next(&lane), next(&lane)];
    for ticket in newcomers.iter_mut().chain(&mut continuations) {
        assert!(claim(ticket).is_none());
    }
    for ticket in continuations.iter_mut().chain(&mut newcomers) {
        running.take();
        running = Some(claim(ticket).unwrap().unwrap());
    }
}

#[test]
fn short_jobs_go_before_long_ones_until_those_have_waited_long() {
    let lane = lane(1);
    let start = clock();
    let mut running = Some(claim(&mut enqueue(&lane, 1.0)).unwrap().unwrap());
    let wait = |predicted, priority, since| {
        let mut ticket = lane.enqueue(testing::claim(predicted, priority), since).unwrap();
        assert!(claim(&mut ticket).is_none());
        ticket
    };
    let mut long = wait(60.0, Priority::Long, start);
    let mut short = wait(1.0, Priority::Short, start);
    let mut old = wait(60.0, Priority::Long, start - Duration::from_secs(30));
    for ticket in [&mut old, &mut short, &mut long] {
        running.take();
        running = Some(claim(ticket).unwrap().unwrap());
    }
}

#[test]
fn long_work_does_not_count_as_ahead_of_a_short_job() {
    let lane = lane(1);
    let _running = claim(&mut enqueue(&lane, 10.0)).unwrap().unwrap();
    let mut long = lane.enqueue(testing::claim(90.0, Priority::Long), clock()).unwrap();
    assert!(claim(&mut long).is_none());
    assert!((lane.queue_seconds(clock()) - 10.0).abs() < 0.1);
    let refused = lane.enqueue(testing::claim(90.0, Priority::Long), clock() + Duration::from_secs(0));
    assert!(refused.is_ok(), "100 s are ahead, no more than may be");
}

#[test]
fn a_hold_keeps_jobs_from_the_engine_until_the_last_one_ends() {
    let lane = lane(1);
    let mut waiting = [enqueue(&lane, 1.0), enqueue(&lane, 1.0)];
    let _running = claim(&mut waiting[0]).unwrap().unwrap();
    let holds = (lane.hold(), lane.hold());
    assert!(claim(&mut waiting[1]).unwrap().is_err());
    lane.readmit();
    drop(holds.0);
    assert!(lane.is_ejected(), "another fault has not been looked at");
    drop(holds.1);
    assert!(!lane.is_ejected());
}

#[test]
fn conversations_have_permits_of_their_own() {
    let lane = Lane::new(&config::Lane { jobs: 1, max_streams: 1, ..config::Lane::default() });
    let converse = Claim { task: Some(Task::TranscribeStream), ..testing::claim(0.0, Priority::Session) };
    let first = lane.converse(converse, clock()).unwrap();
    assert!(matches!(lane.converse(converse, clock()), Err(Refusal::Full { .. })));
    assert!(claim(&mut enqueue(&lane, 1.0)).unwrap().is_ok());
    drop(first);
    assert!(lane.converse(converse, clock()).is_ok());
    lane.eject();
    assert!(matches!(lane.converse(converse, clock()), Err(Refusal::Ejected(_))));
}

#[test]
fn a_full_lane_takes_continuations_up_to_a_bound() {
    let lane = lane(2);
    let _running = [0, 1].map(|_| claim(&mut enqueue(&lane, 90.0)).unwrap().unwrap());
    let mut ahead = [0, 1].map(|_| enqueue(&lane, 100.0));
    assert!(ahead.iter_mut().all(|ticket| claim(ticket).is_none()));
    assert!(lane.enqueue(testing::claim(1.0, Priority::Short), clock()).is_err());
    let next = || lane.enqueue(testing::claim(1.0, Priority::Session), clock());
    let _taken: Vec<Ticket> = (0..2 * MAX_CONTINUATIONS).map(|_| next().unwrap()).collect();
    assert!(matches!(next(), Err(Refusal::Full { .. })));
    lane.eject();
    assert_eq!(next().unwrap_err(), Refusal::Ejected(Ejected));
}

#[derive(Clone, Debug)]
enum Step {
    Enqueue,
    Continue,
    Claim(usize),
    DropTicket(usize),
    DropSlot(usize),
    Probe,
    Eject,
    Open,
    Jobs(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Enqueue),
        1 => Just(Step::Continue),
        6 => (0..16usize).prop_map(Step::Claim),
        2 => (0..16usize).prop_map(Step::DropTicket),
        4 => (0..16usize).prop_map(Step::DropSlot),
        1 => Just(Step::Probe),
        1 => Just(Step::Eject),
        2 => Just(Step::Open),
        1 => (1..4usize).prop_map(Step::Jobs),
    ]
}

proptest! {
    #[test]
    fn no_slot_is_lost_and_never_too_many_run(steps in proptest::collection::vec(step(), 0..200)) {
        let lane = lane(2);
        let mut most_jobs = 2;
        let mut tickets: Vec<Ticket> = Vec::new();
        let mut slots: Vec<Slot> = Vec::new();
        for step in steps {
            match step {
                Step::Enqueue => if let Ok(ticket) = lane.enqueue(testing::claim(1.0, Priority::Short), clock()) {
                    tickets.push(ticket);
                },
                Step::Continue => if let Ok(ticket) = lane.enqueue(testing::claim(1.0, Priority::Session), clock()) {
                    tickets.push(ticket);
                },
                Step::Claim(at) if at < tickets.len() => {
                    match claim(&mut tickets[at]) {
                        Some(Ok(slot)) => {
                            slots.push(slot);
                            tickets.remove(at);
                        }
                        Some(Err(Ejected)) => { tickets.remove(at); }
                        None => {}
                    }
                }
                Step::DropTicket(at) if at < tickets.len() => { tickets.remove(at); }
                Step::DropSlot(at) if at < slots.len() => { slots.remove(at); }
                Step::Probe => if let Some(slot) = lane.probe_slot(Claim::PROBE).now_or_never() { slots.push(slot); },
                Step::Eject => lane.eject(),
                Step::Open => lane.readmit(),
                Step::Jobs(jobs) => { lane.set_jobs(jobs); most_jobs = most_jobs.max(jobs); }
                Step::Claim(_) | Step::DropTicket(_) | Step::DropSlot(_) => {}
            }
            let state = lane.shared.lock();
            prop_assert!(state.running.holding(Permit::Job) <= most_jobs);
            let ready_waits = state.queue.ready() > 0;
            prop_assert!(!(ready_waits && state.has_room()), "room and a ready job, yet nothing started");
        }
        drop(slots);
        drop(tickets);
        lane.readmit();
        let view = lane.view();
        prop_assert_eq!((view.running.len(), view.waiting, view.uploading), (0, 0, 0));
    }

    #[test]
    fn ready_jobs_are_granted_in_arrival_order(order in Just((0..8usize).collect::<Vec<_>>()).prop_shuffle()) {
        let lane = lane(1);
        let mut running = Some(claim(&mut enqueue(&lane, 1.0)).unwrap().unwrap());
        let mut tickets: Vec<Ticket> = order.iter().map(|_| enqueue(&lane, 1.0)).collect();
        for at in &order {
            prop_assert!(claim(&mut tickets[*at]).is_none());
        }
        for ticket in &mut tickets {
            running.take();
            running = Some(claim(ticket).unwrap().unwrap());
        }
    }
}

/// Waiting times of the jobs of each tenant in a lane of one, as (p99 of the light one, work served of each). The light tenant sends
/// a job of a second every four; the heavy one, if there, keeps `backlog` jobs of a second waiting.
async fn waits(backlog: usize, tenants: [Option<u64>; 2]) -> (f64, [f64; 2]) {
    let [light, heavy] = tenants;
    let lane = Lane::new(&config::Lane {
        jobs: 1,
        max_waiting: 64,
        max_wait_seconds: 1e6,
        ..config::Lane::default()
    });
    let serve = |lane: Lane, tenant: Option<u64>, served: Arc<Mutex<f64>>| async move {
        let came = clock();
        let claim = Claim { tenant, ..testing::claim(1.0, Priority::Short) };
        let Ok(mut ticket) = lane.enqueue(claim, came) else { return None };
        let slot = ticket.granted().await.ok()?;
        let waited = clock().saturating_duration_since(came).as_secs_f64();
        tokio::time::sleep(Duration::from_secs(1)).await;
        *served.lock() += 1.0;
        drop(slot);
        Some(waited)
    };
    let served: [Arc<Mutex<f64>>; 2] = Default::default();
    let flood: Vec<_> = (0..backlog)
        .map(|_| {
            let (lane, served) = (lane.clone(), Arc::clone(&served[1]));
            tokio::spawn(async move {
                loop {
                    serve(lane.clone(), heavy, Arc::clone(&served)).await;
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let mut sent = Vec::new();
    for _ in 0..200 {
        sent.push(tokio::spawn(serve(lane.clone(), light, Arc::clone(&served[0]))));
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    let mut waits = Vec::new();
    for job in sent {
        waits.push(job.await.unwrap().unwrap());
    }
    flood.iter().for_each(tokio::task::JoinHandle::abort);
    waits.sort_by(f64::total_cmp);
    (waits[waits.len() * 99 / 100], [*served[0].lock(), *served[1].lock()])
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_floods_the_lane_costs_others_no_more_than_the_job_that_runs() {
    let (at_its_share, _) = waits(1, [Some(1), Some(2)]).await;
    let (flooded, served) = waits(40, [Some(1), Some(2)]).await;
    assert!(flooded <= at_its_share * 1.2 + 0.01, "p99 {flooded} s, {at_its_share} s without the flood");
    assert_eq!(served[0], 200.0);
    assert!(served[1] >= 500.0, "the lane is never left idle: {served:?}");
    let (unknown, _) = waits(40, [None, None]).await;
    assert!(unknown > 10.0, "without tenants all wait in one line: {unknown} s");
}

#[test]
fn one_tenant_does_not_fill_the_queue() {
    let lane = lane(1);
    let of = |tenant| {
        lane.enqueue(Claim { tenant: Some(tenant), ..testing::claim(1.0, Priority::Short) }, clock())
    };
    let _running = claim(&mut of(1).unwrap()).unwrap().unwrap();
    let mut waiting: Vec<Ticket> = (0..6).map(|_| of(1).unwrap()).collect();
    waiting.iter_mut().for_each(|ticket| assert!(claim(ticket).is_none()));
    assert!(matches!(of(1), Err(Refusal::Full { .. })), "three quarters of eight");
    assert!(of(2).is_ok());
}

#[test]
fn a_newcomer_is_refused_for_the_work_that_it_would_wait_for() {
    let lane = lane(1);
    let of = |tenant, predicted| {
        lane.enqueue(Claim { tenant: Some(tenant), ..testing::claim(predicted, Priority::Short) }, clock())
    };
    let _running = claim(&mut of(1, 1.0).unwrap()).unwrap().unwrap();
    let mut long = [of(1, 60.0).unwrap(), of(1, 60.0).unwrap()];
    long.iter_mut().for_each(|ticket| assert!(claim(ticket).is_none()));
    assert!(matches!(of(1, 1.0), Err(Refusal::Full { .. })), "two minutes are ahead of it");
    assert!(of(2, 1.0).is_ok(), "its turn is next");
}
