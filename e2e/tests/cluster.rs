//! Tests on a real Kubernetes of two nodes; `make cluster-test` runs them inside one.

use std::process::ExitCode;

use speechstack_e2e::cluster::Cluster;
use speechstack_e2e::cluster::suite::{self, Extent, Test};

#[path = "cluster/admission.rs"]
mod admission;
#[path = "cluster/capacity.rs"]
mod capacity;
#[path = "cluster/chart.rs"]
mod chart;
#[path = "cluster/failures.rs"]
mod failures;
#[path = "cluster/fixture.rs"]
mod fixture;
#[path = "cluster/healing.rs"]
mod healing;
#[path = "cluster/ladder.rs"]
mod ladder;
#[path = "cluster/lifecycle.rs"]
mod lifecycle;
#[path = "cluster/monitoring.rs"]
mod monitoring;
#[path = "cluster/nodes.rs"]
mod nodes;
#[path = "cluster/operator.rs"]
mod operator;
#[path = "cluster/overload.rs"]
mod overload;
#[path = "cluster/refusals.rs"]
mod refusals;
#[path = "cluster/speed.rs"]
mod speed;
#[path = "cluster/stuck.rs"]
mod stuck;
#[path = "cluster/updates.rs"]
mod updates;

use fixture::on_fixture;

/// A test on a fixture of its own, named after its function.
macro_rules! grounded {
    ($module:ident :: $test:ident) => {
        grounded!(new $module::$test)
    };
    ($how:ident $module:ident :: $test:ident) => {
        Test::$how(concat!(stringify!($module), "::", stringify!($test)), async |cluster: Cluster| {
            on_fixture(cluster, stringify!($module), async |fixture| $module::$test(fixture).await).await
        })
    };
}

fn main() -> ExitCode {
    let tests = vec![
        // The longest first.
        grounded!(overload::a_storm_of_work_restarts_nothing),
        grounded!(stuck::a_kill_that_does_not_end_is_told_and_not_forced),
        grounded!(admission::every_rule_refuses_with_its_message),
        grounded!(admission::every_sample_is_accepted),
        grounded!(lifecycle::a_minimal_stack_speaks_and_listens),
        grounded!(lifecycle::a_suspended_stack_frees_its_pods),
        grounded!(lifecycle::a_deleted_stack_leaves_only_its_cache),
        grounded!(lifecycle::an_invalid_stack_is_told_and_left_alone),
        grounded!(lifecycle::an_unreadable_stack_stops_no_other),
        grounded!(updates::a_new_guard_waits_for_the_users_word),
        grounded!(monitoring::prometheus_finds_the_stack),
        grounded!(alone speed::every_first_wedge_heals),
        grounded!(chart::a_release_lives_and_leaves_its_engines_serving),
        grounded!(failures::what_keeps_a_pod_from_running_is_named),
        grounded!(healing::wedges_are_cured_in_place),
        grounded!(healing::a_common_fault_is_repaired_one_by_one),
        grounded!(healing::a_slow_start_is_not_killed),
        grounded!(ladder::a_fault_that_outlives_the_container_costs_the_pod),
        grounded!(ladder::a_fault_of_a_node_moves_the_engine),
        grounded!(ladder::a_fault_that_nothing_cures_stops_repair),
        grounded!(operator::an_operator_killed_in_mid_repair_acts_once),
        grounded!(operator::guards_go_on_alone_under_a_budget),
        grounded!(operator::a_standby_takes_over),
        grounded!(alone capacity::a_rollout_on_full_nodes_goes_through),
        grounded!(alone capacity::a_lost_node_is_served_around),
        grounded!(operator::a_dead_guard_costs_no_engine),
        Test::new("nodes::both_are_ready_and_have_gpus", nodes::both_are_ready_and_have_gpus),
        Test::new(
            "nodes::an_engine_transcribes_by_its_dns_name",
            nodes::an_engine_transcribes_by_its_dns_name,
        ),
        Test::new(
            "nodes::gpus_spread_pods_over_both_until_full",
            nodes::gpus_spread_pods_over_both_until_full,
        ),
        Test::new("nodes::a_claim_is_one_folder_for_both_nodes", nodes::a_claim_is_one_folder_for_both_nodes),
        Test::new("nodes::a_failed_test_is_dumped_and_its_namespace_goes", nodes::a_failed_test_is_dumped),
        Test::alone("nodes::a_node_without_agents_is_missed_and_comes_back", nodes::a_node_comes_back),
    ];
    suite::run(Extent::Whole, tests)
}
