//! What a person sees in the terminal while a standalone stack starts, and the lines to try it with.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use contract::{Capability, EngineReport};

use crate::config::{Config, Engine};
use crate::guard::Guard;

/// The model of the reference engine that answers by templates.
const TEST_ANSWERER: &str = "reference-template";

/// Prints each engine's way to health, then the lines to try once each capability is served.
pub fn start(
    public: SocketAddr,
    admin: Option<SocketAddr>,
    guards: &[Guard],
    settings: &Config,
    file: &Path,
) {
    let began = Instant::now();
    let mut changes: FuturesUnordered<_> =
        guards.iter().map(|guard| next_state(guard.snapshot.reports())).collect();
    let mut missing: Vec<Capability> = Capability::ALL
        .into_iter()
        .filter(|capability| settings.engines.iter().any(|engine| engine.capability == *capability))
        .collect();
    let dialogue = file.with_file_name("dialogue.wav");
    let dialogue = std::path::absolute(&dialogue).unwrap_or(dialogue);
    let dialogue = dialogue.exists().then_some(dialogue);
    let wedgeable = settings.engines.iter().find(|engine| takes_faults(engine)).cloned();
    let keyed = settings.gateway.auth.is_on();
    let https = settings.gateway.tls.as_ref().is_some_and(|tls| tls.listen.is_none());
    let public = format!("{}://{public}", if https { "https" } else { "http" });
    let model = settings.language_models().first().map(|(model, _)| (*model).to_owned());

    print(&format!("speechstack: gateway on {public}, waiting for {} engines", guards.len()));
    tokio::spawn(async move {
        while let Some((report, reports)) = changes.next().await {
            let seconds = began.elapsed().as_secs_f64();
            print(&format!("  {seconds:6.1} s  {:<12} {}", report.name, report.state.as_str()));
            if report.weight > 0.0 && !missing.is_empty() {
                missing.retain(|capability| *capability != report.capability);
                if missing.is_empty() {
                    print(&lines(
                        &public,
                        admin,
                        dialogue.as_deref(),
                        wedgeable.as_ref(),
                        model.as_deref(),
                        keyed,
                    ));
                }
            }
            changes.push(next_state(reports));
        }
    });
}

type Reports = tokio::sync::watch::Receiver<EngineReport>;

/// The next report whose state differs from the one now shown.
async fn next_state(mut reports: Reports) -> (EngineReport, Reports) {
    let shown = reports.borrow_and_update().state;
    let changed = reports.wait_for(|report| report.state != shown).await.ok().map(|report| report.clone());
    match changed {
        Some(report) => (report, reports),
        None => std::future::pending().await, // the guard is gone: nothing more to tell
    }
}

/// Whether it is the reference engine with its fault switchboard on.
fn takes_faults(engine: &Engine) -> bool {
    engine.capability == Capability::Stt && engine.command.iter().any(|word| word == "--faults")
}

fn lines(
    public: &str,
    admin: Option<SocketAddr>,
    dialogue: Option<&Path>,
    wedgeable: Option<&Engine>,
    model: Option<&str>,
    keyed: bool,
) -> String {
    let key = if keyed { " -H \"authorization: Bearer $KEY\"" } else { "" };
    let mut text = format!(
        "\nReady: {public}/v1 speaks OpenAI's audio API. Try, in another terminal:\n\n\
         # speak\n\
         curl -s {public}/v1/audio/speech{key} -H 'content-type: application/json' -o hello.wav -d \
         '{{\"model\":\"tts-1\",\"voice\":\"nova\",\"response_format\":\"wav\",\"input\":\"good morning and welcome to our little town\"}}'\n\
         # transcribe\n\
         curl -s {public}/v1/audio/transcriptions{key} -F model=whisper-1 -F file=@hello.wav\n"
    );
    if let Some(dialogue) = dialogue {
        let _ = writeln!(
            text,
            "# transcribe with speakers\n\
             curl -s {public}/api/audio/transcribe-with-speakers{key} -F 'file=@{}'",
            dialogue.display()
        );
    }
    if let (Some(dialogue), Some(model)) = (dialogue, model) {
        let note = if model == TEST_ANSWERER { ", a test answerer that repeats what it hears" } else { "" };
        let _ = writeln!(
            text,
            "# talk to {model}{note}: milliseconds from what was said to each stage of the answer\n\
             curl -s {public}/v1/dialogue{key} -F 'file=@{}' -F stream_audio=true | grep -o '\"timings.*'",
            dialogue.display()
        );
    }
    if let Some(engine) = wedgeable {
        let _ = writeln!(
            text,
            "# wedge {}: its health stays green, every inference fails\n\
             curl -s {}/_engine/fault -H 'content-type: application/json' -d '{{\"mode\":\"F1\"}}'",
            engine.name, engine.url
        );
    }
    if let Some(admin) = admin {
        let _ = writeln!(text, "# watch it heal\ncurl -s http://{admin}/state");
    }
    text.push_str("\nCtrl-C stops everything.");
    text
}

/// Standard output is for the person; log lines go to standard error.
fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    // A closed terminal is no reason to stop serving.
    let _ = writeln!(out, "{text}");
}
