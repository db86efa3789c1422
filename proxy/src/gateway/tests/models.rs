//! Lists of models and voices, with engines and without.

use serde_json::{Value, json};

use contract::Capability;

use crate::gateway::tests::stack::{Stack, envelope};

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn models_are_the_configured_ones_and_every_base_voice() {
    let stack = Stack::start().await;
    for path in ["/v1/models", "/models"] {
        let list: Value = stack.get(path).await.json().await.unwrap();
        assert_eq!(list["object"], "list");
        assert_eq!(
            ids(&list["data"])[..5],
            [
                "parakeet-tdt-0.6b-v3",
                "magpie-tts-multilingual",
                "Magpie-Multilingual.EN-US.Mia",
                "Magpie-Multilingual.EN-US.Sofia",
                "Magpie-Multilingual.ES-US.Diego"
            ]
        );
        let alias = list["data"].as_array().unwrap().iter().find(|model| model["id"] == "whisper-1").unwrap();
        assert_eq!(alias["alias_of"], "parakeet-tdt-0.6b-v3");
        assert_eq!(list["data"][0]["kind"], "stt");
        assert_eq!(list["data"][2]["kind"], "tts");
        for model in list["data"].as_array().unwrap() {
            assert!(model["created"].as_u64().unwrap() > 1_700_000_000);
            assert_eq!((&model["object"], &model["owned_by"]), (&json!("model"), &json!("nvidia")));
        }
    }
}

#[tokio::test]
async fn one_model_is_found_by_id_alias_and_voice() {
    let stack = Stack::start().await;
    for (asked, id) in [
        ("parakeet-tdt-0.6b-v3", "parakeet-tdt-0.6b-v3"),
        ("whisper-1", "parakeet-tdt-0.6b-v3"),
        ("Magpie-Multilingual.EN-US.Mia", "Magpie-Multilingual.EN-US.Mia"),
    ] {
        let model: Value = stack.get(&format!("/v1/models/{asked}")).await.json().await.unwrap();
        assert_eq!(model["id"], id);
    }
    let message = envelope(stack.get("/v1/models/nvidia/unknown").await, 404, Some("model")).await;
    assert!(message.contains("nvidia/unknown"), "{message}");
}

#[tokio::test]
async fn a_model_tells_what_can_be_asked_of_it() {
    let stack = Stack::with(&[Capability::Stt, Capability::Tts], |config| {
        config.gateway.models[0].languages = vec!["de".into(), "en".into()];
    })
    .await;
    let list: Value = stack.get("/v1/models").await.json().await.unwrap();
    let of =
        |id: &str| list["data"].as_array().unwrap().iter().find(|model| model["id"] == id).cloned().unwrap();
    let hears = of("parakeet-tdt-0.6b-v3");
    assert_eq!(hears["task"], "automatic-speech-recognition");
    assert_eq!(hears["capabilities"], json!(["stream", "timestamp_granularities", "diarize", "realtime"]));
    assert_eq!(
        hears["response_formats"],
        json!(["json", "text", "srt", "verbose_json", "vtt", "diarized_json"])
    );
    assert_eq!(hears["languages"], json!(["de", "en"]));
    assert_eq!(hears["limits"], json!({"max_bytes": stack.config.get().gateway.body_limit.as_u64()}));
    let alias = of("whisper-1");
    assert_eq!((&alias["capabilities"], &alias["languages"]), (&hears["capabilities"], &hears["languages"]));
    let speaks = of("magpie-tts-multilingual");
    assert_eq!(
        (&speaks["task"], &speaks["capabilities"]),
        (&json!("text-to-speech"), &json!(["stream", "speed", "emotion"]))
    );
    assert_eq!(speaks["languages"], json!(["en-US", "es-US"]));
    assert_eq!(speaks["limits"], json!({"max_characters": 4096}));
    assert!(speaks["response_formats"].as_array().unwrap().contains(&json!("webm")));
    assert!(speaks.get("voices").is_none(), "of one model alone, for lists would be long");
    // As wyoming_openai reads the voices of a model.
    let one: Value = stack.get("/v1/models/tts-1").await.json().await.unwrap();
    let voices = one["voices"].as_array().unwrap();
    assert!(voices.contains(&json!({"name": "alloy", "language": "en-US"})), "{voices:?}");
    assert!(voices.contains(&json!({"name": "Magpie-Multilingual.ES-US.Diego", "language": "es-US"})));
    let nim = Stack::with(&[Capability::Stt], |config| {
        config.engines[0].protocols = crate::protocol::Protocol::named("nim_http").into_iter().collect();
    })
    .await;
    let plain: Value = nim.get("/v1/models/whisper-1").await.json().await.unwrap();
    assert_eq!(plain["capabilities"], json!(["stream", "realtime"]), "an engine of texts alone");
}

#[tokio::test]
async fn voices_are_objects_or_names() {
    let stack = Stack::start().await;
    let list: Value = stack.get("/v1/audio/voices").await.json().await.unwrap();
    let voices = list["voices"].as_array().unwrap();
    let find = |id: &str| voices.iter().find(|voice| voice["id"] == id).cloned();
    assert_eq!(
        find("alloy").unwrap(),
        json!({"id": "alloy", "name": "alloy", "language": "en-US", "voice": "Magpie-Multilingual.EN-US.Sofia"})
    );
    assert_eq!(
        find("Magpie-Multilingual.EN-US.Mia.Angry").unwrap(),
        json!({
            "id": "Magpie-Multilingual.EN-US.Mia.Angry", "name": "Mia Angry", "language": "en-US", "emotion": "Angry",
        })
    );
    // The engine has no such speaker.
    assert_eq!(find("onyx"), None);
    let names: Value = stack.get("/v1/audio/voices?legacy=true").await.json().await.unwrap();
    assert!(names["voices"].as_array().unwrap().contains(&json!("alloy")));
}

#[tokio::test]
async fn lists_survive_without_engines() {
    let stack = Stack::with(&[Capability::Stt], |_| {}).await;
    let models: Value = stack.get("/v1/models").await.json().await.unwrap();
    assert_eq!(ids(&models["data"])[..2], ["parakeet-tdt-0.6b-v3", "magpie-tts-multilingual"]);
    let voices: Value = stack.get("/v1/audio/voices").await.json().await.unwrap();
    assert!(ids(&voices["voices"]).contains(&"alloy"));
}
