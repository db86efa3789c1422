//! Tests on a real Kubernetes of two nodes; `make cluster-test` runs them inside one.

use std::process::ExitCode;

use speechstack_e2e::cluster::suite::{self, Test};

#[path = "cluster/nodes.rs"]
mod nodes;

fn main() -> ExitCode {
    suite::run(vec![
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
    ])
}
