use proptest::prelude::*;

use super::*;
use crate::audio::Sample;
use crate::stream::clock::Format;
use crate::transcript::Word;

/// Speech is what is loud.
struct Loud;

impl Voice for Loud {
    fn score(&mut self, frame: &[i16]) -> f32 {
        if frame.iter().any(|sample| sample.unsigned_abs() > 1_000) { 0.9 } else { 0.0 }
    }

    fn reset(&mut self) {}
}

const FORMAT: Format = Format { sample: Sample::S16, rate: 16_000 };

fn core(settings: Settings) -> Core {
    Core::new(settings, Box::new(Loud)).unwrap()
}

fn by_voice() -> Settings {
    Settings::new(FORMAT)
}

fn by_client() -> Settings {
    Settings { rules: None, ..Settings::new(FORMAT) }
}

/// Samples of one level.
fn level(milliseconds: u64, level: i16) -> Vec<u8> {
    (0..samples(milliseconds)).flat_map(|_| level.to_le_bytes()).collect()
}

fn events(core: &mut Core) -> Vec<Event> {
    std::iter::from_fn(|| core.event()).collect()
}

fn text(text: &str) -> Result<Transcript, Error> {
    Ok(Transcript { text: text.into(), ..Transcript::default() })
}

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[test]
fn an_utterance_gives_its_events_in_order() {
    let mut core = core(by_voice());
    core.audio(&level(1_000, 0));
    core.audio(&level(1_000, 8_000));
    core.audio(&level(1_000, 0));
    let order = core.order(at(3_000), || false).unwrap();
    assert_eq!(order.key, Key::Final(0));
    core.heard(order.key, text("Hello."));
    let events = events(&mut core);
    let [
        Event::Started { segment: 0, at },
        Event::Committed { span, why: Why::Silence, .. },
        Event::Final(last),
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert!((*at, &last.span) == (span.start, span), "{events:?}");
    assert_eq!(order.audio.len() as u64, span.end - span.start);
    assert_eq!(last.transcript.text, "Hello.");
    assert!(core.is_settled());
}

#[test]
fn a_partial_needs_new_speech_time_and_a_free_engine() {
    let mut core = core(by_voice());
    core.audio(&level(200, 8_000));
    assert_eq!(core.order(at(200), || true), None, "too little speech");
    core.audio(&level(200, 8_000));
    assert_eq!(core.order(at(400), || false), None, "no engine is free");
    let first = core.order(at(400), || true).unwrap();
    assert_eq!(first.key, Key::Partial(0, 0.0));
    core.audio(&level(700, 8_000));
    assert_eq!(core.order(at(1_100), || true), None, "one is in flight");
    core.heard(first.key, text("The train"));
    assert_eq!(core.order(at(800), || true), None, "too soon");
    assert_eq!(core.due(), Some(at(900)));
    let second = core.order(at(900), || true).unwrap();
    core.heard(second.key, text("The train was late"));
    assert_eq!(core.order(at(5_000), || true), None, "nothing new was said");
    let partials: Vec<_> = events(&mut core)
        .into_iter()
        .filter_map(|event| match event {
            Event::Partial(partial) => Some((partial.added, partial.committed, partial.tail)),
            _ => None,
        })
        .collect();
    assert_eq!(
        partials,
        [
            (String::new(), String::new(), "The".to_owned()),
            ("The train".to_owned(), "The train".to_owned(), " was".to_owned())
        ]
    );
}

#[test]
fn partials_come_twice_as_often_until_there_is_text_to_show() {
    let mut core = core(by_voice());
    core.audio(&level(300, 8_000));
    for (now, heard, next) in [(300, "", 550), (550, "The", 800), (800, "The train", 1_300)] {
        let order = core.order(at(now), || true).unwrap();
        core.heard(order.key, text(heard));
        core.audio(&level(300, 8_000));
        assert_eq!(core.due(), Some(at(next)), "after {heard:?}");
    }
}

/// The whole utterance may be heard otherwise than its beginning was, twice: as pocketsphinx hears "the train" and then "a train".
#[test]
fn a_final_revises_a_committed_word_only_where_clients_replace_texts() {
    for (appends, expected, added) in [(true, "The train was late", " late"), (false, "A train was late", "")]
    {
        let mut core = core(Settings { appends, ..by_voice() });
        for text in ["The train", "The train was", "The train was late"] {
            core.audio(&level(600, 8_000));
            let partial = core.order(at(core.position() / 16), || true).unwrap();
            core.heard(partial.key, Ok(Transcript { text: text.into(), ..Transcript::default() }));
        }
        core.audio(&level(1_000, 0));
        let last = core.order(at(9_000), || true).unwrap();
        core.heard(last.key, text("A train was late"));
        let Some(Event::Final(last)) = events(&mut core).pop() else { panic!("no final") };
        assert_eq!((&*last.transcript.text, &*last.rest), (expected, added));
    }
}

#[test]
fn a_partial_of_a_segment_that_has_ended_is_not_shown() {
    let mut core = core(by_voice());
    core.audio(&level(600, 8_000));
    let partial = core.order(at(600), || true).unwrap();
    core.audio(&level(1_000, 0));
    assert!(!core.wants(partial.key));
    let last = core.order(at(1_600), || true).unwrap();
    core.heard(partial.key, text("stale"));
    core.heard(last.key, text("final"));
    assert!(events(&mut core).iter().all(|event| !matches!(event, Event::Partial(_))));
}

#[test]
fn texts_come_in_the_order_of_segments_and_finals_go_before_partials() {
    let mut core = core(by_voice());
    for _ in 0..2 {
        core.audio(&level(800, 8_000));
        core.audio(&level(800, 0));
    }
    core.audio(&level(800, 8_000));
    let orders: Vec<_> = std::iter::from_fn(|| core.order(at(4_000), || true)).collect();
    let keys: Vec<_> = orders.iter().map(|order| order.key).collect();
    assert_eq!(keys, [Key::Final(0), Key::Final(1), Key::Partial(2, 0.0)]);
    core.heard(Key::Final(1), text("two"));
    assert!(events(&mut core).iter().all(|event| !matches!(event, Event::Final(_))));
    core.heard(Key::Final(0), Err(Error::Truncated));
    let last = events(&mut core);
    assert!(
        matches!(&last[..], [Event::Failed { segment: 0, .. }, Event::Final(Final { segment: 1, .. })]),
        "{last:?}"
    );
}

#[test]
fn the_client_commits_what_it_sent() {
    let mut core = core(by_client());
    core.commit();
    assert_eq!(events(&mut core), [Event::Empty]);
    core.audio(&level(2_000, 0));
    core.commit();
    let order = core.order(at(1), || true).unwrap();
    assert_eq!(order.audio.len() as u64, samples(2_000), "silence goes to the engine when it is committed");
    core.heard(order.key, text(""));
    core.audio(&level(50, 0));
    core.commit();
    assert_eq!(core.order(at(2), || true), None, "no engine takes so little");
    let finals = events(&mut core).into_iter().filter(|event| matches!(event, Event::Final(_))).count();
    assert_eq!(finals, 2, "and still it is answered");
    core.audio(&level(50, 0));
    core.clear();
    core.commit();
    let left = events(&mut core);
    assert_eq!(left[left.len() - 2..], [Event::Cleared, Event::Empty]);
}

#[test]
fn little_noise_costs_no_engine() {
    let mut core = core(by_voice());
    core.audio(&level(80, 8_000));
    core.audio(&level(1_000, 0));
    assert_eq!(core.order(at(2_000), || true), None);
    let events = events(&mut core);
    assert!(
        matches!(events.last(), Some(Event::Final(last)) if last.transcript.text.is_empty()),
        "{events:?}"
    );
}

#[test]
fn a_session_stops_taking_audio_while_too_many_segments_wait() {
    let mut core = core(by_voice());
    let mut taken = 0;
    while core.has_room() && taken < 100 {
        core.audio(&level(800, 8_000));
        core.audio(&level(800, 0));
        taken += 1;
    }
    assert_eq!(taken, MAX_FINALS);
    core.heard(Key::Final(0), text("one"));
    assert!(core.has_room());
}

#[test]
fn long_speech_keeps_its_partials_short() {
    let mut core = core(Settings { max: samples(60_000), ..by_client() });
    let mut now = 0;
    let mut longest = 0.0_f64;
    for second in 1..40 {
        core.audio(&level(1_000, 8_000));
        now += 1_000;
        if let Some(order) = core.order(at(now), || true) {
            let Key::Partial(_, offset) = order.key else { panic!() };
            longest = longest.max(order.seconds());
            // A word a second, timed from the start of what the engine got.
            let words: Vec<Word> = (0..60)
                .map(|at| Word { start: f64::from(at), end: f64::from(at) + 0.9, text: format!("w{at}") })
                .filter(|word| word.start >= offset - 0.05 && word.end <= f64::from(second))
                .map(|word| Word { start: word.start - offset, end: word.end - offset, ..word })
                .collect();
            let text = words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
            core.heard(order.key, Ok(Transcript { text, words, ..Transcript::default() }));
        }
    }
    assert!(longest <= PARTIAL_SECONDS, "{longest}");
    let last = events(&mut core).into_iter().rev().find_map(|event| match event {
        Event::Partial(partial) => Some(partial.text()),
        _ => None,
    });
    // The last word may be cut.
    let expected = (0..38).map(|at| format!("w{at}")).collect::<Vec<_>>().join(" ");
    assert_eq!(last.as_deref(), Some(&*expected), "no word is lost or doubled at a joint");
}

#[test]
fn a_turn_ends_sooner_after_a_sentence_than_after_a_conjunction() {
    let longest = samples(4_000);
    assert_eq!(silence_after("It works.", longest), samples(300));
    assert_eq!(silence_after("It works", longest), samples(700));
    assert_eq!(silence_after("It works and", longest), longest);
    assert_eq!(silence_after("well,", longest), longest);
    assert_eq!(silence_after("wait...", longest), longest);
}

#[test]
fn settings_change_between_segments_and_a_wrong_rate_changes_nothing() {
    let mut core = core(by_voice());
    core.audio(&level(500, 0));
    let wrong = Settings { format: Format { rate: 7, ..FORMAT }, ..by_client() };
    assert!(core.configure(wrong).is_err());
    assert!(core.settings().rules.is_some());
    core.configure(Settings { format: Format { sample: Sample::MuLaw, rate: 8_000 }, ..by_client() })
        .unwrap();
    core.audio(&vec![0xFF; 8_000]);
    core.commit();
    let order = core.order(at(1), || true).unwrap();
    assert_eq!(order.audio.len() as u64, samples(1_000), "what came before is no part of it");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_chunking_gives_the_same_finals(
        runs in prop::collection::vec((50_u64..1_500, prop::bool::ANY), 1..10),
        cuts in prop::collection::vec(1_usize..40_000, 0..20),
        rate in prop::sample::select(vec![8_000_u32, 16_000, 24_000]),
    ) {
        let bytes: Vec<u8> = runs
            .iter()
            .flat_map(|(length, loud)| {
                let count = length * u64::from(rate) / 1000;
                let value: i16 = if *loud { 9_000 } else { 0 };
                (0..count).flat_map(move |at| (if at % 2 == 0 { value } else { -value / 2 }).to_le_bytes())
            })
            .collect();
        let finals = |cuts: &[usize]| {
            let mut core = core(Settings::new(Format { sample: Sample::S16, rate }));
            let (mut at, mut found) = (0_usize, Vec::new());
            for cut in cuts.iter().copied().chain([usize::MAX]) {
                let end = at.saturating_add(cut).min(bytes.len());
                core.audio(&bytes[at..end]);
                at = end;
                while let Some(order) = core.order(Duration::ZERO, || false) {
                    found.push(order.audio.clone());
                    core.heard(order.key, text("x"));
                }
            }
            core.finish();
            while let Some(order) = core.order(Duration::ZERO, || false) {
                found.push(order.audio.clone());
                core.heard(order.key, text("x"));
            }
            (found, core.position())
        };
        prop_assert!(finals(&cuts) == finals(&[]));
    }
}

#[test]
fn a_final_waits_for_its_speakers_and_goes_without_when_they_cannot_be_told() {
    let mut core = core(Settings { speakers: true, partials: false, ..by_client() });
    for _ in 0..2 {
        core.audio(&level(1_000, 8_000));
        core.commit();
    }
    let orders: Vec<Order> = std::iter::from_fn(|| core.order(at(0), || true)).collect();
    let keys: Vec<Key> = orders.iter().map(|order| order.key).collect();
    assert_eq!(keys, [Key::Final(0), Key::Final(1), Key::Speakers(0)], "one after the other");
    core.heard(Key::Final(0), text("one"));
    core.heard(Key::Final(1), text("two"));
    assert!(!events(&mut core).iter().any(|event| matches!(event, Event::Final(_))));
    core.heard(Key::Speakers(0), Err(Error::PoisonInput));
    let [Event::Final(first)] = &events(&mut core)[..] else { panic!("no final") };
    assert_eq!((&*first.transcript.text, first.speaker()), ("one", None));
    let order = core.order(at(0), || true).unwrap();
    assert_eq!(order.key, Key::Speakers(1));
    let turn = crate::transcript::Turn { start: 0.0, end: order.seconds(), speaker: "x".into() };
    let turns = crate::job::work::Turns { turns: vec![turn], ..Default::default() };
    core.heard(order.key, Ok(Transcript { turns: Some(turns), ..Transcript::default() }));
    let [Event::Final(second)] = &events(&mut core)[..] else { panic!("no final") };
    assert_eq!(second.speakers, [Talk { span: 0.0..1.0, speaker: 0 }]);
    assert!(core.is_settled());
}
