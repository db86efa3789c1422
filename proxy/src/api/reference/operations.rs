//! The table of calls.

use super::Content::{Any, Bytes, Json, Nothing, Schema, Text};
use super::Kind::{
    File, FileOr, Flag, Number, Object, Objects, OneOf, Required, SomeOf, TextOr, Texts, Whole,
};
use super::{Body, Content, Field, Kind, Operation, field};
use crate::api::{nim, spark};

/// Groups and what they have in common.
pub(super) const GROUPS: [(&str, &str); 7] = [
    ("transcription", "Speech to text."),
    ("jobs", "Transcriptions in the background, and files for them that come in parts."),
    ("speech", "Text to speech."),
    ("conversation", "Language models, alone and with speech."),
    (
        "streaming",
        "Speech while it is spoken. Sessions are WebSocket connections, which OpenAPI cannot describe further.",
    ),
    ("lists", "Models and voices."),
    ("stack", "Health, usage, keys and the page for people."),
];

/// Tables of calls.
pub(super) type Tables = &'static [&'static [Operation]];

/// Every call.
pub(super) const ALL: Tables = &[
    TRANSCRIPTION,
    spark::OPERATIONS,
    CLIPS,
    JOBS,
    UPLOADS,
    SPEECH,
    nim::OPERATIONS,
    CONVERSATION,
    STREAMING,
    LISTS,
    STACK,
];

const JSON: &str = "application/json";
const PLAIN: &str = "text/plain";
const EVENTS: &str = "text/event-stream";

type Replies = &'static [(u16, &'static str, Content)];

const ANY: Replies = &[(200, JSON, Json)];
const SESSION: Replies = &[(101, "", Nothing)];
const JOB: Replies = &[(200, JSON, Schema(&["AudioJob"]))];
const TRANSCRIPT: Replies = &[
    (200, JSON, Schema(&["TranscriptionVerbose", "TranscriptionDiarized", "Transcription"])),
    (200, PLAIN, Text),
    (200, "text/vtt", Text),
    (200, EVENTS, Any),
    (202, JSON, Schema(&["AudioJob"])),
];
const AUDIO: Replies = &[
    (200, "audio/mpeg", Bytes),
    (200, "audio/opus", Bytes),
    (200, "audio/flac", Bytes),
    (200, "audio/wav", Bytes),
    (200, "audio/pcm", Bytes),
    (200, "audio/webm", Bytes),
    (200, "audio/aac", Bytes),
    (200, EVENTS, Any),
];

const FORMATS: Kind = OneOf(&["json", "text", "srt", "verbose_json", "vtt", "diarized_json"]);
const FILE: Field = field("file", File, "Audio in any common container.");
const MODEL: Field = field("model", Kind::Text, "An id or alias; see GET /v1/models.");

const TRANSCRIPTION_FORM: &[Field] = &[
    field("file", FileOr, "Audio in any common container; needed unless upload_id names one."),
    MODEL,
    field("response_format", FORMATS, "How the transcript is written; json when unset."),
    field("timestamp_granularities[]", SomeOf(&["word", "segment"]), "What has times in verbose_json."),
    field("language", Kind::Text, "A language code such as en or en-US; detected when unset."),
    field("languages[]", Texts, "Languages that may be spoken; in place of language."),
    field("prompt", Kind::Text, "The text before, or vocabulary."),
    field("keywords[]", Texts, "Vocabulary."),
    field("include[]", SomeOf(&["logprobs"]), "How sure the engine is of each word, in json."),
    field("temperature", Number(0.0, 1.0), "Sampling temperature."),
    field("stream", Flag, "The reply comes as events."),
    field("chunking_strategy", Kind::Text, "auto, or JSON of type server_vad: where long audio may be cut."),
    field("known_speaker_names[]", Texts, "Speakers who are known, at most 4."),
    field(
        "known_speaker_references[]",
        Texts,
        "A recording of each, 2 to 10 s, as a data URL; none for speakers that are enrolled.",
    ),
    field("diarize", Flag, "Speakers in verbose_json, srt and vtt too."),
    field("include_timestamps", Flag, "Times in json, as POST /transcribe has them."),
    field(
        "upload_id",
        Kind::Text,
        "A file that came in parts, in place of file; see POST /v1/audio/uploads.",
    ),
    field("async", Flag, "A job in place of the transcript."),
    field("webhook_url", Kind::Text, "Called at the end of the job."),
];

const TRANSLATION_FORM: &[Field] = &[
    FILE,
    MODEL,
    field("response_format", OneOf(&["json", "text", "srt", "verbose_json", "vtt"]), "json when unset."),
    field("prompt", Kind::Text, "The text before, in English."),
    field("temperature", Number(0.0, 1.0), "Sampling temperature."),
];

const TRANSLATION: Replies = &[
    (200, JSON, Schema(&["TranscriptionVerbose", "Transcription"])),
    (200, PLAIN, Text),
    (200, "text/vtt", Text),
];

const SPEECH_JSON: &[Field] = &[
    field("input", Required, "What to say, at most 4,096 characters."),
    MODEL,
    field("voice", TextOr("id"), "A name or an object with an id; see GET /v1/audio/voices."),
    field(
        "response_format",
        OneOf(&["mp3", "opus", "aac", "flac", "wav", "pcm", "webm"]),
        "mp3 when a model is named, else wav.",
    ),
    field(
        "sample_rate_hz",
        Whole(8_000, 48_000),
        "24,000 when unset; opus and webm have 8,000, 12,000, 16,000, 24,000 and 48,000, mp3 and aac also 11,025, 22,050, 32,000 and 44,100.",
    ),
    field("language", Kind::Text, "A language code; that of the voice when unset."),
    field("speed", Number(0.25, 4.0), "At the same pitch."),
    field("stream_format", OneOf(&["audio", "sse"]), "Bytes, or events."),
    field("instructions", Kind::Text, "A manner of speaking, where the voice has such an emotion."),
    field("emotion", Kind::Text, "An emotion of the voice, by name."),
    field("volume", Number(0.0, 4.0), "1 is the voice's own loudness."),
    field(
        "clean_text",
        Flag,
        "Whether Markdown, emoji and addresses are left out; on where the engine stumbles over them.",
    ),
];

#[rustfmt::skip]
const TRANSCRIPTION: &[Operation] = &[
    post("/v1/audio/transcriptions", "transcription", "transcribe", "Transcribes a file.", Body::Form(TRANSCRIPTION_FORM), TRANSCRIPT),
    post("/v1/audio/translations", "transcription", "translate", "Translates a file into English.", Body::Form(TRANSLATION_FORM), TRANSLATION),
    post("/v1/audio/diarizations", "transcription", "diarize", "Tells who spoke when.", Body::Form(&[FILE, MODEL, field("response_format", OneOf(&["json", "rttm"]), "json when unset.")]), DIARIZATION),
    post("/v1/audio/diarization", "transcription", "diarizeAlias", "As /v1/audio/diarizations.", Body::Form(&[FILE, MODEL, field("response_format", OneOf(&["json", "rttm"]), "json when unset.")]), DIARIZATION),
    post("/api/v1/audio/transcriptions", "transcription", "transcribeTldw", "As /v1/audio/transcriptions, where tldw has it.", Body::Form(TRANSCRIPTION_FORM), TRANSCRIPT),
    post("/transcribe", "transcription", "transcribeParakeet", "As the Parakeet FastAPI wrapper.", Body::Form(&[FILE, field("include_timestamps", Flag, "Times of words and segments."), field("should_chunk", Flag, "Accepted.")]), &[(200, JSON, Schema(&["ParakeetTranscript"]))]),
    post("/inference", "transcription", "transcribeWhisperCpp", "As whisper.cpp's server.", Body::Form(TRANSCRIPTION_FORM), TRANSCRIPT),
    post("/v1/speech-to-text", "transcription", "transcribeGemma", "As GemmaVoice.", Body::Form(&[FILE, field("language", Kind::Text, "A language code; detected when unset."), field("prompt", Kind::Text, "The text before, or vocabulary."), field("temperature", Number(0.0, 1.0), "Sampling temperature.")]), ANY),
    post("/upload", "transcription", "transcribeBridge", "As the Realtime Speech Bridge; nothing is heard in less than 16,000 bytes.", Body::Form(&[FILE]), ANY),
    post("/openai/deployments/{deployment}/audio/transcriptions", "transcription", "transcribeAzure", "As Azure OpenAI; the deployment is the model.", Body::Form(TRANSCRIPTION_FORM), TRANSCRIPT),
    post("/openai/deployments/{deployment}/audio/translations", "transcription", "translateAzure", "As Azure OpenAI.", Body::Form(TRANSLATION_FORM), TRANSLATION),
];

const DIARIZATION: Replies = &[(200, JSON, Schema(&["Diarization"])), (200, PLAIN, Text)];

const CONSENT: Replies = &[(200, JSON, Schema(&["VoiceConsent"]))];
const CLIP: Replies = &[(200, JSON, Schema(&["NamedClip"]))];

#[rustfmt::skip]
const CLIPS: &[Operation] = &[
    post("/v1/audio/speakers", "transcription", "createSpeaker", "Enrols a speaker from a recording of 2 to 10 s.", Body::Form(&[FILE, field("name", Required, "As transcripts show it.")]), CLIP),
    get("/v1/audio/speakers", "transcription", "listSpeakers", "The speakers of the caller.", &[(200, JSON, Schema(&["SpeakerList"]))]),
    Operation { method: "delete", ..get("/v1/audio/speakers/{id}", "transcription", "deleteSpeaker", "Forgets a speaker, by id or name.", ANY) },
    post("/v1/audio/voices", "speech", "createVoice", "Keeps a voice to be imitated, from a recording of 3 to 10 s.", Body::Form(&[field("audio_sample", File, "Audio in any common container."), field("name", Required, "As voice of a speech."), field("consent", Required, "Who gave consent, and to what; or the id of a recording of it."), field("transcript", Kind::Text, "What is said in it.")]), CLIP),
    post("/v1/audio/voice_consents", "speech", "createVoiceConsent", "Keeps a recording, of 1 to 60 s, of a consent to have a voice imitated.", Body::Form(&[field("recording", File, "Audio in any common container."), field("name", Required, "What it is called."), field("language", Required, "The tag of the language that is spoken.")]), CONSENT),
    Operation { query: &[field("limit", Whole(1, 100), "Most consents; 20 when unset."), field("after", Kind::Text, "The last one of the page before.")], ..get("/v1/audio/voice_consents", "speech", "listVoiceConsents", "The consents of the caller, the newest first.", &[(200, JSON, Schema(&["VoiceConsentList"]))]) },
    get("/v1/audio/voice_consents/{id}", "speech", "getVoiceConsent", "A consent.", CONSENT),
    post("/v1/audio/voice_consents/{id}", "speech", "updateVoiceConsent", "Gives a consent another name.", Body::Json(&[field("name", Required, "What it is called.")]), CONSENT),
    Operation { method: "delete", ..get("/v1/audio/voice_consents/{id}", "speech", "deleteVoiceConsent", "Forgets a consent; voices that were made with it stay.", ANY) },
    Operation { method: "delete", ..get("/v1/audio/voices/{id}", "speech", "deleteVoice", "Forgets a voice that was kept, by id or name.", ANY) },
];

#[rustfmt::skip]
const JOBS: &[Operation] = &[
    Operation { query: &[field("limit", Whole(1, 100), "Most jobs; 20 when unset."), field("after", Kind::Text, "The last job of the page before.")], ..get("/v1/audio/jobs", "jobs", "listJobs", "The newest jobs.", &[(200, JSON, Schema(&["AudioJobList"]))]) },
    get("/v1/audio/jobs/{id}", "jobs", "getJob", "A job.", JOB),
    Operation { method: "delete", ..get("/v1/audio/jobs/{id}", "jobs", "deleteJob", "Ends and forgets a job.", ANY) },
    post("/v1/audio/jobs/{id}/cancel", "jobs", "cancelJob", "Ends a job.", Body::None, JOB),
    get("/v1/audio/jobs/{id}/events", "jobs", "followJob", "The job each time it changes.", &[(200, EVENTS, Any)]),
    Operation { query: &[field("response_format", FORMATS, "In place of that of the form.")], ..get("/v1/audio/jobs/{id}/result", "jobs", "getJobResult", "The transcript.", TRANSCRIPT) },
];

const TUS: Field = field("Tus-Resumable", OneOf(&["1.0.0"]), "The version of tus.");
const UPLOAD: Replies = &[(200, JSON, Schema(&["AudioUpload"]))];

#[rustfmt::skip]
const UPLOADS: &[Operation] = &[
    Operation { headers: &[TUS, field("Upload-Length", Whole(0, i64::MAX), "Bytes of the whole file.")], ..post("/v1/audio/uploads", "jobs", "createUpload", "Begins a file that comes in parts (tus 1.0.0); Location is where they go.", Body::None, &[(201, JSON, Schema(&["AudioUpload"]))]) },
    get("/v1/audio/uploads", "jobs", "listUploads", "The uploads of the caller.", &[(200, JSON, Schema(&["AudioUploadList"]))]),
    get("/v1/audio/uploads/{id}", "jobs", "getUpload", "An upload.", UPLOAD),
    Operation { method: "head", headers: &[TUS], ..get("/v1/audio/uploads/{id}", "jobs", "getUploadOffset", "How much has arrived: Upload-Offset (tus 1.0.0).", &[(200, "", Nothing)]) },
    Operation { method: "patch", headers: &[TUS, field("Upload-Offset", Whole(0, i64::MAX), "Where the part begins: bytes that have arrived.")], ..post("/v1/audio/uploads/{id}", "jobs", "appendUpload", "The next part (tus 1.0.0).", Body::Bytes("application/offset+octet-stream"), &[(204, "", Nothing)]) },
    Operation { method: "delete", ..get("/v1/audio/uploads/{id}", "jobs", "deleteUpload", "Forgets an upload; jobs that were made of it keep the file.", &[(204, "", Nothing)]) },
];

#[rustfmt::skip]
const SPEECH: &[Operation] = &[
    post("/v1/audio/speech", "speech", "speak", "Speaks a text.", Body::Json(SPEECH_JSON), AUDIO),
    post("/v1/text-to-speech", "speech", "speakGemma", "As GemmaVoice: audio in base64, by Accept the audio itself, or events.", Body::Json(GEMMA_SPEECH), &[(200, JSON, Json), (200, "audio/wav", Bytes), (200, EVENTS, Any)]),
    post("/api/v1/audio/speech", "speech", "speakTldw", "As /v1/audio/speech, where tldw has it.", Body::Json(SPEECH_JSON), AUDIO),
    post("/tts-proxy", "speech", "speakBridge", "As /v1/audio/speech, in Ogg with Opus when no format is named.", Body::Json(SPEECH_JSON), AUDIO),
    post("/openai/deployments/{deployment}/audio/speech", "speech", "speakAzure", "As Azure OpenAI; the deployment is the model.", Body::Json(SPEECH_JSON), AUDIO),
];

const GEMMA_SPEECH: &[Field] = &[
    field("text", Kind::Text, "What to say; also named input."),
    field("format", Kind::Text, "wav when unset; also named response_format."),
    field("sample_rate", Whole(8_000, 48_000), "24,000 when unset."),
    field("reference_id", Kind::Text, "A voice, or default."),
    field("speed", Number(0.25, 4.0), "At the same pitch."),
    field("stream", Flag, "The reply comes as events."),
];

const SAMPLING_SESSION: Field =
    field("session_id", Kind::Text, "The conversation that it is a turn of; a new one when unset.");

const PROMPT: &[Field] = &[
    field("prompt", Required, "What the model answers."),
    field("system_prompt", Kind::Text, "How it answers."),
    field("max_tokens", Whole(1, u32::MAX as i64), "Longest answer."),
    field("temperature", Number(0.0, 2.0), "Sampling temperature."),
    field("top_p", Number(0.0, 1.0), "Share of probability that is sampled from."),
    SAMPLING_SESSION,
];

const DIALOGUE: &[Field] = &[
    FILE,
    field("instructions", Kind::Text, "How the model answers."),
    field("generation_config", Kind::Text, "JSON with temperature, top_p, max_tokens and stop."),
    field("synthesis_config", Kind::Text, "JSON with the fields of POST /v1/text-to-speech."),
    field("stream_audio", Flag, "Lines of JSON while the answer is made."),
    field("language", Kind::Text, "A language code; detected when unset."),
    SAMPLING_SESSION,
];

const REFERENCE: &[Field] = &[
    FILE,
    field("reference_id", Kind::Text, "What it is called; made up when unset."),
    field("text", Kind::Text, "What is said in it."),
    field("consent", Kind::Text, "The consent of the one who speaks."),
];

const LINES: Replies = &[(200, JSON, Json), (200, "application/x-ndjson", Text)];

#[rustfmt::skip]
const CONVERSATION: &[Operation] = &[
    post("/v1/chat/completions", "conversation", "createChatCompletion", "As OpenAI: a conversation continued.", Body::Json(&[MODEL, field("messages", Objects, "The conversation so far."), field("stream", Flag, "The reply comes as events."), field("tools", Objects, "Functions that the model may call.")]), &[(200, JSON, Json), (200, EVENTS, Any)]),
    post("/v1/generate", "conversation", "generate", "As GemmaVoice: a prompt answered.", Body::Json(PROMPT), ANY),
    post("/v1/generate_stream", "conversation", "generateStream", "As GemmaVoice: a prompt answered as events.", Body::Json(PROMPT), &[(200, EVENTS, Any)]),
    post("/v1/conversation/dialogue", "conversation", "createDialogue", "As GemmaVoice: a recording answered in text and speech.", Body::Form(DIALOGUE), LINES),
    post("/v1/dialogue", "conversation", "createDialogueShort", "As GemmaVoice: the same as /v1/conversation/dialogue.", Body::Form(DIALOGUE), LINES),
    post("/v1/encode-reference", "conversation", "encodeReference", "As GemmaVoice: a voice to speak with is kept.", Body::Form(REFERENCE), ANY),
];

#[rustfmt::skip]
const STREAMING: &[Operation] = &[
    get("/v1/realtime", "streaming", "realtime", "OpenAI's Realtime API.", SESSION),
    post("/v1/realtime", "streaming", "offerCall", "A 501: there is no WebRTC.", Body::None, &[(501, JSON, Json)]),
    get("/v1/listen", "streaming", "listen", "As Deepgram.", SESSION),
    get("/ws", "streaming", "streamParakeet", "As the Parakeet FastAPI wrapper.", SESSION),
    get("/api/v1/audio/stream/transcribe", "streaming", "streamTldw", "As tldw.", SESSION),
    get("/core/parakeet/stream", "streaming", "streamTldwCore", "As tldw.", SESSION),
    get("/v1/speech-to-text/stream", "streaming", "streamGemma", "As GemmaVoice: a recording that grows.", SESSION),
    get("/v1/speech-to-text/ws", "streaming", "streamGemmaFiles", "As GemmaVoice: files.", SESSION),
    get("/v1/conversation/ws", "streaming", "streamGemmaConversation", "As GemmaVoice: turns of a conversation.", SESSION),
    get("/v1/generate_ws", "streaming", "streamGemmaGenerate", "As GemmaVoice: prompts.", SESSION),
    get("/v1/text-to-speech/ws", "streaming", "streamGemmaSpeech", "As GemmaVoice: texts to speak.", SESSION),
    get("/api/v1/audio/stream/status", "streaming", "streamStatus", "Whether streaming can be had.", ANY),
    get("/api/v1/audio/stream/limits", "streaming", "streamLimits", "How much of it.", ANY),
    post("/v1/realtime/client_secrets", "streaming", "createClientSecret", "A secret for a browser's session.", Body::Json(&[field("expires_after", Object, "anchor and seconds."), field("session", Object, "The session that it carries.")]), ANY),
    post("/v1/realtime/sessions", "streaming", "createSession", "A secret for a session of OpenAI's beta.", Body::Json(&[]), ANY),
    post("/v1/realtime/calls", "streaming", "createCall", "A 501: there is no WebRTC.", Body::None, &[(501, JSON, Json)]),
    post("/v1/realtime/calls/{call}", "streaming", "changeCall", "A 501: there is no WebRTC.", Body::None, &[(501, JSON, Json)]),
    post("/v1/realtime/transcription_sessions", "streaming", "createTranscriptionSession", "A secret for a transcription session of OpenAI's beta, or the default session of a NIM.", Body::Json(&[]), ANY),
];

#[rustfmt::skip]
const LISTS: &[Operation] = &[
    get("/v1/models", "lists", "listModels", "The models.", &[(200, JSON, Schema(&["ModelList"]))]),
    get("/v1/models/{id}", "lists", "getModel", "A model; its id may have slashes.", &[(200, JSON, Schema(&["Model"]))]),
    get("/v1/audio/models", "lists", "listSpeakingModels", "The models that speak.", &[(200, JSON, Schema(&["SpeakingModelList"]))]),
    Operation { query: &[field("legacy", Flag, "Names alone.")], ..get("/v1/audio/voices", "lists", "listVoices", "The voices.", &[(200, JSON, Schema(&["VoiceList"]))]) },
];

#[rustfmt::skip]
const STACK: &[Operation] = &[
    Operation { query: &[field("all", Flag, "Of all names, for keys with the scope admin.")], ..get("/v1/usage", "stack", "getUsage", "What the caller has used.", ANY) },
    get("/v1/keys", "stack", "listKeys", "The API keys.", ANY),
    post("/v1/keys", "stack", "createKey", "Makes an API key.", Body::Json(&[field("name", Required, "Whose it is.")]), ANY),
    Operation { method: "delete", ..get("/v1/keys/{key}", "stack", "revokeKey", "Revokes a key by its id or name.", ANY) },
    get("/health", "stack", "getHealth", "The gateway answers.", ANY),
    get("/v1/health/stt", "stack", "getHealthStt", "Whether the gateway can hear.", ANY),
    get("/v1/health/tts", "stack", "getHealthTts", "Whether the gateway can speak.", ANY),
    get("/v1/health/llm", "stack", "getHealthLlm", "Whether the gateway can hold conversations.", ANY),
    get("/healthz", "stack", "getHealthz", "The gateway answers.", ANY),
    get("/debug/cfg", "stack", "getConfiguration", "The configuration in effect, without secrets; for keys with the scope admin, or on loopback.", &[(200, "application/yaml", Any)]),
    get("/readyz", "stack", "getReady", "Each capability that is configured has a verified engine.", ANY),
    get("/v1/health/live", "stack", "getLive", "The gateway answers.", ANY),
    get("/v1/health/ready", "stack", "getHealthReady", "As /readyz.", ANY),
    get("/", "stack", "getPage", "The page for people.", &[(200, "text/html", Text)]),
    get("/docs", "stack", "getReference", "This document as a page.", &[(200, "text/html", Text)]),
    get("/openapi.json", "stack", "getDocument", "This document.", ANY),
    get("/page/{name}", "stack", "getPageFile", "A file of the page.", &[(200, "text/javascript", Text), (200, "text/css", Text), (200, "text/html", Text)]),
    get("/page/stack", "stack", "getPageStack", "The engines as the page shows them.", ANY),
];

/// A call without a body.
pub(in crate::api) const fn get(
    path: &'static str,
    group: &'static str,
    id: &'static str,
    about: &'static str,
    replies: Replies,
) -> Operation {
    Operation { method: "get", path, group, id, about, query: &[], headers: &[], body: Body::None, replies }
}

/// A call with a body.
pub(in crate::api) const fn post(
    path: &'static str,
    group: &'static str,
    id: &'static str,
    about: &'static str,
    body: Body,
    replies: Replies,
) -> Operation {
    Operation { method: "post", path, group, id, about, query: &[], headers: &[], body, replies }
}
