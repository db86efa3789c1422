//! When engines that may sleep were last used: gateways are asked every two seconds, of stacks with such engines alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::Request;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, ResourceExt};
use parking_lot::RwLock;
use serde::Deserialize;
use speechstack_crds::SpeechStack;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::guards::Guards;
use crate::names::label;

/// How often gateways are asked.
const PERIOD: Duration = Duration::from_secs(2);
/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longest answer.
const ANSWER_BYTES: usize = 4 << 20;
/// Stacks that are asked at a time.
const PARALLEL: usize = 16;

/// How long an engine was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unused {
    /// Since its last use, or since the gateway that began last, as no gateway knows of uses before it.
    pub since: Duration,
    /// Since it was last asked for, if it ever was: an engine that sleeps wakes by this alone.
    pub asked: Option<Duration>,
}

/// The last use of an engine.
#[derive(Clone, Copy, Debug)]
struct Use {
    since: Instant,
    asked: Option<Instant>,
    /// Whether it was idle by the one and by the other when its stack was last looked at for that.
    judged: Option<(bool, bool)>,
}

/// The uses of the engines of a stack, by name.
type OfStack = HashMap<String, Use>;

/// When each engine of each stack was last used. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Uses(Arc<RwLock<HashMap<ObjectRef<SpeechStack>, OfStack>>>);

/// What is read of a gateway's state.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    unused: HashMap<String, Said>,
}

/// What a gateway says of one engine.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Said {
    seconds: f64,
    asked_seconds: Option<f64>,
}

impl Uses {
    /// How long each engine of the stack was not used; nothing of engines of which no gateway has said anything.
    #[must_use]
    pub fn of(&self, stack: &ObjectRef<SpeechStack>) -> HashMap<String, Unused> {
        let all = self.0.read();
        let uses = all.get(stack).into_iter().flatten();
        let unused =
            |one: &Use| Unused { since: one.since.elapsed(), asked: one.asked.map(|at| at.elapsed()) };
        uses.map(|(engine, one)| (engine.clone(), unused(one))).collect()
    }

    /// Takes over what the gateways of a stack say. The use that is the latest counts, and an earlier word is never forgotten.
    /// Returns whether an engine begins or ends to be idle.
    fn learn(&self, stack: &SpeechStack, states: &[State], now: Instant) -> bool {
        let mut all = self.0.write();
        let known = all.entry(ObjectRef::from_obj(stack)).or_default();
        let mut turned = false;
        for (_, engine) in stack.spec.engines() {
            let Some(idle) = &engine.idle else { continue };
            let said = || states.iter().filter_map(|state| state.unused.get(&engine.name));
            let ago = |seconds: f64| now.checked_sub(Duration::try_from_secs_f64(seconds).ok()?);
            let since = said().filter_map(|said| ago(said.seconds)).max();
            let asked = said().filter_map(|said| ago(said.asked_seconds?)).max();
            let before = known.get(&engine.name).copied();
            let Some(since) = since.max(before.map(|before| before.since)) else { continue };
            let asked = asked.max(before.and_then(|before| before.asked));
            let is_idle = |at: Instant| now.saturating_duration_since(at) >= idle.after.0;
            let judged = Some((is_idle(since), asked.is_none_or(is_idle)));
            turned |= before.and_then(|before| before.judged) != judged;
            known.insert(engine.name.clone(), Use { since, asked, judged });
        }
        turned
    }
}

/// Asks gateways until cancelled, and has a stack looked at when one of its engines begins or ends to be idle.
pub async fn follow(
    uses: Uses,
    client: Client,
    stacks: Store<SpeechStack>,
    guards: Guards,
    cancel: CancellationToken,
) {
    let asking = async {
        let http: Http = legacy::Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        let mut tick = interval(PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let sleepers = stacks.state_filter(may_sleep);
            let present: Vec<_> = sleepers.iter().map(|stack| ObjectRef::from_obj(&**stack)).collect();
            uses.0.write().retain(|stack, _| present.contains(stack));
            let ask = |stack: Arc<SpeechStack>| {
                let (client, http, uses, guards) = (&client, &http, &uses, &guards);
                async move {
                    let states = states(client, http, &stack).await;
                    if uses.learn(&stack, &states, Instant::now()) {
                        guards.publish(&ObjectRef::from_obj(&*stack));
                    }
                }
            };
            futures::stream::iter(sleepers).for_each_concurrent(PARALLEL, ask).await;
        }
    };
    cancel.run_until_cancelled(asking).await;
}

type Http = legacy::Client<HttpConnector, Empty<Bytes>>;

fn may_sleep(stack: &SpeechStack) -> bool {
    !stack.spec.suspend && stack.spec.engines().any(|(_, engine)| engine.idle.is_some())
}

/// What each gateway pod of the stack says; those that do not answer are left out.
async fn states(client: &Client, http: &Http, stack: &SpeechStack) -> Vec<State> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &stack.namespace().unwrap_or_default());
    let labels = format!("{}={},{}=gateway", label::STACK, stack.name_any(), label::COMPONENT);
    // What the API server has in memory will do.
    let parameters = ListParams::default().labels(&labels).match_any();
    let pods = match timeout(TIMEOUT, pods.list(&parameters)).await {
        Ok(Ok(pods)) => pods,
        Ok(Err(error)) => {
            tracing::debug!(%error, "unable to list gateways");
            return Vec::new();
        }
        Err(_) => return Vec::new(),
    };
    let address = |pod: &Pod| pod.status.as_ref()?.pod_ip.as_ref()?.parse::<std::net::IpAddr>().ok();
    let asked = pods.items.iter().filter_map(address).map(|address| ask(http, address));
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

async fn ask(http: &Http, address: std::net::IpAddr) -> Option<State> {
    let address = std::net::SocketAddr::new(address, contract::port::GATEWAY_ADMIN);
    let request = Request::get(format!("http://{address}/state")).body(Empty::new()).ok()?;
    let answer = async {
        let response = http.request(request).await.ok().filter(|response| response.status().is_success())?;
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await.ok()?.to_bytes();
        serde_json::from_slice(&body).ok()
    };
    timeout(TIMEOUT, answer).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::testing;

    fn state(seconds: f64, asked_seconds: Option<f64>) -> State {
        State { unused: [("ears".to_owned(), Said { seconds, asked_seconds })].into() }
    }

    fn asked(seconds: f64) -> State {
        state(seconds, Some(seconds))
    }

    #[tokio::test(start_paused = true)]
    async fn the_latest_use_counts_and_turns_are_noticed_once() {
        let stack = testing::stack("stt: [{name: ears, preset: reference, idle: {after: 10m}}]");
        let uses = Uses::default();
        tokio::time::advance(Duration::from_secs(5000)).await;
        let key = ObjectRef::from_obj(&stack);
        let of = |seconds: u64| {
            let since = Duration::from_secs(seconds);
            Unused { since, asked: Some(since) }
        };
        assert!(!uses.learn(&stack, &[], Instant::now()) && uses.of(&key).is_empty(), "nothing is said");
        assert!(uses.learn(&stack, &[state(900.0, None), asked(700.0)], Instant::now()), "the first word");
        assert_eq!(uses.of(&key)["ears"], of(700));
        assert!(uses.learn(&stack, &[state(900.0, None), asked(0.0)], Instant::now()), "it is used");
        assert_eq!(uses.of(&key)["ears"], of(0));
        tokio::time::advance(PERIOD).await;
        assert!(!uses.learn(&stack, &[asked(2.0)], Instant::now()));
        // A gateway that was away and comes back knows less.
        assert!(!uses.learn(&stack, &[state(1000.0, None)], Instant::now()));
        assert_eq!(uses.of(&key)["ears"], of(2));
        tokio::time::advance(Duration::from_secs(600)).await;
        assert!(uses.learn(&stack, &[asked(602.0)], Instant::now()), "it is idle now");
        tokio::time::advance(PERIOD).await;
        assert!(!uses.learn(&stack, &[asked(604.0)], Instant::now()), "that is known");
        // A new gateway is no use, though it knows of none before it.
        assert!(uses.learn(&stack, &[state(1.0, None)], Instant::now()));
        let unused = uses.of(&key)["ears"];
        assert_eq!((unused.since.as_secs(), unused.asked.map(|asked| asked.as_secs())), (1, Some(604)));
    }
}
