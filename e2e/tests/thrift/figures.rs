//! Figures that are printed for people; machines differ too much to judge them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use speechstack_e2e::cluster::audit::{Audit, Request};
use speechstack_e2e::cluster::wait::await_condition;

use super::fleet::Fleet;
use super::operator::Operator;

/// Stacks created one by one.
const SINGLES: usize = 50;
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What the operator holds.
pub fn memory(operator: &Operator, what: &str) -> Result<()> {
    let memory = operator.memory()?;
    eprintln!(
        "memory with {what}: {:.1} MiB resident, {:.1} MiB anonymous",
        memory.resident, memory.anonymous
    );
    Ok(())
}

/// From a stack's creation, as its creator sends it, to the operator's first write, as the API server receives it.
pub async fn first_writes(fleet: &Fleet, audit: &mut Audit) -> Result<()> {
    let mut waits = Vec::new();
    for at in 0..SINGLES {
        let name = format!("single-{at}");
        let created = Timestamp::now();
        fleet.create(&name, 1).await?;
        let mut first: Option<Timestamp> = None;
        let mut told = false;
        await_condition("the stack is written for", TEST_TIMEOUT, async || {
            for request in audit.take()?.into_iter().filter(Request::is_write) {
                if is_of(&request, &name) {
                    first = Some(first.map_or(request.received, |first| first.min(request.received)));
                    told |= request.object_ref.resource == "speechstacks";
                }
            }
            // Its status is written last; the next one shall find the operator at rest.
            ensure!(told, "its status is not written yet");
            Ok(())
        })
        .await?;
        waits.push(first.context("no write")?.duration_since(created).as_secs_f64() * 1000.0);
    }
    waits.sort_by(f64::total_cmp);
    let last = waits.len().saturating_sub(1);
    let at = |share: f64| waits.get((last as f64 * share).round() as usize).copied().unwrap_or_default();
    eprintln!("creation to first write: p50 {:.1} ms, p99 {:.1} ms of {SINGLES}", at(0.5), at(0.99));
    Ok(())
}

/// Whether it is about the stack of that name, or an object of it.
fn is_of(request: &Request, stack: &str) -> bool {
    let rest = request.object_ref.name.strip_prefix(stack);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// What a new operator did that found everything as it should be.
pub async fn no_ops(operator: &Operator, requests: &[Request]) -> Result<()> {
    let metrics = operator.metrics().await?;
    let of = |name: &str| metrics.get(name).copied().unwrap_or_default();
    let (count, seconds) = (
        of("speechstack_reconcile_seconds_count{result=\"ok\"}"),
        of("speechstack_reconcile_seconds_sum{result=\"ok\"}"),
    );
    let writes: Vec<_> =
        requests.iter().filter(|request| request.is_write() && !request.is_of_lease()).collect();
    eprintln!(
        "restart on objects that are as they should be: {count} reconciles, {:.0} a second, {} writes{}",
        count / seconds,
        writes.len(),
        writes.first().map(|first| format!(", the first of them {}", first.shown())).unwrap_or_default(),
    );
    memory(operator, "the same after a restart")
}
