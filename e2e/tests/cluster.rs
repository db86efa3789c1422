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
#[path = "cluster/download.rs"]
mod download;
#[path = "cluster/failures.rs"]
mod failures;
#[path = "cluster/fixture.rs"]
mod fixture;
#[path = "cluster/gateway.rs"]
mod gateway;
#[path = "cluster/healing.rs"]
mod healing;
#[path = "cluster/hosted.rs"]
mod hosted;
#[path = "cluster/idle.rs"]
mod idle;
#[path = "cluster/ladder.rs"]
mod ladder;
#[path = "cluster/lifecycle.rs"]
mod lifecycle;
#[path = "cluster/llm.rs"]
mod llm;
#[path = "cluster/monitoring.rs"]
mod monitoring;
#[path = "cluster/nim.rs"]
mod nim;
#[path = "cluster/nodes.rs"]
mod nodes;
#[path = "cluster/operator.rs"]
mod operator;
#[path = "cluster/overload.rs"]
mod overload;
#[path = "cluster/prefill.rs"]
mod prefill;
#[path = "cluster/refusals.rs"]
mod refusals;
#[path = "cluster/scaling.rs"]
mod scaling;
#[path = "cluster/sidecar.rs"]
mod sidecar;
#[path = "cluster/speed.rs"]
mod speed;
#[path = "cluster/stuck.rs"]
mod stuck;
#[path = "cluster/tokens.rs"]
mod tokens;
#[path = "cluster/updates.rs"]
mod updates;

use fixture::on_fixture;

/// A test on a fixture of its own, named after its function.
macro_rules! stack_test {
    ($module:ident :: $test:ident) => {
        stack_test!(new $module::$test)
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
        stack_test!(waiting overload::a_storm_of_work_restarts_nothing),
        stack_test!(waiting stuck::a_kill_that_does_not_end_is_reported_and_not_forced),
        stack_test!(healing::wedges_are_cured_in_place),
        stack_test!(operator::guards_go_on_alone_under_a_budget),
        stack_test!(operator::a_guard_behind_a_policy_is_told),
        stack_test!(idle::an_unused_engine_sleeps_until_it_is_asked_for),
        stack_test!(waiting download::a_first_start_shows_how_far_its_download_is),
        stack_test!(nim::the_gpu_stack_serves_every_call_and_heals),
        stack_test!(admission::every_rule_refuses_with_its_message),
        stack_test!(admission::every_sample_is_accepted),
        stack_test!(lifecycle::a_minimal_stack_speaks_and_listens),
        stack_test!(llm::a_language_model_answers_and_heals),
        stack_test!(hosted::a_server_of_others_stands_in_within_its_budget),
        stack_test!(gateway::https_is_renewed_and_jobs_outlive_the_pod),
        stack_test!(sidecar::each_engine_is_served_by_the_gateway_beside_it),
        stack_test!(prefill::engines_wait_for_their_caches),
        stack_test!(idle::requests_that_several_gateways_hold_are_served),
        stack_test!(lifecycle::a_suspended_stack_frees_its_pods),
        stack_test!(lifecycle::a_deleted_stack_leaves_only_its_cache),
        stack_test!(lifecycle::an_invalid_stack_is_reported_and_left_alone),
        stack_test!(lifecycle::an_unreadable_stack_stops_no_other),
        stack_test!(updates::a_new_guard_waits_for_the_users_word),
        stack_test!(scaling::engines_follow_the_queue_by_the_charts_metrics),
        stack_test!(scaling::replicas_are_handed_over_and_none_is_lost),
        stack_test!(tokens::a_token_for_one_stack_is_refused_by_another),
        stack_test!(monitoring::prometheus_finds_the_stack),
        stack_test!(alone speed::every_first_wedge_heals),
        stack_test!(chart::a_release_lives_and_leaves_its_engines_serving),
        stack_test!(failures::what_keeps_a_pod_from_running_is_named),
        stack_test!(healing::a_common_fault_is_repaired_one_by_one),
        stack_test!(healing::a_slow_start_is_not_killed),
        stack_test!(healing::a_standby_serves_while_its_engine_is_repaired),
        stack_test!(ladder::a_fault_that_outlives_the_container_costs_the_pod),
        stack_test!(ladder::a_fault_of_a_node_moves_the_engine),
        stack_test!(ladder::a_fault_that_nothing_cures_stops_repair),
        stack_test!(operator::an_operator_killed_in_mid_repair_acts_once),
        stack_test!(operator::a_standby_takes_over),
        stack_test!(alone capacity::a_rollout_on_full_nodes_goes_through),
        stack_test!(alone capacity::a_lost_node_is_served_around),
        stack_test!(alone capacity::a_node_that_stalls_costs_no_repair),
        stack_test!(operator::a_dead_guard_costs_no_engine),
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
