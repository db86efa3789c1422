//! Which protocols one process may serve.

use super::*;

fn protocols(names: &[&str]) -> Vec<Protocol> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

#[test]
fn http_and_grpc_protocols_go_together() {
    let grpc = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    for (kind, names, grpc) in [
        (Kind::Stt, &["nim_http", "riva"][..], grpc),
        (Kind::Stt, &["riva"], grpc),
        (Kind::Tts, &["magpie", "riva_tts"], grpc),
        (Kind::Stt, &["nim_http", "nim_realtime", "riva"], grpc),
        (Kind::Stt, &["nemo_speech", "nemo_speech_streaming"], None),
        (Kind::Stt, &["nim_realtime"], None),
        (Kind::Stt, &["openai"], None),
        (Kind::Tts, &["openai"], None),
        (Kind::Tts, &["nemo_speech"], None),
    ] {
        assert_eq!(check(kind, &protocols(names), grpc), Ok(()), "{names:?}");
    }
}

#[test]
fn what_cannot_be_served_is_refused_by_name() {
    let grpc = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    for (kind, names, grpc, message) in [
        (Kind::Stt, &["parakeet", "nim_http"][..], None, "both have /v1/audio/transcriptions"),
        (Kind::Stt, &["riva", "riva"], grpc, "riva is named twice"),
        (Kind::Stt, &["riva", "riva_streaming"], grpc, "both have nvidia.riva.asr"),
        (Kind::Tts, &["magpie", "nemo_speech"], None, "both have /health"),
        (Kind::Stt, &["nim_realtime", "nemo_speech_streaming"], None, "both have /v1/realtime"),
        (Kind::Tts, &["riva"], grpc, "riva does not serve tts"),
        (Kind::Stt, &["magpie"], None, "magpie does not serve stt"),
        (Kind::Stt, &["nim_http", "riva"], None, "riva needs --grpc"),
        (Kind::Stt, &["nim_http"], grpc, "none of the protocols"),
    ] {
        let error = check(kind, &protocols(names), grpc).unwrap_err().to_string();
        assert!(error.contains(message), "{names:?}: {error}");
    }
    let unknown = "whisper".parse::<Protocol>().unwrap_err().to_string();
    assert!(unknown.contains("whisper") && unknown.contains("riva_tts"), "{unknown}");
}
