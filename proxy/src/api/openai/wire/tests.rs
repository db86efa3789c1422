use super::*;
use crate::api::openai::events::deltas;
use crate::transcript::Turn;

fn heard() -> Heard {
    let word = |at: usize, text: &str| Word {
        start: at as f64 * 0.5,
        end: at as f64 * 0.5 + 0.4,
        text: text.into(),
    };
    let texts = ["Hello,", "who", "is", "it?", "It", "is", "me.", "Come", "in."];
    let words: Vec<Word> = texts.iter().enumerate().map(|(at, text)| word(at, text)).collect();
    let turn = |start, end, speaker: &str| Turn { start, end, speaker: speaker.into() };
    let turns = vec![turn(0.0, 1.95, "spk7"), turn(1.95, 3.45, "spk2"), turn(3.45, 4.5, "spk7")];
    let transcript = Transcript {
        text: texts.join(" "),
        language: Some("en-US".into()),
        duration: Some(4.5),
        words,
        ..Transcript::default()
    };
    let turns = Some(Turns { turns, ..Turns::default() });
    Heard {
        transcript,
        turns,
        known: Vec::new(),
        playing: Playing { seconds: 4.5, exact: true },
        told: 0,
        translated: None,
    }
}

async fn body(heard: Heard, parameters: Parameters) -> String {
    let body = render(heard, &parameters).into_body();
    String::from_utf8(axum::body::to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap()
}

fn with_speakers(format: Format) -> Parameters {
    Parameters { format, speakers: true, segments: true, words: true, ..Parameters::default() }
}

#[tokio::test]
async fn diarized_json_has_letters_in_order_of_speech() {
    let reply: serde_json::Value =
        serde_json::from_str(&body(heard(), with_speakers(Format::DiarizedJson)).await).unwrap();
    assert_eq!(reply["text"], "A: Hello, who is it?\nB: It is me.\nA: Come in.");
    assert_eq!(reply["segments"][1]["speaker"], "B");
    assert_eq!(reply["segments"][1]["type"], "transcript.text.segment");
    assert_eq!(reply["segments"][2]["id"], "seg_003");
    assert_eq!(reply["usage"], serde_json::json!({"type": "duration", "seconds": 5}));
}

#[tokio::test]
async fn speakers_stand_beside_words_segments_and_cues() {
    let reply: serde_json::Value =
        serde_json::from_str(&body(heard(), with_speakers(Format::VerboseJson)).await).unwrap();
    assert_eq!(reply["words"][4]["speaker"], "B");
    assert!(reply["words"][5]["speaker_confidence"].as_f64().is_some_and(|sure| sure > 0.7), "{reply}");
    assert_eq!(reply["segments"][1]["speaker"], "B");
    let vtt = body(heard(), with_speakers(Format::Vtt)).await;
    assert!(vtt.contains("<v B>It is me."), "{vtt}");
    let plain = Heard { turns: None, ..heard() };
    let reply = body(plain, Parameters { speakers: false, ..with_speakers(Format::VerboseJson) }).await;
    assert!(!reply.contains("speaker"), "{reply}");
}

#[tokio::test]
async fn events_add_up_to_the_text() {
    for format in [Format::Json, Format::DiarizedJson] {
        let events = body(heard(), Parameters { stream: true, ..with_speakers(format) }).await;
        let data: Vec<&str> = events.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(data.last(), Some(&"[DONE]"));
        let events: Vec<serde_json::Value> =
            data.iter().filter_map(|data| serde_json::from_str(data).ok()).collect();
        let deltas: String = events.iter().filter_map(|event| event["delta"].as_str()).collect();
        let done = events.last().unwrap();
        assert_eq!((&done["type"], &done["text"]), (&"transcript.text.done".into(), &deltas.into()));
        assert_eq!(done["languages"], serde_json::json!([{"code": "en"}]));
        let segments = events.iter().filter(|event| event["type"] == "transcript.text.segment").count();
        assert_eq!(segments, if format == Format::DiarizedJson { 3 } else { 0 });
    }
}

#[test]
fn names_go_on_after_z() {
    let names = [0, 25, 26, 51, 52, 701, 702].map(letters);
    assert_eq!(names, ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]);
}

proptest::proptest! {
    #[test]
    fn deltas_are_the_whole_text(text in "[a-z.!? \u{3000}\u{4e00}-\u{4e20}]{0,200}") {
        let pieces: Vec<&str> = deltas(&text).collect();
        proptest::prop_assert_eq!(pieces.concat(), text.as_str());
        proptest::prop_assert!(pieces.iter().all(|piece| !piece.is_empty()));
    }
}
