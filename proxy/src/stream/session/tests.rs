use std::sync::atomic::{AtomicUsize, Ordering};

use futures::channel::mpsc::UnboundedReceiver;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::*;
use crate::audio::Sample;
use crate::job::work::{Transcribe, Turns};
use crate::stream::clock::{Format, samples};
use crate::stream::core::Order;

/// Engines that answer with the length of what they heard, after a time.
#[derive(Default)]
struct Fake {
    /// Milliseconds of each decode in turn; then none.
    takes: Mutex<VecDeque<u64>>,
    begun: Mutex<Vec<Key>>,
    running: Arc<AtomicUsize>,
    panics: bool,
    /// Hears segments while they run, and fails after so many samples.
    live: Option<usize>,
    speech: Mutex<Option<mpsc::Receiver<Result<Bytes, Error>>>>,
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Engines for Fake {
    fn is_free(&self, _: &Ask) -> bool {
        true
    }

    fn hears_live(&self, _: &Ask) -> bool {
        self.live.is_some()
    }

    fn listen(
        &self,
        _: Ask,
        segment: SegmentId,
        mut audio: UnboundedReceiver<Result<Bytes, Error>>,
        told: mpsc::Sender<SoFar>,
    ) -> BoxFuture<'static, Result<Transcript, Error>> {
        self.begun.lock().push(Key::Live(segment));
        let fails_after = self.live.unwrap_or_default();
        async move {
            let mut heard = 0;
            while let Some(bytes) = audio.next().await {
                heard += bytes.unwrap().len() / 2;
                let so_far = Transcript { text: format!("heard {}", heard / 1600), ..Transcript::default() };
                let _ = told.try_send((segment, so_far));
                if heard > fails_after {
                    return Err(Error::PoisonInput);
                }
            }
            Ok(Transcript { text: format!("live {heard}"), ..Transcript::default() })
        }
        .boxed()
    }

    fn transcribe(&self, _: Ask, order: Order) -> BoxFuture<'static, Result<Transcript, Error>> {
        self.begun.lock().push(order.key);
        let takes = Duration::from_millis(self.takes.lock().pop_front().unwrap_or(0));
        self.running.fetch_add(1, Ordering::SeqCst);
        let (running, panics) = (Running(Arc::clone(&self.running)), self.panics);
        async move {
            let _running = running;
            tokio::time::sleep(takes).await;
            assert!(!panics, "as told");
            let length = order.audio.len();
            let text = match order.key {
                Key::Partial(..) => format!("so far {length}"),
                _ => length.to_string(),
            };
            Ok(Transcript { text, ..Transcript::default() })
        }
        .boxed()
    }

    fn diarize(&self, _: Ask, order: Order) -> BoxFuture<'static, Result<Transcript, Error>> {
        self.begun.lock().push(order.key);
        // One voice, whatever it is asked about.
        let turn = crate::transcript::Turn { start: 0.0, end: order.seconds(), speaker: "it".into() };
        let turns = Turns { turns: vec![turn], ..Turns::default() };
        async move { Ok(Transcript { turns: Some(turns), ..Transcript::default() }) }.boxed()
    }

    fn speak(&self, _: Say) -> Spoken {
        let (_, none) = mpsc::channel(1);
        Spoken::ready(self.speech.lock().take().unwrap_or(none))
    }
}

fn session(fake: &Arc<Fake>, settings: Settings) -> Session {
    let ask = Ask { route: Capability::Stt.into(), work: Transcribe::default() };
    Session::new(settings, ask, Arc::clone(fake) as Arc<dyn Engines>).unwrap()
}

fn by_client() -> Settings {
    Settings { rules: None, ..Settings::new(Format { sample: Sample::MuLaw, rate: 16_000 }) }
}

fn audio(milliseconds: u64) -> Input {
    Input::Audio(vec![0xFF; samples(milliseconds) as usize].into())
}

async fn until_done(session: &mut Session) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(60), session.next()).await;
        match next.expect("the session stands still") {
            Event::Done => return events,
            event => events.push(event),
        }
    }
}

fn finals(events: &[Event]) -> Vec<String> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::Final(last) => Some(last.transcript.text.clone()),
            Event::Failed { error, .. } => Some(error.to_string()),
            _ => None,
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn texts_are_in_order_although_engines_are_not_and_the_end_comes_last() {
    let fake = Arc::new(Fake { takes: Mutex::new([5_000, 10, 1_000].into()), ..Fake::default() });
    let mut session = session(&fake, Settings { partials: false, ..by_client() });
    for length in [300, 400, 500] {
        session.push(audio(length));
        session.push(Input::Commit);
    }
    session.push(Input::End);
    let events = until_done(&mut session).await;
    assert_eq!(finals(&events), ["4800", "6400", "8000"]);
}

#[tokio::test(start_paused = true)]
async fn a_long_message_is_taken_only_as_fast_as_texts_come() {
    let fake = Arc::new(Fake::default());
    *fake.takes.lock() = std::iter::repeat_n(1_000, 200).collect();
    let mut session = session(&fake, Settings { partials: false, max: samples(1_000), ..by_client() });
    session.push(audio(60_000));
    assert!(!session.has_room(), "the socket is not read meanwhile");
    session.push(Input::End);
    let mut most = 0;
    let mut texts = 0;
    loop {
        most = most.max(fake.running.load(Ordering::SeqCst));
        match session.next().await {
            Event::Final(_) => texts += 1,
            Event::Done => break,
            _ => {}
        }
    }
    assert_eq!(texts, 60);
    assert!(most <= 4, "{most} decodes of one session at a time");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_segment_frees_the_engine_from_its_partial() {
    let fake = Arc::new(Fake { takes: Mutex::new([60_000, 10].into()), ..Fake::default() });
    let mut session = session(&fake, by_client());
    session.push(audio(1_000));
    let started = session.next().await;
    assert!(matches!(started, Event::Started { .. }), "{started:?}");
    let waits = tokio::time::timeout(Duration::from_millis(100), session.next()).await;
    assert!(waits.is_err(), "a partial is being decoded: {waits:?}");
    session.push(Input::Commit);
    session.push(Input::End);
    let began = Instant::now();
    let events = until_done(&mut session).await;
    assert_eq!(finals(&events), ["16000"]);
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(matches!(fake.begun.lock()[..], [Key::Partial(0, _), Key::Final(0)]));
    assert_eq!(fake.running.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn partials_keep_their_cadence_without_more_audio() {
    let fake = Arc::new(Fake::default());
    let mut session = session(&fake, by_client());
    session.push(audio(300));
    let mut partials = Vec::new();
    let began = Instant::now();
    for length in [300, 5_000] {
        while !matches!(session.next().await, Event::Partial(_)) {}
        partials.push(began.elapsed());
        session.push(audio(length));
    }
    while !matches!(session.next().await, Event::Partial(_)) {}
    partials.push(began.elapsed());
    let gap = |at: usize| partials[at] - partials[at - 1];
    assert!(gap(1) >= Duration::from_millis(450) && gap(1) < Duration::from_millis(700), "{partials:?}");
    assert!(gap(2) >= Duration::from_millis(450) && gap(2) < Duration::from_millis(700), "{partials:?}");
}

#[tokio::test]
async fn a_decode_that_panics_is_a_failed_segment() {
    let fake = Arc::new(Fake { panics: true, ..Fake::default() });
    let mut session = session(&fake, Settings { partials: false, ..by_client() });
    session.push(audio(500));
    session.push(Input::Commit);
    session.push(Input::End);
    let events = until_done(&mut session).await;
    assert!(events.iter().any(|event| matches!(event, Event::Failed { segment: 0, .. })), "{events:?}");
}

#[tokio::test]
async fn dropping_a_session_frees_its_engines() {
    let fake = Arc::new(Fake { takes: Mutex::new([600_000, 600_000].into()), ..Fake::default() });
    let mut session = session(&fake, by_client());
    session.push(audio(1_000));
    session.push(Input::Commit);
    while !matches!(session.next().await, Event::Committed { .. }) {}
    let waits = tokio::time::timeout(Duration::from_millis(50), session.next()).await;
    assert!(waits.is_err());
    drop(session);
    let deadline = Instant::now() + Duration::from_secs(5);
    while fake.running.load(Ordering::SeqCst) > 0 {
        assert!(Instant::now() < deadline, "a decode goes on");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn speech_comes_as_it_is_made_and_stops_when_told() {
    let fake = Arc::new(Fake::default());
    let mut session = session(&fake, by_client());
    let say = || Say {
        text: "Good morning.".into(),
        voice: "v".into(),
        language: "en-US".into(),
        sample_rate: 24_000,
        route: Capability::Tts.into(),
    };
    let (sender, receiver) = mpsc::channel(4);
    *fake.speech.lock() = Some(receiver);
    session.say(say());
    sender.send(Ok(Bytes::from_static(b"ab"))).await.unwrap();
    assert_eq!(session.next().await, Event::Speech(Bytes::from_static(b"ab")));
    assert!(session.speaks() && session.hush());
    assert!(sender.is_closed(), "the engine's side ends at once");
    assert!(!session.hush());
    let (sender, receiver) = mpsc::channel(4);
    *fake.speech.lock() = Some(receiver);
    session.say(say());
    sender.send(Err(Error::Truncated)).await.unwrap();
    assert_eq!(session.next().await, Event::Spoken(Err(Error::Truncated)));
    session.push(Input::End);
    assert_eq!(session.next().await, Event::Done);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_hears_live_gets_each_segment_while_it_runs() {
    let fake = Arc::new(Fake { live: Some(usize::MAX), ..Fake::default() });
    let mut session = session(&fake, by_client());
    session.push(audio(300));
    let mut events = Vec::new();
    while !matches!(events.last(), Some(Event::Partial(_))) {
        events.push(session.next().await);
    }
    session.push(audio(200));
    session.push(Input::Commit);
    session.push(audio(400));
    session.push(Input::Clear);
    session.push(audio(600));
    session.push(Input::End);
    let events = until_done(&mut session).await;
    assert_eq!(finals(&events), ["live 8000", "live 9600"]);
    assert_eq!(*fake.begun.lock(), [Key::Live(0), Key::Live(1), Key::Live(2)], "nothing is decoded again");
}

#[tokio::test(start_paused = true)]
async fn what_an_engine_did_not_hear_live_is_decoded_afterwards() {
    let fake = Arc::new(Fake { live: Some(5_000), ..Fake::default() });
    let mut session = session(&fake, Settings { partials: false, ..by_client() });
    for length in [200, 700] {
        session.push(audio(length));
        session.push(Input::Commit);
    }
    session.push(Input::End);
    let events = until_done(&mut session).await;
    assert_eq!(finals(&events), ["live 3200", "11200"]);
}

#[tokio::test(start_paused = true)]
async fn finals_say_who_speaks_when_that_is_asked_for() {
    let fake = Arc::new(Fake { takes: Mutex::new([10, 5_000].into()), ..Fake::default() });
    let mut session = session(&fake, Settings { partials: false, speakers: true, ..by_client() });
    for length in [1_000, 1_200] {
        session.push(audio(length));
        session.push(Input::Commit);
    }
    session.push(Input::End);
    let events = until_done(&mut session).await;
    assert_eq!(finals(&events), ["16000", "19200"]);
    let speakers: Vec<Option<usize>> = events
        .iter()
        .filter_map(|event| match event {
            Event::Final(last) => Some(last.speaker()),
            _ => None,
        })
        .collect();
    assert_eq!(speakers, [Some(0), Some(0)]);
    let begun = fake.begun.lock().clone();
    assert!(begun.contains(&Key::Speakers(0)) && begun.contains(&Key::Speakers(1)), "{begun:?}");
}
