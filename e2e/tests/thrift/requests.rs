//! What is asked of the API server.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use speechstack_e2e::cluster::Cluster;
use speechstack_e2e::cluster::audit::{Audit, Request};
use speechstack_e2e::cluster::wait::await_condition;

use super::figures;
use super::fleet::{ENGINES, Fleet};
use super::guards::Guards;
use super::operator::{self, Operator};

const STACKS: usize = 200;
const PODS: usize = 2000;
/// The variable has another number of stacks.
const OTHER: &str = "SPEECHSTACK_THRIFT_STACKS";
/// More pods, for a look at the memory: the variable has their number, at least two for each stack.
const MORE: &str = "SPEECHSTACK_THRIFT_PODS";
const MOST_WRITES: usize = 5;
/// How long nobody must be asked anything until the operator counts as quiet.
const QUIET: Duration = Duration::from_secs(4);
const IDLE: Duration = Duration::from_secs(60);
const TEST_TIMEOUT: Duration = Duration::from_secs(600);

/// From the creation of a stack to its readiness, no object is written more than a few times.
pub async fn one_stack_converges(cluster: Cluster) -> Result<()> {
    operator::install(&cluster).await?;
    let _guards = Guards::start().await?;
    let operator = Operator::start(&cluster).await?;
    let fleet = Fleet::new(&cluster, "one").await?;
    let mut audit = Audit::from_now(cluster.layout())?;
    fleet.create("speech", 1).await?;
    fleet.await_observed(1).await?;
    fleet.populate(1).await?;
    fleet.await_ready(1).await?;
    let requests = quiet(&mut audit).await?;
    operator.stop().await?;

    // Every Event is an object of its own.
    let writes =
        requests.iter().filter(|request| request.is_write() && request.object_ref.resource != "events");
    let mut by_object: BTreeMap<String, usize> = BTreeMap::new();
    for write in writes.filter(|request| !request.is_of_lease()) {
        *by_object.entry(format!("{}/{}", write.object_ref.resource, write.object_ref.name)).or_default() +=
            1;
    }
    eprintln!("writes by object: {by_object:#?}");
    ensure!(by_object.len() > 10, "a stack has more objects");
    ensure!(by_object.values().all(|writes| *writes <= MOST_WRITES), "an object is written too often");
    Ok(())
}

/// When nothing happens nothing is asked, however many stacks and pods there are.
pub async fn many_stacks_idle(cluster: Cluster) -> Result<()> {
    operator::install(&cluster).await?;
    let _guards = Guards::start().await?;
    let operator = Operator::start(&cluster).await?;
    let fleet = Fleet::new(&cluster, "fleet").await?;
    let stacks = variable(OTHER)?.unwrap_or(STACKS);
    let more = variable(MORE)?;
    let mut audit = Audit::from_now(cluster.layout())?;
    let of_one = stacks * ENGINES;
    let pods = PODS.max(of_one);
    figures::memory(&operator, "nothing")?;
    fleet.create_many(stacks, more.unwrap_or(pods) / of_one).await?;
    fleet.await_observed(stacks).await?;
    quiet(&mut audit).await?;
    figures::memory(&operator, &format!("{stacks} stacks"))?;
    fleet.populate(pods / of_one).await?;
    operator.await_streams(pods).await?;
    quiet(&mut audit).await?;

    tokio::time::sleep(IDLE).await;
    let requests = audit.take()?;
    let (leases, others): (Vec<_>, Vec<_>) = requests.iter().partition(|request| request.is_of_lease());
    let (watches, asked): (Vec<_>, Vec<_>) = others.into_iter().partition(|request| request.verb == "watch");
    // Every five minutes the operator looks whether kinds were installed that a cluster may have.
    let asked = asked.into_iter().map(Request::shown);
    let asked: Vec<_> = asked.filter(|request| !request.starts_with("get /apis/")).collect();
    eprintln!(
        "{stacks} stacks and {pods} pods idle for {IDLE:?}: {} requests about the lease, {} watches begun, others: {asked:?}",
        leases.len(),
        watches.len(),
    );
    ensure!(asked.is_empty(), "{} requests while nothing happened", asked.len());

    figures::memory(&operator, &format!("{stacks} stacks and {pods} pods"))?;
    figures::first_writes(&Fleet::new(&cluster, "singles").await?, &mut audit).await?;
    quiet(&mut audit).await?;
    let mut streams = pods;
    if let Some(more) = more {
        fleet.populate(more / of_one).await?;
        streams = more / of_one * of_one;
        operator.await_streams(streams).await?;
        quiet(&mut audit).await?;
        figures::memory(&operator, &format!("{stacks} stacks and {more} pods"))?;
    }
    operator.stop().await?;

    let operator = Operator::start(&cluster).await?;
    operator.await_streams(streams).await?;
    let requests = quiet(&mut audit).await?;
    figures::no_ops(&operator, &requests).await?;
    operator.stop().await
}

/// A number that the environment may set.
fn variable(name: &str) -> Result<Option<usize>> {
    let Ok(text) = std::env::var(name) else { return Ok(None) };
    text.parse().map(Some).with_context(|| format!("{name} is no number"))
}

/// Waits until nothing but the lease was asked for a while; returns what was asked before.
async fn quiet(audit: &mut Audit) -> Result<Vec<Request>> {
    let mut all = Vec::new();
    let mut since = tokio::time::Instant::now();
    await_condition("the operator is quiet", TEST_TIMEOUT, async || {
        let requests = audit.take()?;
        if requests.iter().any(|request| !request.is_of_lease()) {
            since = tokio::time::Instant::now();
        }
        all.extend(requests);
        ensure!(since.elapsed() > QUIET, "it asked {} times", all.len());
        Ok(())
    })
    .await?;
    Ok(all)
}
