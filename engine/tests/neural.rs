//! Neural speech: words, times, languages, speakers and voices, on recordings of people.
//!
//! It needs what `make models` and `make clips` fetch. Where that is missing the tests say so; with `CI=true` they fail.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::path::PathBuf;
use std::time::Instant;

use futures::StreamExt;
use serde_json::{Value, json};
use speechstack_engine::app::Config;
use speechstack_engine::backend::{Models, Precision};
use speechstack_engine::kind::Kind;

use speechstack_engine::wav;
use support::{Engine, config, level, samples, upload};

/// A folder of the cache, or a loud word that it is missing.
fn fetched(name: &str, variable: &str, file: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    let folder = std::env::var_os(variable).map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| cache.unwrap_or_else(home).join("speechstack").join(name));
    if folder.join(file).is_file() {
        return Some(folder);
    }
    eprintln!("\n*** NOT TESTED: {} is missing, make {name} fetches it ***\n", folder.join(file).display());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "nothing may be left out here");
    None
}

fn models() -> Option<Models> {
    let folder = fetched("models", "SPEECHSTACK_ENGINE_MODELS", "whisper-base/model.bin")?;
    Some(Models { folder: Some(folder), ..Models::default() })
}

fn clip(name: &str) -> Option<Vec<u8>> {
    Some(std::fs::read(fetched("clips", "SPEECHSTACK_ENGINE_CLIPS", name)?.join(name)).unwrap())
}

async fn engine(kind: Kind, protocol: &str, models: Models) -> Engine {
    Engine::with(Config { models, ..config(kind, &[protocol]) }).await
}

/// Words in lower case without marks; some spellings made one.
fn words(text: &str) -> Vec<String> {
    let text = text
        .to_lowercase()
        .replace(['-', '\u{2014}'], " ")
        .replace("mr.", "mister")
        .replace("mr ", "mister ");
    let word = |word: &str| word.chars().filter(|sign| sign.is_alphanumeric()).collect::<String>();
    text.split_whitespace().map(word).filter(|word| !word.is_empty()).collect()
}

/// Words to be changed, left out or added.
fn errors(said: &[String], heard: &[String]) -> usize {
    let mut row: Vec<usize> = (0..=heard.len()).collect();
    for (i, word) in said.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in heard.iter().enumerate() {
            let changed = diagonal + usize::from(word != other);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[heard.len()]
}

/// The committed recordings and their words.
fn readings() -> Vec<(String, Vec<u8>, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clips");
    let list = std::fs::read_to_string(folder.join("words.txt")).unwrap();
    let reading = |line: &str| {
        let (name, text) = line.split_once(' ').unwrap();
        (name.to_owned(), std::fs::read(folder.join(name).with_extension("wav")).unwrap(), text.to_owned())
    };
    list.lines().map(reading).collect()
}

#[tokio::test]
async fn readings_come_back_with_their_words_at_the_times_of_another_aligner() {
    let Some(models) = models() else { return };
    let neural = engine(Kind::Stt, "parakeet", models).await;
    let fallback = Engine::start(Kind::Stt).await;
    let (mut wrong, mut all, mut apart) = (0, 0, Vec::new());
    for (name, file, text) in readings() {
        let (_, heard) = neural.transcribe(&file).await;
        let (_, aligned) = fallback.transcribe(&file).await;
        let said = words(&text);
        let errors = errors(&said, &words(heard["text"].as_str().unwrap()));
        println!("{name}: {errors} of {} words", said.len());
        (wrong, all) = (wrong + errors, all + said.len());
        assert_eq!((&heard["language"], &heard["model"]), (&json!("en"), &json!("whisper-base")));
        let times = |body: &Value| -> Vec<(String, f64, f64)> {
            let word = |word: &Value| {
                let text = words(word["text"].as_str().unwrap()).concat();
                (text, word["start"].as_f64().unwrap(), word["end"].as_f64().unwrap())
            };
            body["words"].as_array().unwrap().iter().map(word).collect()
        };
        let (mine, other) = (times(&heard), times(&aligned));
        assert!(mine.iter().all(|(_, start, end)| start < end), "{mine:?}");
        assert!(mine.windows(2).all(|pair| pair[0].2 <= pair[1].1 + 0.011), "{mine:?}");
        // Words that both heard at about the same place.
        for (word, start, end) in &mine {
            let same = other.iter().filter(|(text, ..)| text == word).map(|(_, s, e)| (s - start, e - end));
            let nearest =
                same.min_by(|a, b| a.0.abs().total_cmp(&b.0.abs())).filter(|(start, _)| start.abs() < 1.0);
            apart.extend(nearest.map(|(start, end)| (start.abs(), end.abs())));
        }
    }
    assert!(wrong * 100 <= all * 6, "{wrong} of {all} words");
    let mean = |of: fn(&(f64, f64)) -> f64| apart.iter().map(of).sum::<f64>() / apart.len() as f64;
    let within = apart.iter().filter(|(start, _)| *start <= 0.2).count();
    println!(
        "{wrong} of {all} words; {} aligned, starts {:.3} s apart, ends {:.3} s",
        apart.len(),
        mean(|a| a.0),
        mean(|a| a.1)
    );
    assert!(
        apart.len() >= 40 && within * 10 >= apart.len() * 9,
        "{within} of {} words begin in time: {apart:?}",
        apart.len()
    );
    neural.stop().await;
    fallback.stop().await;
}

/// What is lost in 8 bits is little. The other tests have what suits the processor.
#[tokio::test]
async fn both_other_precisions_write_readings_down() {
    let Some(models) = models() else { return };
    for precision in [Precision::Eight, Precision::Single] {
        let engine =
            engine(Kind::Stt, "parakeet", Models { precision: Some(precision), ..models.clone() }).await;
        let (mut wrong, mut all) = (0, 0);
        for (_, file, text) in readings() {
            let (_, heard) = engine.transcribe(&file).await;
            let said = words(&text);
            wrong += errors(&said, &words(heard["text"].as_str().unwrap()));
            all += said.len();
        }
        println!("{precision}: {wrong} of {all} words");
        assert!(wrong * 100 <= all * 6, "{precision}: {wrong} of {all} words");
        engine.stop().await;
    }
}

/// Whole sentences of half a minute: no word is lost or repeated where the recording is cut.
#[tokio::test]
async fn a_talk_and_german_words_are_written_down_whole() {
    let (Some(models), Some(talk), Some(german)) = (models(), clip("talk.wav"), clip("de.wav")) else {
        return;
    };
    let engine = engine(Kind::Stt, "parakeet", models).await;
    let (_, heard) = engine.transcribe(&talk).await;
    let heard = words(heard["text"].as_str().unwrap());
    assert!((100..=108).contains(&heard.len()), "{heard:?}");
    for phrase in [
        "it was impossible to connect the dots looking forward when i was in college",
        "you have to trust that the dots will somehow connect in your future",
        "and that will make all the difference",
    ] {
        assert!(heard.join(" ").contains(phrase), "{phrase}: {heard:?}");
    }
    let (_, heard) = engine.transcribe(&german).await;
    let heard = words(heard["text"].as_str().unwrap());
    let said = words(
        "Am Strand der Badeanzug die Badehose die Sandalen die Luftmatratze das Handtuch das Eis der Ball die Sonne das Meer die Wellen",
    );
    let wrong = errors(&said, &heard);
    assert!(wrong <= 1, "{wrong} of {} words: {heard:?}", said.len());
    engine.stop().await;
}

#[tokio::test]
async fn telephone_conversation_has_its_words_and_speakers() {
    let (Some(models), Some(file)) = (models(), clip("telephone.wav")) else { return };
    let text = |name: &str| String::from_utf8(clip(name).unwrap()).unwrap();
    let (stm, rttm) = (text("telephone.stm"), text("telephone.rttm"));
    let engine = engine(Kind::Stt, "parakeet", models).await;
    let said = stm.lines().map(|line| line.splitn(6, ' ').nth(5).unwrap()).collect::<Vec<_>>().join(" ");
    let (_, heard) = engine.transcribe(&file).await;
    let (said, heard) = (words(&said), words(heard["text"].as_str().unwrap()));
    let wrong = errors(&said, &heard);
    println!("telephone: {wrong} of {} words", said.len());
    assert!(wrong * 4 <= said.len(), "{wrong} of {} words: {heard:?}", said.len());
    let response = engine.post("/v1/audio/diarize", upload(&file)).send().await.unwrap();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["speakers_detected"].as_array().unwrap().len(), 2, "{body}");
    let turns: Vec<(f64, f64, usize)> = body["segments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|turn| {
            let time = |key: &str| turn[key].as_f64().unwrap();
            (time("start_s"), time("end_s"), usize::from(turn["speaker"] == "Speaker_1"))
        })
        .collect();
    let reference: Vec<(f64, f64, usize)> = rttm
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let start: f64 = fields[3].parse().unwrap();
            (start, start + fields[4].parse::<f64>().unwrap(), usize::from(fields[7] == "speaker91"))
        })
        .collect();
    let error = diarization_error(&reference, &turns);
    println!("telephone: diarization error {:.1} %", error * 100.0);
    assert!(error <= 0.12, "{error}: {turns:?}");
    engine.stop().await;
}

/// Missed, wrong and confused speech over all speech, without a collar, for the better pairing of two speakers.
fn diarization_error(reference: &[(f64, f64, usize)], turns: &[(f64, f64, usize)]) -> f64 {
    let active = |turns: &[(f64, f64, usize)], time: f64| {
        let mut speakers = [false; 2];
        turns.iter().filter(|turn| turn.0 <= time && time < turn.1).for_each(|turn| speakers[turn.2] = true);
        speakers
    };
    let error = |swapped: bool| {
        let (mut wrong, mut all) = (0, 0);
        for step in 0..3_000 {
            let time = (f64::from(step) + 0.5) * 0.01;
            let (said, mut found) = (active(reference, time), active(turns, time));
            if swapped {
                found.reverse();
            }
            let count = |speakers: [bool; 2]| speakers.iter().filter(|speaks| **speaks).count();
            let right = (0..2).filter(|speaker| said[*speaker] && found[*speaker]).count();
            wrong += count(said).max(count(found)) - right;
            all += count(said);
        }
        wrong as f64 / all as f64
    };
    error(false).min(error(true))
}

#[tokio::test]
async fn languages_are_named_right() {
    let Some(models) = models() else { return };
    let engine = engine(Kind::Stt, "openai", models).await;
    for (code, name) in [
        ("de", "german"),
        ("en", "english"),
        ("es", "spanish"),
        ("fr", "french"),
        ("it", "italian"),
        ("ja", "japanese"),
        ("pt", "portuguese"),
        ("zh", "chinese"),
    ] {
        let Some(file) = clip(&format!("{code}.wav")) else { return };
        let form = upload(&file).text("model", "whisper-1").text("response_format", "verbose_json");
        let response = engine.post("/v1/audio/transcriptions", form).send().await.unwrap();
        let body: Value = response.json().await.unwrap();
        println!("{code}: {} {}", body["language"], body["text"]);
        assert_eq!(body["language"], name, "{body}");
        assert!(!body["text"].as_str().unwrap().is_empty());
        let spaced = body["text"].as_str().unwrap().contains(' ');
        assert_eq!(spaced, !matches!(code, "ja" | "zh"), "{body}");
    }
    let wrong = upload(&clip("en.wav").unwrap()).text("model", "whisper-1").text("language", "klingon");
    let refused = engine.post("/v1/audio/transcriptions", wrong).send().await.unwrap();
    assert_eq!(refused.status(), 400);
    engine.stop().await;
}

#[tokio::test]
async fn what_is_no_speech_has_no_words() {
    let Some(models) = models() else { return };
    let engine = engine(Kind::Stt, "parakeet", models).await;
    let mut state = 1_u32;
    let mut chance = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24) - 0.5
    };
    let seconds = |count: usize| 0..16_000 * count;
    let noise: Vec<i16> = seconds(8).map(|_| (chance() * 12_000.0) as i16).collect();
    // A chord of three tones with overtones that changes each half second.
    let music: Vec<i16> = seconds(8)
        .map(|index| {
            let time = index as f64 / 16_000.0;
            let root = [220.0, 261.6, 329.6, 293.7][(time * 2.0) as usize % 4];
            let fading = (-(time * 2.0).fract() * 2.0).exp();
            let tone = |hz: f64| {
                (1..5)
                    .map(|n| (std::f64::consts::TAU * hz * f64::from(n) * time).sin() / f64::from(n))
                    .sum::<f64>()
            };
            (fading * 3_000.0 * [1.0, 1.25, 1.5].map(|ratio| tone(root * ratio)).iter().sum::<f64>()) as i16
        })
        .collect();
    for (name, sound) in [("silence", vec![0; 16_000 * 8]), ("noise", noise), ("music", music)] {
        let (_, body) = engine.transcribe(&wav::encode(&sound, 16_000)).await;
        assert_eq!(body["text"], "", "{name}: {body}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn voices_are_understood_and_their_sentences_join_without_clicks() {
    let Some(models) = models() else { return };
    let text = "Please call me back tomorrow morning at nine. We need to finish the report before the meeting starts, \
        and the government will announce the new budget next week. Can you tell me how to get to the city hospital?";
    let (speaking, hearing) =
        (engine(Kind::Tts, "openai", models.clone()).await, engine(Kind::Stt, "parakeet", models).await);
    let ask = |voice: &str, input: &str, format: &str| {
        let body = json!({ "model": "tts-1", "voice": voice, "input": input, "response_format": format });
        speaking.client.post(format!("{}/v1/audio/speech", speaking.url)).json(&body).send()
    };
    let (mut wrong, mut all) = (0, 0);
    for voice in ["alloy", "echo", "ballad", "onyx"] {
        let file = ask(voice, text, "wav").await.unwrap().bytes().await.unwrap();
        let (_, body) = hearing.transcribe(&file).await;
        let (said, heard) =
            (words(&text.replace("nine", "9")), words(&body["text"].as_str().unwrap().replace("nine", "9")));
        let errors = errors(&said, &heard);
        println!("{voice}: {errors} of {} words: {}", said.len(), body["text"]);
        (wrong, all) = (wrong + errors, all + said.len());
    }
    assert!(wrong * 20 <= all, "{wrong} of {all} words");
    let asked = Instant::now();
    let response = ask("alloy", text, "pcm").await.unwrap();
    let mut pieces = response.bytes_stream();
    let mut audio = pieces.next().await.unwrap().unwrap().to_vec();
    println!("first audio after {:?}", asked.elapsed());
    while let Some(piece) = pieces.next().await {
        audio.extend(piece.unwrap());
    }
    let made = samples(&audio);
    assert!(level(&made) > 500.0 && made.len() > 24_000 * 8);
    // The first sentence alone ends where the second begins: there the sound comes to rest.
    let first = ask("alloy", "Please call me back tomorrow morning at nine.", "pcm").await.unwrap();
    let join = samples(&first.bytes().await.unwrap()).len();
    let around = &made[join - 24..join + 24];
    println!("at the join: {around:?}");
    let step = |pair: &[i16]| (i32::from(pair[1]) - i32::from(pair[0])).abs();
    assert!(around[23].abs() < 50 && around[24].abs() < 50, "{around:?}");
    assert!(around.windows(2).all(|pair| step(pair) < 400), "{around:?}");
    speaking.stop().await;
    hearing.stop().await;
}

/// Kokoro's voices, read by the tables in English and by espeak-ng in other languages.
#[tokio::test]
async fn several_voices_in_five_languages_are_understood() {
    let (Some(models), Some(_)) =
        (models(), fetched("models", "SPEECHSTACK_ENGINE_MODELS", "kokoro/kokoro-v1.0.int8.onnx"))
    else {
        return;
    };
    let speaking = engine(Kind::Tts, "magpie", models.clone()).await;
    let hearing = engine(Kind::Stt, "parakeet", models).await;
    let listed: Value = speaking
        .client
        .get(format!("{}/v1/audio/list_voices", speaking.url))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        listed.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["en-US", "es-US", "fr-FR", "it-IT", "pt-BR"],
        "without espeak-ng there is English only"
    );
    let ask = |voice: &str, text: &str| {
        let form = reqwest::multipart::Form::new().text("text", text.to_owned());
        speaking
            .post("/v1/audio/synthesize", form.text("voice", format!("Magpie-Multilingual.{voice}")))
            .send()
    };
    let (mut wrong, mut all) = (0, 0);
    for (voice, text) in [
        ("EN-US.Jason", "The government will announce the new budget next week."),
        ("EN-US.Pascal", "Can you tell me how to get to the city hospital?"),
        ("ES-US.Diego", "El gobierno anunciará el nuevo presupuesto la próxima semana."),
        ("FR-FR.Louise", "Le gouvernement annoncera le nouveau budget la semaine prochaine."),
        ("IT-IT.Isabela", "Domani mattina il treno parte alla stessa ora."),
        ("PT-BR.Isabela", "O governo vai anunciar o novo orçamento na próxima semana."),
    ] {
        let file = ask(voice, text).await.unwrap().bytes().await.unwrap();
        let (_, body) = hearing.transcribe(&file).await;
        let (said, heard) = (words(text), words(body["text"].as_str().unwrap()));
        println!("{voice}: {} of {} words: {}", errors(&said, &heard), said.len(), body["text"]);
        (wrong, all) = (wrong + errors(&said, &heard), all + said.len());
    }
    assert!(wrong * 10 <= all, "{wrong} of {all} words");
    assert_eq!(ask("DE-DE.Diego", "Guten Tag").await.unwrap().status(), 400);
    speaking.stop().await;
    hearing.stop().await;
}

#[tokio::test]
async fn faults_strike_networks_too() {
    let Some(models) = models() else { return };
    let engine = engine(Kind::Stt, "parakeet", models).await;
    let (_, file, _) = readings().remove(4);
    for (mode, status) in [("F1", 500), ("F4", 422), ("F35", 404)] {
        engine.arm(json!({ "mode": mode })).await;
        assert_eq!(engine.transcribe(&file).await.0, status, "{mode}");
        engine.disarm().await;
    }
    engine.arm(json!({ "mode": "F14", "variant": "constant" })).await;
    assert_eq!(engine.transcribe(&file).await.1["text"], "thank you");
    engine.disarm().await;
    assert!(engine.transcribe(&file).await.1["text"].as_str().unwrap().contains("amiable"));
    engine.stop().await;
}
