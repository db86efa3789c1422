//! The `status` subcommand.

use std::io::Write;

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use crate::args::Status;
use crate::client::Client;
use crate::error::Error;

/// Repairs of an engine that are shown.
const SHOWN_REPAIRS: usize = 3;

/// What a gateway says of its engines.
#[derive(Deserialize)]
struct Stack {
    engines: Vec<Engine>,
}

#[derive(Deserialize)]
struct Engine {
    name: String,
    capability: String,
    state: String,
    class: Option<String>,
    says: Option<String>,
    queue_seconds: f64,
    restarts: u64,
    incidents: Vec<Repair>,
}

#[derive(Deserialize)]
struct Repair {
    class: String,
    signature: Option<String>,
    healthy_after_ms: Option<u64>,
}

/// Prints the engines.
///
/// # Errors
/// [`Error::NotReady`] when a capability has no engine that serves, and when the gateway refuses.
pub async fn run(client: &Client, order: &Status) -> Result<(), Error> {
    let value: Value = client.json("the state of the stack", "/page/stack").await?;
    let mut out = std::io::stdout().lock();
    if order.json {
        writeln!(out, "{value:#}")?;
    }
    let stack =
        Stack::deserialize(&value).map_err(|error| client.unreadable("the state of the stack", &error))?;
    if !order.json {
        out.write_all(table(&stack).as_bytes())?;
    }
    out.flush()?;
    match client.send(client.request(Method::GET, "/readyz")).await {
        Err(Error::Refused { status: StatusCode::SERVICE_UNAVAILABLE, message, .. }) => {
            Err(Error::NotReady(message))
        }
        answer => answer.map(drop),
    }
}

fn table(stack: &Stack) -> String {
    let width = |of: fn(&Engine) -> usize| stack.engines.iter().map(of).max().unwrap_or(0);
    let (name, state) = (width(|engine| engine.name.len()), width(|engine| engine.state.len()));
    let mut text = String::new();
    for engine in &stack.engines {
        let why: Vec<String> =
            engine.class.iter().map(|class| format!("class {class}")).chain(engine.says.clone()).collect();
        let mut line = format!(
            "{:<name$}  {}  {:<state$}  queue {:.1} s  restarts {}",
            engine.name, engine.capability, engine.state, engine.queue_seconds, engine.restarts
        );
        if !why.is_empty() {
            line.push_str("  ");
            line.push_str(&why.join(", "));
        }
        text.push_str(&line);
        text.push('\n');
        for repair in engine.incidents.iter().rev().take(SHOWN_REPAIRS) {
            let cause = repair.signature.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
            let end = match repair.healthy_after_ms {
                Some(ms) => format!("verified after {:.1} s", ms as f64 / 1e3),
                None => "not healthy yet".to_owned(),
            };
            text.push_str(&format!("{:name$}  repair: class {}{cause}, {end}\n", "", repair.class));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_a_line_and_its_repairs_are_below() {
        let stack = Stack {
            engines: vec![Engine {
                name: "stt-0".into(),
                capability: "stt".into(),
                state: "ejected".into(),
                class: Some("A".into()),
                says: None,
                queue_seconds: 1.25,
                restarts: 2,
                incidents: vec![Repair { class: "A".into(), signature: None, healthy_after_ms: Some(2_500) }],
            }],
        };
        let expected = "stt-0  stt  ejected  queue 1.2 s  restarts 2  class A\n       repair: class A, verified after 2.5 s\n";
        assert_eq!(table(&stack), expected);
    }
}
