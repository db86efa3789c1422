//! Many sessions on few engines that are wedged one after the other: none is lost, and no sentence.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use parking_lot::Mutex;
use serde_json::json;
use speechstack_e2e::client::say;
use speechstack_e2e::load::{Ask, Load};
use speechstack_e2e::session::{Session, samples};
use speechstack_e2e::stack::{Stack, StackOptions};
use speechstack_e2e::words::word_error;
use tokio::time::{Instant, sleep};

/// Environment variables with the number of sessions and how long they last, seconds.
const SESSIONS: (&str, u64) = ("SPEECHSTACK_SESSIONS", 200);
const SECONDS: (&str, u64) = ("SPEECHSTACK_SESSIONS_SECONDS", 120);
/// Of what the engines can transcribe, the part that the sessions say together: half of the time only one engine serves, partial texts
/// take their part, and this process uses the same cores.
const SHARE: f64 = 0.25;
/// Sessions that are opened at a time.
const OPENED: u64 = 20;
const SAID: [(&str, &str); 3] =
    [("slt", "Good morning."), ("rms", "The train was late again."), ("slt", "Turn off the light.")];
/// What engines do that fail. One that says garbage is not told from a healthy one by a single sentence.
const MODES: [&str; 4] = ["F1", "F7", "F2", "F12"];
/// Time between the repair of one engine and the wedge of the next.
const PAUSE: Duration = Duration::from_secs(2);

/// What became of the sentences.
#[derive(Debug, Default)]
struct Tally {
    heard: u64,
    /// Times from the end of a segment to its text, seconds.
    gaps: Vec<f64>,
    /// Sessions that ended, sentences without a text, texts that are not of their sentence.
    lost: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_sessions_survive_wedges_of_their_engines() -> Result<()> {
    let (sessions, seconds) = (number(SESSIONS)?, number(SECONDS)?);
    let stack = Stack::start(StackOptions::new("sessions")).await?;
    let clips = SAID.iter().map(|(voice, text)| Ok((samples(&say(&[(voice, text)])?)?, *text)));
    let clips: Arc<Vec<(Vec<i16>, &'static str)>> = Arc::new(clips.collect::<Result<_>>()?);
    let rate = SHARE * capacity(&stack, say(&[SAID[1]])?).await?;
    let mut open = Vec::new();
    for _ in 0..sessions.div_ceil(OPENED) {
        let room = OPENED.min(sessions - open.len() as u64);
        open.extend(try_join_all((0..room).map(|_| Session::open(&stack.url))).await?);
    }
    let tally = Arc::new(Mutex::new(Tally::default()));
    let until = Instant::now() + Duration::from_secs(seconds);
    let talks: Vec<_> = open
        .into_iter()
        .enumerate()
        .map(|(nth, session)| {
            let (clips, tally) = (Arc::clone(&clips), Arc::clone(&tally));
            tokio::spawn(talk(session, nth, (sessions, rate), until, clips, tally))
        })
        .collect();
    let mut wedges = 0;
    while Instant::now() < until {
        let name = ["parakeet-0", "parakeet-1"][wedges % 2];
        let before = stack.engine(name).await?.restarts;
        stack.arm(name, &json!({"mode": MODES[wedges / 2 % MODES.len()]})).await?;
        stack.healed(name, before + 1).await.with_context(|| MODES[wedges / 2 % MODES.len()])?;
        wedges += 1;
        sleep(PAUSE).await;
    }
    for talk in talks {
        talk.await?;
    }
    let mut tally = std::mem::take(&mut *tally.lock());
    tally.gaps.sort_by(f64::total_cmp);
    let quantile = |part: f64| {
        let at = (tally.gaps.len() as f64 * part) as usize;
        tally.gaps.get(at.min(tally.gaps.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    eprintln!(
        "\n{sessions} sessions for {seconds} s: {} sentences at {rate:.1} a second, {} lost, {wedges} wedges; text after the end of a segment \
         p50 {:.2} s, p95 {:.2} s, longest {:.2} s\n",
        tally.heard,
        tally.lost.len(),
        quantile(0.5),
        quantile(0.95),
        quantile(1.0),
    );
    ensure!(tally.lost.is_empty(), "{} lost: {:#?}", tally.lost.len(), tally.lost);
    ensure!(tally.heard > 0, "nothing was heard");
    ensure!(wedges >= 2, "{wedges} wedges in {seconds} s");
    stack.stop().await
}

/// A session to its end: each says something in its turn.
async fn talk(
    mut session: Session,
    nth: usize,
    (sessions, rate): (u64, f64),
    until: Instant,
    clips: Arc<Vec<(Vec<i16>, &'static str)>>,
    tally: Arc<Mutex<Tally>>,
) {
    let between = Duration::from_secs_f64(sessions as f64 / rate);
    let mut next = Instant::now() + between.mul_f64(nth as f64 / sessions as f64);
    for turn in nth.. {
        let (samples, said) = &clips[turn % clips.len()];
        let heard = async {
            session.rest(next.min(until)).await?;
            if next >= until {
                session.check().await?;
                return Ok(None);
            }
            session.say(samples).await.map(Some)
        };
        let heard = match heard.await {
            Ok(None) => return,
            Ok(Some(heard)) => Ok(heard),
            Err(error) => Err(error),
        };
        let mut tally = tally.lock();
        match heard {
            Ok(heard) if word_error(said, &heard.text) <= 0.6 => {
                tally.heard += 1;
                tally.gaps.push(heard.gap.as_secs_f64());
            }
            Ok(heard) => tally.lost.push(format!("session {nth}: {said:?} was heard as {:?}", heard.text)),
            Err(error) => {
                tally.lost.push(format!("session {nth}: {error:#}"));
                return;
            }
        }
        next += between;
    }
}

/// Short transcriptions per second that the stack can do.
async fn capacity(stack: &Stack, clip: Bytes) -> Result<f64> {
    let load = Load::bounded(stack.client.clone(), Ask::Transcribe(clip), Duration::from_millis(5), 4);
    let began = Instant::now();
    sleep(Duration::from_secs(6)).await;
    let done = load.counts().ok;
    ensure!(done > 0, "no transcription in six seconds");
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

/// A number in the environment, or the usual one.
fn number((name, usual): (&str, u64)) -> Result<u64> {
    match std::env::var(name) {
        Ok(number) => number.parse().with_context(|| format!("{name} is no number")),
        Err(_) => Ok(usual),
    }
}
