//! Who gives orders to guards: a token is for one stack, and goes only where that stack's own pods are.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::fixture::{Fixture, RELEASE};
use super::healing::{START, small};

/// The status of an order with a token of that audience.
async fn ordered(fixture: &Fixture, pod: &str, audience: &str) -> Result<String> {
    let account = format!("{RELEASE}-speechstack-operator");
    let token = fixture.space.kubectl(&["create", "token", &account, "--audience", audience]).await?;
    let order = json!({"order": "grant", "instance": "none", "attempt": 0, "reason": "test", "seconds": 0});
    let url = format!("http://{pod}:9401/repair");
    let client = reqwest::Client::builder().no_proxy().build()?;
    let reply = client.post(url).bearer_auth(token.trim()).json(&order).send().await?;
    Ok(reply.status().as_u16().to_string())
}

/// The operator's token for another stack is refused; that for this one is read.
pub async fn a_token_for_one_stack_is_refused_by_another(fixture: &Fixture) -> Result<()> {
    let spec = json!({
        "stt": [{"name": "parakeet", "preset": "reference", "resources": small()}],
        "gateway": {"replicas": 1},
    });
    let stack = fixture.stack(&spec).await?;
    stack.ready(START).await?;
    let pod = stack.pods("parakeet").await?.into_iter().next().context("the engine has no pod")?;
    let address =
        pod.status.as_ref().and_then(|status| status.pod_ip.clone()).context("it has no address")?;
    let space = &fixture.space.name;
    let own = ordered(fixture, &address, &format!("speechstack-guard/{space}/speech")).await?;
    ensure!(
        own == "409",
        "the order of this stack's token is for another instance, and was answered with {own}"
    );
    for audience in [
        format!("speechstack-guard/{space}/other"),
        "speechstack-guard".to_owned(),
        format!("{space}/speech"),
    ] {
        let foreign = ordered(fixture, &address, &audience).await?;
        ensure!(foreign == "403", "a token for {audience} was answered with {foreign}");
    }
    Ok(())
}
