//! What the operator asks of a real API server, by the server's own account, and what it costs in memory and time.
//! `make cluster-test` runs these tests in a cluster without nodes; figures are printed and never judged.

use std::process::ExitCode;

use speechstack_e2e::cluster::suite::{self, Extent, Test};

#[path = "thrift/figures.rs"]
mod figures;
#[path = "thrift/fleet.rs"]
mod fleet;
#[path = "thrift/guards.rs"]
mod guards;
#[path = "thrift/operator.rs"]
mod operator;
#[path = "thrift/requests.rs"]
mod requests;

fn main() -> ExitCode {
    let tests = vec![
        Test::alone("one_stack_converges_in_at_most_5_writes_per_object", requests::one_stack_converges),
        Test::alone("200_stacks_idle_for_60_s_cost_nothing", requests::many_stacks_idle),
    ];
    suite::run(Extent::Bare, tests)
}
