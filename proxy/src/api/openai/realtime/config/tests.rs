use super::*;

fn updated(session: Value) -> Result<Config, Error> {
    let mut config = Config::new(Kind::Transcription);
    config.update(session.as_object().unwrap()).map(|()| config)
}

fn param(session: Value) -> &'static str {
    updated(session).unwrap_err().param_name().unwrap()
}

#[test]
fn a_session_of_the_present_api_is_read_and_shown() {
    let session = json!({
        "type": "transcription",
        "audio": {"input": {
            "format": {"type": "audio/pcm", "rate": 16000},
            "transcription": {"model": "parakeet", "language": "en", "prompt": "Kubernetes", "keywords": ["etcd"]},
            "noise_reduction": {"type": "near_field"},
            "turn_detection": {"type": "server_vad", "threshold": 0.6, "silence_duration_ms": 200},
        }},
    });
    let config = updated(session).unwrap();
    assert_eq!(config.input, Format { sample: Sample::S16, rate: 16_000 });
    let wanted = config.transcription.clone().unwrap();
    assert_eq!((wanted.model.as_deref(), wanted.language.as_deref()), (Some("parakeet"), Some("en")));
    assert_eq!(wanted.prompt.as_deref(), Some("Kubernetes\netcd"));
    let rules = config.settings().rules.unwrap();
    assert_eq!((rules.silence, rules.pad), (samples(200), samples(300)));
    let shown = config.object("sess_1", 7);
    assert_eq!(shown["object"], "realtime.transcription_session");
    assert_eq!(shown["audio"]["input"]["turn_detection"]["prefix_padding_ms"], 300);
    assert_eq!(shown["audio"]["input"]["noise_reduction"]["type"], "near_field");
}

#[test]
fn a_session_of_the_beta_is_read_as_well() {
    let session = json!({
        "input_audio_format": "g711_ulaw", "input_audio_transcription": {"model": "whisper-1"},
        "turn_detection": null, "input_audio_noise_reduction": null,
    });
    let config = updated(session).unwrap();
    assert_eq!(config.input, Format { sample: Sample::MuLaw, rate: 8_000 });
    assert_eq!(config.turns(), Turns::Client);
    assert_eq!(config.settings().rules, None);
}

#[test]
fn what_is_missing_stays_and_null_clears() {
    let mut config =
        updated(json!({"audio": {"input": {"transcription": {"model": "parakeet", "language": "de"}}}}))
            .unwrap();
    let update = json!({"audio": {"input": {"transcription": {"language": null}}}});
    config.update(update.as_object().unwrap()).unwrap();
    let wanted = config.transcription.clone().unwrap();
    assert_eq!((wanted.model.as_deref(), wanted.language), (Some("parakeet"), None));
    config.update(json!({"audio": {"input": {"transcription": null}}}).as_object().unwrap()).unwrap();
    assert!(config.transcription.is_none() && !config.settings().hears);
}

#[test]
fn models_that_find_no_turns_leave_them_to_the_client() {
    let model = |model: &str| json!({"audio": {"input": {"transcription": {"model": model}}}});
    assert_eq!(updated(model("gpt-realtime-whisper")).unwrap().turns(), Turns::Client);
    assert_eq!(updated(model("gpt-4o-transcribe")).unwrap().turns(), Turns::SERVER);
}

#[test]
fn what_cannot_be_met_is_refused_by_name() {
    for (session, path) in [
        (json!({"type": "other"}), "session.type"),
        (json!({"audio": 1}), "session.audio"),
        (json!({"audio": {"input": {"format": {"type": "audio/opus"}}}}), "session.audio.input.format"),
        (
            json!({"audio": {"input": {"format": {"type": "audio/pcm", "rate": 1}}}}),
            "session.audio.input.format.rate",
        ),
        (json!({"audio": {"input": {"format": 7}}}), "session.audio.input.format"),
        (
            json!({"turn_detection": {"type": "server_vad", "threshold": 2}}),
            "session.audio.input.turn_detection",
        ),
        (json!({"turn_detection": {"type": "client"}}), "session.audio.input.turn_detection"),
        (json!({"turn_detection": "none"}), "session.audio.input.turn_detection"),
        (json!({"include": ["item.input_audio_transcription.logprobs"]}), "session.include"),
        (
            json!({"input_audio_transcription": {"language": "!"}}),
            "session.audio.input.transcription.language",
        ),
        (
            json!({"input_audio_transcription": {"language": "en", "languages": ["de"]}}),
            "session.audio.input.transcription.languages",
        ),
        (json!({"audio": {"output": {"format": {"type": "audio/pcmu"}}}}), "session.audio.output.format"),
        (json!({"audio": {"output": {"speed": 1.5}}}), "session.audio.output.speed"),
    ] {
        assert_eq!(param(session.clone()), path, "{session}");
    }
}
