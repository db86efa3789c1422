//! Tests of the requests and replies of recognition over gRPC.

use super::*;
use crate::protocol::testing::{audio, message};
use crate::riva_proto::asr::SpeechRecognitionResult;
use crate::transcript::Turn;

fn encode(wanted: Transcribe, container: Container, file: &'static [u8]) -> RecognizeRequest {
    let audio = audio(container, true);
    let file_sent = File { audio: &audio, form: Riva.intake(&audio), len: Some(file.len() as u64) };
    let encoded = Riva.encode(&Work::Transcribe(wanted), Some(&file_sent), &Settings::default()).unwrap();
    assert_eq!((encoded.path, encoded.content_type.to_str().unwrap()), (RECOGNIZE, "application/grpc"));
    RecognizeRequest::decode(message(&encoded, file)).unwrap()
}

fn plain() -> RecognitionConfig {
    RecognitionConfig {
        encoding: AudioEncoding::LinearPcm.into(),
        sample_rate_hertz: 16_000,
        language_code: "multi".into(),
        max_alternatives: 1,
        audio_channel_count: 1,
        enable_automatic_punctuation: true,
        ..RecognitionConfig::default()
    }
}

fn word(start: i32, end: i32, word: &str, speaker_tag: i32) -> WordInfo {
    WordInfo { start_time: start, end_time: end, word: word.into(), speaker_tag, ..WordInfo::default() }
}

fn reply(results: &[(&str, &[WordInfo], f32)]) -> Vec<u8> {
    let result = |(transcript, words, audio_processed): &(&str, &[WordInfo], f32)| SpeechRecognitionResult {
        alternatives: vec![
            SpeechRecognitionAlternative {
                transcript: (*transcript).into(),
                words: words.to_vec(),
                language_code: vec!["en-US".into()],
                ..SpeechRecognitionAlternative::default()
            },
            SpeechRecognitionAlternative { transcript: "worse".into(), ..Default::default() },
        ],
        channel_tag: 1,
        audio_processed: *audio_processed,
    };
    RecognizeResponse { results: results.iter().map(result).collect(), id: None }.encode_to_vec()
}

#[test]
fn a_plain_request_reads_back() {
    let expected = RecognizeRequest { config: Some(plain()), audio: "samples".into(), id: None };
    assert_eq!(encode(Transcribe::default(), Container::Mp3, b"samples"), expected);
    assert_eq!(encode(Transcribe::default(), Container::Mp3, b"").audio, "");
    let long: &'static [u8] = &[7; 100_000];
    assert_eq!(encode(Transcribe::default(), Container::Wav, long).audio, long);
}

#[test]
fn options_have_their_fields() {
    let words = Transcribe { words: Need::Preferred, language: Some("de".into()), ..Transcribe::default() };
    let expected =
        RecognitionConfig { enable_word_time_offsets: true, language_code: "de-DE".into(), ..plain() };
    assert_eq!(encode(words, Container::Mp3, b"x").config, Some(expected));
    let speakers = Transcribe {
        speakers: true,
        prompt: Some("Nvidia, Grace Hopper".into()),
        temperature: Some(0.3),
        ..Transcribe::default()
    };
    let expected = RecognitionConfig {
        enable_word_time_offsets: true,
        speech_contexts: vec![SpeechContext {
            phrases: vec!["Nvidia".into(), "Grace Hopper".into()],
            boost: BOOST,
        }],
        diarization_config: Some(SpeakerDiarizationConfig {
            enable_speaker_diarization: true,
            max_speaker_count: 8,
        }),
        ..plain()
    };
    assert_eq!(encode(speakers, Container::Mp3, b"x").config, Some(expected));
}

#[test]
fn flac_and_opus_are_sent_as_they_are() {
    for (container, encoding) in
        [(Container::Flac, AudioEncoding::Flac), (Container::OggOpus, AudioEncoding::Oggopus)]
    {
        let config = encode(Transcribe::default(), container, b"x").config.unwrap();
        assert_eq!((config.encoding(), config.sample_rate_hertz), (encoding, 0));
        assert_eq!(Riva.intake(&audio(container, false)), Intake::Pcm);
    }
    assert_eq!(Riva.intake(&audio(Container::Wav, true)), Intake::Pcm);
}

#[test]
fn a_file_of_unknown_or_excessive_length_is_refused() {
    let audio = audio(Container::Wav, true);
    let encode = |len| {
        let file = File { audio: &audio, form: Intake::Pcm, len };
        Riva.encode(&Work::Transcribe(Transcribe::default()), Some(&file), &Settings::default())
    };
    assert!(matches!(encode(None), Err(Error::UnknownLength)));
    assert!(matches!(encode(Some(1 << 32)), Err(Error::Frame(grpc::FrameError::TooLong { .. }))));
}

#[test]
fn results_are_joined() {
    let results: [(&str, &[WordInfo], f32); 2] = [
        ("Good morning. ", &[word(80, 400, "Good", 2), word(400, 900, "morning.", 2)], 2.3),
        (
            "So it is. ",
            &[word(1000, 1200, "So", 1), word(1200, 1300, "it", 1), word(1300, 1500, "is.", 2)],
            5.6,
        ),
    ];
    let read = Riva.transcript(&reply(&results)).unwrap();
    assert_eq!(read.text, "Good morning. So it is.");
    assert_eq!((read.language.as_deref(), read.duration), (Some("en-US"), Some(5.6)));
    assert_eq!(read.words[1], Word { start: 0.4, end: 0.9, text: "morning.".into() });
    assert_eq!(join(&read.words, Spacing::of(&read.words)), read.text);
    let turn = |start, end, speaker: &str| Turn { start, end, speaker: speaker.into() };
    let turns = read.turns.unwrap();
    let expected = [turn(0.08, 0.9, "Speaker_1"), turn(1.0, 1.3, "Speaker_0"), turn(1.3, 1.5, "Speaker_1")];
    assert_eq!(turns.turns, expected);
    assert_eq!(turns.speakers, ["Speaker_1", "Speaker_0"]);
    assert_eq!(Riva.text(&reply(&results)).unwrap().unwrap(), "Good morning. So it is.");
}

#[test]
fn ideographs_are_joined_without_a_space() {
    assert_eq!(
        Riva.transcript(&reply(&[("今日は", &[], 0.0), ("晴れ。", &[], 0.0)])).unwrap().text,
        "今日は晴れ。"
    );
}

#[test]
fn a_last_result_that_repeats_all_words_counts_alone() {
    let (one, two) = ([word(0, 100, "one", 0)], [word(200, 300, "two", 0)]);
    let all = [word(0, 100, "one", 1), word(200, 300, "two", 2)];
    for last in ["", "one two"] {
        let read =
            Riva.transcript(&reply(&[("one", &one, 1.0), ("two", &two, 2.0), (last, &all, 2.0)])).unwrap();
        assert_eq!((read.text.as_str(), read.words.len()), ("one two", 2), "{last:?}");
        assert_eq!(read.turns.unwrap().speakers, ["Speaker_0", "Speaker_1"]);
    }
}

#[test]
fn silence_is_an_empty_transcript() {
    assert_eq!(Riva.transcript(b"").unwrap(), Transcript::default());
    assert_eq!(Riva.text(b"").unwrap().unwrap(), "");
}

#[test]
fn calls_of_recognition_are_tasks() {
    assert_eq!(Riva.task(&Method::POST, RECOGNIZE), Some(Task::Transcribe));
    assert_eq!(Riva.task(&Method::POST, STREAMING_RECOGNIZE), Some(Task::TranscribeStream));
    assert_eq!(Riva.task(&Method::GET, RECOGNIZE), None);
    let config = "/nvidia.riva.asr.RivaSpeechRecognition/GetRivaSpeechRecognitionConfig";
    assert_eq!(Riva.task(&Method::POST, config), None);
}
