//! A cluster in miniature: guards that obey the contract, pods that come and go, an operator that crashes at will.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// A pod's engine wedges, if it serves.
    Wedge(usize),
    /// A started engine is verified, or wedges again at once.
    Start(usize, bool),
    /// A pod's engine is worn and asks to be recycled.
    Wear(usize),
    /// The guard's own budget is used up.
    Exhaust(usize),
    Pass(u16),
    Hold(bool),
    /// The operator decides, records, and does so many of the acts before it crashes, if it does.
    Operate(usize),
    /// A decision is made of a record that could not be written: nothing is done.
    Lose,
}

#[derive(Clone, Debug)]
struct Pod {
    uid: String,
    node: String,
    instance: u32,
    attempt: u32,
    state: &'static str,
    act: Option<Wanted>,
    ailing: Option<Timestamp>,
    scheduled: Timestamp,
}

#[derive(Debug)]
struct World {
    pods: Vec<Pod>,
    made: u32,
    status: RepairStatus,
    spec: Repair,
    second: i64,
    labels: BTreeMap<String, i64>,
    /// Restarts by instance, and pods replaced.
    restarted: Vec<(String, u32)>,
    replaced: Vec<String>,
    /// What acts said of themselves.
    known: Vec<(Key, Outcome)>,
}

const NODES: [&str; 3] = ["n1", "n2", "n3"];

impl World {
    fn new(replicas: usize, spec: Repair) -> Self {
        let mut world = Self {
            pods: Vec::new(),
            made: 0,
            status: RepairStatus::default(),
            spec,
            second: 0,
            labels: BTreeMap::new(),
            restarted: Vec::new(),
            replaced: Vec::new(),
            known: Vec::new(),
        };
        for _ in 0..replicas {
            world.create("healthy");
        }
        world
    }

    fn create(&mut self, state: &'static str) {
        let now = self.second;
        let welcome: Vec<&str> = NODES
            .into_iter()
            .filter(|node| self.labels.get(*node).is_none_or(|until| *until <= START + now))
            .collect();
        self.made += 1;
        self.pods.push(Pod {
            uid: format!("u{}", self.made),
            node: welcome[self.made as usize % welcome.len()].into(),
            instance: 0,
            attempt: 0,
            state,
            act: None,
            ailing: None,
            scheduled: at(now),
        });
    }

    fn view(&self) -> StackView {
        let pods = self.pods.iter().map(|pod| {
            let verdict = match pod.state {
                "healthy" | "degraded" => "serving",
                "starting" => "pending",
                _ => "wedged",
            };
            let instance = format!("{}/{}", pod.uid, pod.instance);
            let mut seen = seen(&instance, pod.state, verdict, pod.ailing);
            seen.report.repair = pod.act.map(|act| {
                Box::new(RepairRequest { instance, attempt: pod.attempt, class: None, act, since_unix_ms: 0 })
            });
            PodView { scheduled: Some(pod.scheduled), ..super::pod(&pod.uid, &pod.node, seen) }
        });
        let mut view = stack(pods.collect());
        view.spec = self.spec.clone();
        view.engines[0].nodes = NODES
            .into_iter()
            .map(|node| NodeView {
                name: node.into(),
                eligible: self.labels.get(node).is_none_or(|until| *until <= START + self.second),
                foreign: false,
            })
            .collect();
        view
    }

    fn apply(&mut self, step: &Step) {
        let now = at(self.second);
        let count = self.pods.len().max(1);
        match *step {
            Step::Wedge(pod) => {
                let pod = &mut self.pods[pod % count];
                if matches!(pod.state, "healthy" | "degraded") {
                    (pod.state, pod.act, pod.ailing) = ("wedged", Some(Wanted::Restart), Some(now));
                }
            }
            Step::Start(pod, well) => {
                let pod = &mut self.pods[pod % count];
                match (pod.state, well) {
                    ("starting", true) => (pod.state, pod.ailing) = ("healthy", None),
                    ("starting", false) => {
                        pod.attempt += 1;
                        (pod.state, pod.act) = ("wedged", Some(Wanted::Restart));
                        pod.ailing.get_or_insert(now);
                    }
                    _ => {}
                }
            }
            Step::Wear(pod) => {
                let pod = &mut self.pods[pod % count];
                if pod.state == "healthy" {
                    (pod.state, pod.act) = ("degraded", Some(Wanted::Recycle));
                }
            }
            Step::Exhaust(pod) => {
                let pod = &mut self.pods[pod % count];
                if pod.state == "wedged" {
                    (pod.state, pod.act) = ("exhausted", None);
                }
            }
            Step::Pass(seconds) => self.second += i64::from(seconds),
            Step::Hold(hold) => self.spec.hold = hold,
            Step::Operate(most) => self.operate(most),
            Step::Lose => {
                let _ = plan(&self.view(), &self.status, self.second);
            }
        }
    }

    fn operate(&mut self, most: usize) {
        let view = self.view();
        let before = self.status.clone();
        let known = std::mem::take(&mut self.known);
        let plan = decide(&view, &before, &known, &Cluster::default(), at(self.second));
        self.check(&view, &before, &plan);
        self.status = plan.status;
        for act in plan.acts.into_iter().take(most) {
            match act {
                Act::Grant { key, .. } => self.grant(&key),
                Act::Replace { key, avoid, .. } => {
                    if let Some(avoid) = avoid {
                        self.labels.insert(avoid.node, avoid.expiry);
                    }
                    if let Some(at) = self.pods.iter().position(|pod| pod.uid == key.pod_uid) {
                        self.pods.remove(at);
                        self.replaced.push(key.pod_uid);
                        self.create("starting");
                    }
                }
                Act::ReportNode { key, .. } | Act::TaintNode { key, .. } => {
                    self.known.push((key, Outcome::Done));
                }
                Act::Readmit { .. } | Act::Reset { .. } => {}
            }
        }
    }

    /// What a guard does with a grant.
    fn grant(&mut self, key: &Key) {
        let pod = self.pods.iter_mut().find(|pod| pod.uid == key.pod_uid);
        let Some(pod) = pod else { return };
        let current = format!("{}/{}", pod.uid, pod.instance);
        if current == key.instance && pod.attempt == key.attempt && pod.act.is_some() {
            self.restarted.push((pod.uid.clone(), pod.instance));
            pod.instance += 1;
            (pod.state, pod.act) = ("starting", None);
        }
    }

    /// What must hold of every decision.
    fn check(&self, view: &StackView, before: &RepairStatus, plan: &Plan) {
        let old: BTreeSet<Key> = before.records.iter().map(plan::key).collect();
        let keys: Vec<Key> = plan.status.records.iter().map(plan::key).collect();
        assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len(), "one record for one order");
        let fresh: Vec<&RepairRecord> = plan
            .news
            .iter()
            .filter_map(|news| if let News::Ordered(record) = news { Some(record) } else { None })
            .collect();
        if self.spec.hold || self.spec.policy != Policy::Restart {
            assert!(fresh.is_empty() && plan.acts.is_empty());
        }
        for record in &fresh {
            let again =
                before.records.iter().find(|old| plan::key(old) == plan::key(record)).is_some_and(|old| {
                    match old.outcome {
                        Outcome::Withdrawn => false,
                        // A report of a node that failed is made again.
                        Outcome::Pending | Outcome::Failed => on_pod(old.rung),
                        Outcome::Recovered | Outcome::Done => true,
                    }
                });
            assert!(!again, "ordered twice: {record:?}");
        }
        for act in &plan.acts {
            if let Act::Grant { key, .. } | Act::Replace { key, .. } = act {
                let known = plan.status.records.iter().find(|record| plan::key(record) == *key);
                assert_eq!(
                    known.map(|record| record.outcome),
                    Some(Outcome::Pending),
                    "no act without record"
                );
            }
            if let Act::Replace { avoid: Some(avoid), key, .. } = act
                && !old.contains(key)
            {
                let others = view.engines[0].nodes.iter().filter(|node| node.eligible);
                assert!(others.filter(|node| node.name != avoid.node).count() > 0, "the last node is kept");
            }
        }
        if !fresh.is_empty() {
            self.check_budgets(view, &plan.status.records, &fresh);
        }
    }

    fn check_budgets(&self, view: &StackView, records: &[RepairRecord], fresh: &[&RepairRecord]) {
        let now = at(self.second);
        let engine = &view.engines[0];
        let counted: Vec<&RepairRecord> = of_engine(records, "e").collect();
        let within = |window: Duration| counted.iter().filter(move |record| ordered(record, now) < window);
        let pending = counted.iter().filter(|record| record.outcome == Outcome::Pending).count();
        let parallel = budget::parallel(&self.spec.container_restarts.max_parallel, engine.desired);
        let verified = |uid: &str| engine.pod(uid).is_some_and(PodView::is_verified);
        let taken = fresh.iter().filter(|record| on_pod(record.rung) && verified(&record.pod_uid)).count();
        let before = pending - fresh.iter().filter(|record| on_pod(record.rung)).count();
        assert!(taken == 0 || taken + before <= parallel, "{taken} taken that serve, {before} under repair");
        assert!(within(RATE_WINDOW).count() <= usize::try_from(view.spec.per_engine).unwrap());
        let replaced = within(budget::HOUR).filter(|record| replaces(record.rung)).count();
        assert!(replaced <= self.spec.pod_recreates.per_hour as usize);
        let avoided = within(RATE_WINDOW).filter(|record| record.rung == Rung::AvoidNode).count();
        assert!(avoided <= 1);
        for record in fresh {
            let mine: Vec<&&RepairRecord> = counted
                .iter()
                .filter(|other| other.pod_uid == record.pod_uid && !replaces(other.rung))
                .collect();
            let today = mine.iter().filter(|other| ordered(other, now) < budget::DAY).count();
            assert!(today <= budget::PER_DAY);
            let refill = self.spec.container_restarts.refill.0.as_secs_f64();
            for first in &mine {
                let since = mine.iter().filter(|other| other.ordered >= first.ordered).count() as f64;
                let earned = ordered(first, now).as_secs_f64() / refill;
                assert!(since <= f64::from(self.spec.container_restarts.burst) + earned + 0.01);
            }
            let pod = engine.pod(&record.pod_uid).filter(|pod| pod.is_verified());
            if pod.is_some() && on_pod(record.rung) {
                let others = engine.verified() - 1;
                assert!(others >= self.spec.min_healthy as usize, "too few would serve");
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let pod = 0..12_usize;
    prop_oneof![
        4 => pod.clone().prop_map(Step::Wedge),
        4 => (pod.clone(), any::<bool>()).prop_map(|(pod, well)| Step::Start(pod, well)),
        1 => pod.clone().prop_map(Step::Wear),
        1 => pod.prop_map(Step::Exhaust),
        3 => (0..900_u16).prop_map(Step::Pass),
        3 => (0..20_u16).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Hold),
        6 => Just(Step::Operate(usize::MAX)),
        2 => (0..3_usize).prop_map(Step::Operate),
        1 => Just(Step::Lose),
    ]
}

fn spec() -> impl Strategy<Value = Repair> {
    let escalation = prop_oneof![
        Just(Escalation::None),
        Just(Escalation::AvoidNode),
        Just(Escalation::ReportNode),
        Just(Escalation::TaintNode)
    ];
    (1..5_u32, 0..4_u32, 0..3_u32, 1..100_u32, 1..100_u32, escalation, 0..10_u8).prop_map(
        |(burst, per_hour, min_healthy, parallel, threshold, escalation, policy)| {
            let mut spec = Repair { min_healthy, escalation, ..Repair::default() };
            spec.container_restarts.burst = burst;
            spec.container_restarts.max_parallel = IntOrString::String(format!("{parallel}%"));
            spec.pod_recreates.per_hour = per_hour;
            spec.correlated_failure_threshold = threshold;
            if policy == 0 {
                spec.policy = Policy::Eject;
                spec.escalation = Escalation::None;
            }
            spec
        },
    )
}

proptest! {
    #[test]
    fn budgets_hold_and_nothing_is_done_twice(
        replicas in 1..10_usize,
        spec in spec(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(replicas, spec);
        for step in &steps {
            world.apply(step);
        }
        let restarted: BTreeSet<_> = world.restarted.iter().collect();
        prop_assert_eq!(restarted.len(), world.restarted.len());
        let acts = world.restarted.len() + world.replaced.len();
        prop_assert!(acts as i64 <= world.status.total, "every act was recorded before");
        prop_assert!(world.status.records.len() <= MAX_RECORDS);
    }

    #[test]
    fn decisions_come_to_rest(
        replicas in 1..6_usize,
        spec in spec(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(replicas, spec);
        for step in &steps {
            world.apply(step);
        }
        let view = world.view();
        let mut status = world.status.clone();
        let mut looks = 0;
        loop {
            let next = plan(&view, &status, world.second).status;
            if next == status {
                break;
            }
            status = next;
            looks += 1;
            prop_assert!(looks < 5, "looking again and again finds something new to record");
        }
    }
}

#[test]
fn a_fault_of_one_node_climbs_the_ladder_and_is_cured_elsewhere() {
    let spec = Repair { escalation: Escalation::ReportNode, ..Repair::default() };
    let mut world = World::new(1, spec);
    let bad = world.pods[0].node.clone();
    world.apply(&Step::Wedge(0));
    for _ in 0..2000 {
        world.apply(&Step::Operate(usize::MAX));
        world.apply(&Step::Pass(5));
        // A replacement lands on the bad node for as long as that is welcome.
        if world.labels.is_empty() {
            world.pods[0].node.clone_from(&bad);
        }
        let sick = world.pods[0].node == bad;
        world.apply(&Step::Start(0, !sick));
    }
    let rungs: Vec<Rung> = world.status.records.iter().map(|record| record.rung).collect();
    assert_eq!(
        rungs,
        [
            Rung::Restart,
            Rung::Restart,
            Rung::Restart,
            Rung::Recreate,
            Rung::Restart,
            Rung::AvoidNode,
            Rung::ReportNode
        ]
    );
    assert_eq!(world.pods[0].state, "healthy");
    assert!(world.status.stopped.is_empty());
}

#[test]
fn a_fault_that_nothing_cures_ends_in_a_stop() {
    for escalation in [Escalation::None, Escalation::AvoidNode] {
        let mut world = World::new(1, Repair { escalation, ..Repair::default() });
        world.apply(&Step::Wedge(0));
        for _ in 0..5000 {
            world.apply(&Step::Operate(usize::MAX));
            world.apply(&Step::Pass(5));
            world.apply(&Step::Start(0, false));
        }
        assert_eq!(world.status.stopped.len(), 1, "{escalation:?}");
        assert!(world.status.total <= 8, "{escalation:?}: {}", world.status.total);
    }
}
