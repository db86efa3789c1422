//! Presets: what is known of an engine's container, as data in one place.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an engine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// Speech to text.
    Stt,
    /// Text to speech.
    Tts,
}

impl Capability {
    /// Its name in labels and status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stt => "stt",
            Self::Tts => "tts",
        }
    }
}

/// A known engine container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
pub enum Preset {
    /// Parakeet TDT 0.6b v2, English, offline.
    #[serde(rename = "parakeet-tdt-0.6b-v2")]
    ParakeetTdtV2,
    /// Parakeet TDT 0.6b v3, multilingual, offline.
    #[serde(rename = "parakeet-tdt-0.6b-v3")]
    ParakeetTdtV3,
    /// Parakeet CTC 1.1b, English.
    #[serde(rename = "parakeet-ctc-1.1b-en")]
    ParakeetCtc,
    /// Parakeet RNNT 1.1b, multilingual.
    #[serde(rename = "parakeet-rnnt-1.1b")]
    ParakeetRnnt,
    /// Nemotron ASR, streaming.
    #[serde(rename = "nemotron-asr-streaming")]
    NemotronStreaming,
    /// Magpie TTS, multilingual.
    #[serde(rename = "magpie-multilingual")]
    MagpieMultilingual,
    /// Magpie TTS, zero-shot voices; NVIDIA must approve the access.
    #[serde(rename = "magpie-zeroshot")]
    MagpieZeroshot,
    /// Magpie TTS flow, offline; NVIDIA must approve the access.
    #[serde(rename = "magpie-flow")]
    MagpieFlow,
    /// A Parakeet server with transcription and diarization of your own; set `image`.
    #[serde(rename = "parakeet-container")]
    ParakeetContainer,
    /// The CPU reference engine, for tests and demos, never for production speech.
    #[serde(rename = "reference")]
    Reference,
    /// Any container; set `image`, and `protocols` unless it is spoken to as the Parakeet container or the Magpie NIM.
    #[serde(rename = "custom")]
    Custom,
}

/// How an engine is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// A Parakeet container with OpenAI-shaped transcription and diarization.
    Parakeet,
    /// The Parakeet FastAPI server, `POST /transcribe`.
    ParakeetFastapi,
    /// NVIDIA's speech recognition NIM over HTTP: text only.
    NimHttp,
    /// NVIDIA Riva gRPC for speech recognition: words and speakers.
    Riva,
    /// NVIDIA's NeMo-Speech.cpp server.
    NemoSpeech,
    /// NVIDIA's text to speech NIM over HTTP.
    Magpie,
    /// NVIDIA Riva gRPC for text to speech.
    RivaTts,
    /// Any server with OpenAI's audio API.
    #[serde(rename = "openai")]
    OpenAi,
}

impl Protocol {
    /// Its name in the proxy's configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Parakeet => "parakeet",
            Self::ParakeetFastapi => "parakeet_fastapi",
            Self::NimHttp => "nim_http",
            Self::Riva => "riva",
            Self::NemoSpeech => "nemo_speech",
            Self::Magpie => "magpie",
            Self::RivaTts => "riva_tts",
            Self::OpenAi => "openai",
        }
    }

    /// Whether it is spoken on the engine's gRPC port.
    #[must_use]
    pub fn is_grpc(self) -> bool {
        matches!(self, Self::Riva | Self::RivaTts)
    }
}

/// What is known of an engine's container.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PresetData {
    /// Image repository; empty where the user gives it.
    pub repository: &'static str,
    /// Image tag; empty means `latest`.
    pub tag: &'static str,
    /// `NIM_TAGS_SELECTOR`, when the container needs one.
    pub tags_selector: Option<&'static str>,
    /// Whether it is a NIM: its ports, cache and key are set by environment.
    pub nim: bool,
    /// How it is spoken to, in order of preference.
    pub protocols: &'static [Protocol],
    /// Whether it runs on a GPU.
    pub gpu: bool,
    /// Size limit of `/dev/shm`.
    pub shm: &'static str,
    /// Where the container keeps models; empty when it keeps none.
    pub cache_path: &'static str,
    /// Size of a new cache claim.
    pub cache_size: &'static str,
    /// Least GPU memory in MiB.
    pub min_gpu_memory_mib: u64,
    /// CPU architecture, when the image has only one.
    pub arch: Option<&'static str>,
    /// Longest expected first start in seconds: download and engine build.
    pub startup_seconds: u64,
    /// GPU jobs at a time.
    pub lane_jobs: u32,
    /// First guess of seconds that any job costs.
    pub fixed_seconds: f64,
    /// First guess of seconds for each second of audio.
    pub seconds_per_audio_second: f64,
    /// Arguments that the container needs.
    pub args: &'static [&'static str],
    /// Model names that clients may use.
    pub model: PresetModel,
}

/// Names of a model: the listed one, and those that mean it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresetModel {
    /// Id in `/v1/models`.
    pub id: &'static str,
    /// Other names.
    pub aliases: &'static [&'static str],
}

const STT_ALIASES: &[&str] =
    &["parakeet", "whisper-1", "gpt-transcribe", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"];
const TTS_ALIASES: &[&str] = &["magpie", "tts-1", "tts-1-hd", "gpt-4o-mini-tts"];

/// A NIM for speech to text; figures from NVIDIA's Speech NIM documentation.
const STT_NIM: PresetData = PresetData {
    repository: "",
    tag: "",
    tags_selector: None,
    nim: true,
    protocols: &[Protocol::NimHttp, Protocol::Riva],
    gpu: true,
    shm: "8Gi",
    cache_path: "/opt/nim/.cache",
    cache_size: "100Gi",
    min_gpu_memory_mib: 15_000,
    arch: None,
    startup_seconds: 2400,
    lane_jobs: 1,
    fixed_seconds: 0.2,
    seconds_per_audio_second: 0.05,
    args: &[],
    model: PresetModel { id: "", aliases: STT_ALIASES },
};

/// A NIM for text to speech.
const TTS_NIM: PresetData = PresetData {
    protocols: &[Protocol::Magpie, Protocol::RivaTts],
    min_gpu_memory_mib: 13_500,
    startup_seconds: 3000,
    seconds_per_audio_second: 0.2,
    model: PresetModel { id: "", aliases: TTS_ALIASES },
    ..STT_NIM
};

impl Preset {
    /// All presets.
    pub const ALL: [Preset; 11] = [
        Preset::ParakeetTdtV2,
        Preset::ParakeetTdtV3,
        Preset::ParakeetCtc,
        Preset::ParakeetRnnt,
        Preset::NemotronStreaming,
        Preset::MagpieMultilingual,
        Preset::MagpieZeroshot,
        Preset::MagpieFlow,
        Preset::ParakeetContainer,
        Preset::Reference,
        Preset::Custom,
    ];

    /// What is known of it when it is used for `capability`.
    #[must_use]
    pub fn data(self, capability: Capability) -> PresetData {
        let model = |id, aliases| PresetModel { id, aliases };
        match self {
            Self::ParakeetTdtV2 => PresetData {
                repository: "nvcr.io/nim/nvidia/parakeet-0.6b-tdt",
                tags_selector: Some("type=default"),
                arch: Some("amd64"),
                model: model("parakeet-tdt-0.6b-v2", STT_ALIASES),
                ..STT_NIM
            },
            Self::ParakeetTdtV3 => PresetData {
                repository: "nvcr.io/nim/nvidia/parakeet-0.6b-tdt",
                tags_selector: Some("type=multi"),
                arch: Some("amd64"),
                model: model("parakeet-tdt-0.6b-v3", STT_ALIASES),
                ..STT_NIM
            },
            Self::ParakeetCtc => PresetData {
                repository: "nvcr.io/nim/nvidia/parakeet-1-1b-ctc-en-us",
                tags_selector: Some("mode=ofl,vad=default,diarizer=disabled"),
                model: model("parakeet-ctc-1.1b-en", STT_ALIASES),
                ..STT_NIM
            },
            Self::ParakeetRnnt => PresetData {
                repository: "nvcr.io/nim/nvidia/parakeet-1-1b-rnnt-multilingual",
                tags_selector: Some("mode=ofl"),
                min_gpu_memory_mib: 26_000,
                model: model("parakeet-rnnt-1.1b", STT_ALIASES),
                ..STT_NIM
            },
            Self::NemotronStreaming => PresetData {
                repository: "nvcr.io/nim/nvidia/nemotron-asr-streaming",
                tags_selector: Some("mode=str"),
                model: model("nemotron-asr-streaming", STT_ALIASES),
                ..STT_NIM
            },
            Self::MagpieMultilingual => PresetData {
                repository: "nvcr.io/nim/nvidia/magpie-tts-multilingual",
                tags_selector: Some("name=magpie-tts-multilingual,batch_size=8"),
                model: model("magpie-tts-multilingual", TTS_ALIASES),
                ..TTS_NIM
            },
            Self::MagpieZeroshot => PresetData {
                repository: "nvcr.io/nim/nvidia/magpie-tts-zeroshot",
                model: model("magpie-tts-zeroshot", TTS_ALIASES),
                ..TTS_NIM
            },
            Self::MagpieFlow => PresetData {
                repository: "nvcr.io/nim/nvidia/magpie-tts-flow",
                model: model("magpie-tts-flow", TTS_ALIASES),
                ..TTS_NIM
            },
            Self::ParakeetContainer => PresetData {
                nim: false,
                protocols: &[Protocol::Parakeet],
                cache_path: "/cache",
                cache_size: "20Gi",
                min_gpu_memory_mib: 8000,
                startup_seconds: 1200,
                model: model("parakeet-tdt-0.6b-v3", STT_ALIASES),
                ..STT_NIM
            },
            Self::Reference => reference(capability),
            Self::Custom => match capability {
                Capability::Stt => PresetData {
                    nim: false,
                    protocols: &[Protocol::Parakeet],
                    model: model("parakeet", STT_ALIASES),
                    ..STT_NIM
                },
                Capability::Tts => PresetData {
                    nim: false,
                    protocols: &[Protocol::Magpie],
                    model: model("magpie", TTS_ALIASES),
                    ..TTS_NIM
                },
            },
        }
    }
}

fn reference(capability: Capability) -> PresetData {
    let of_capability = match capability {
        Capability::Stt => PresetData {
            protocols: &[Protocol::Parakeet],
            args: &["--kind", "stt"],
            model: PresetModel { id: "parakeet-tdt-0.6b-v3", aliases: STT_ALIASES },
            ..STT_NIM
        },
        Capability::Tts => PresetData {
            protocols: &[Protocol::Magpie],
            args: &["--kind", "tts"],
            model: PresetModel { id: "magpie-tts-multilingual", aliases: TTS_ALIASES },
            ..TTS_NIM
        },
    };
    PresetData {
        repository: "speechstack/engine",
        nim: false,
        gpu: false,
        shm: "64Mi",
        cache_path: "",
        cache_size: "",
        min_gpu_memory_mib: 0,
        startup_seconds: 120,
        seconds_per_audio_second: 0.3,
        ..of_capability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_of_nvidia_names_its_image_and_model() {
        for preset in Preset::ALL {
            let capabilities: &[Capability] = match preset {
                Preset::Reference | Preset::Custom => &[Capability::Stt, Capability::Tts],
                Preset::MagpieMultilingual | Preset::MagpieZeroshot | Preset::MagpieFlow => {
                    &[Capability::Tts]
                }
                _ => &[Capability::Stt],
            };
            for capability in capabilities {
                let data = preset.data(*capability);
                assert!(!data.model.id.is_empty(), "{preset:?}");
                assert!(data.repository.starts_with("nvcr.io/") || !data.nim, "{preset:?}");
                assert!(!data.protocols.is_empty(), "{preset:?}");
                assert!(data.min_gpu_memory_mib > 0 || !data.gpu, "{preset:?}");
            }
        }
    }
}
