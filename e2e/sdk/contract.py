"""OpenAI's SDK for Python against a live stack: what it must be able to do, and which exceptions it must raise.

SPEECHSTACK_URL         a healthy stack, body limit 2 MiB
SPEECHSTACK_BUSY_URL    one slow engine whose queue takes nothing
SPEECHSTACK_ABSENT_URL  a stack without a live engine
SPEECHSTACK_CLIP        a WAV file in which two speakers take turns and SPEECHSTACK_WORD is spoken by the first
SPEECHSTACK_REFERENCES  a WAV file of each of the two speakers, 2 to 10 s
"""

import base64
import json
import os
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pysubs2
import requests
import speech_recognition
import srt
import webvtt
from jsonschema import Draft202012Validator
from openai import OpenAI
from openapi_spec_validator import validate
from referencing import Registry
from referencing.jsonschema import DRAFT202012

CLIP = Path(os.environ["SPEECHSTACK_CLIP"])
WORD = os.environ["SPEECHSTACK_WORD"]


def client(variable):
    return OpenAI(base_url=os.environ[variable] + "/v1", api_key="unused", max_retries=0, timeout=120)


healthy = client("SPEECHSTACK_URL")


def transcribe(to, file=CLIP, model="whisper-1", **options):
    return to.audio.transcriptions.create(model=model, file=file, **options)


def expect(exception, status, call):
    """The call must raise exactly this exception, with OpenAI's envelope and a request id."""
    try:
        reply = call()
    except openai.APIStatusError as error:
        assert type(error) is exception, f"{type(error).__name__} instead of {exception.__name__}: {error}"
        assert error.status_code == status, error.status_code
        assert error.request_id, "no x-request-id"
        assert error.body and {"message", "type", "param", "code"} <= error.body.keys(), error.body
        return error
    raise AssertionError(f"no exception but {reply!r}")


def lists_models():
    ids = [model.id for model in healthy.models.list()]
    assert "parakeet-tdt-0.6b-v3" in ids and "magpie-tts-multilingual" in ids, ids


def fetch(path):
    reply = requests.get(os.environ["SPEECHSTACK_URL"] + path, timeout=30)
    assert reply.status_code == 200, f"{path}: {reply.status_code}"
    return reply.json()


def retrieves_a_model():
    model = healthy.models.retrieve("parakeet-tdt-0.6b-v3")
    assert model.object == "model" and isinstance(model.created, int) and model.owned_by, model


def transcribes_to_json():
    assert WORD in transcribe(healthy).text.lower()


def transcribes_to_text():
    assert WORD in transcribe(healthy, response_format="text").lower()


def transcribes_to_subtitles():
    assert " --> " in transcribe(healthy, response_format="srt")
    assert transcribe(healthy, response_format="vtt").startswith("WEBVTT")


def transcribes_with_word_times():
    reply = transcribe(healthy, response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert reply.duration and float(reply.duration) > 0.5, reply.duration
    assert any(WORD in word.word.lower() for word in reply.words), reply.words
    assert all(word.start <= word.end for word in reply.words), reply.words
    assert reply.segments and reply.segments[0].text, reply.segments


def subtitles_are_read_by_other_tools():
    for text, cues in [
        (transcribe(healthy, response_format="srt"), lambda text: list(srt.parse(text))),
        (transcribe(healthy, response_format="srt"), lambda text: pysubs2.SSAFile.from_string(text, "srt")),
        (transcribe(healthy, response_format="vtt"), lambda text: webvtt.from_string(text).captions),
        (transcribe(healthy, response_format="vtt"), lambda text: pysubs2.SSAFile.from_string(text, "vtt")),
    ]:
        cues = list(cues(text))
        words = " ".join(getattr(cue, "content", None) or cue.text for cue in cues)
        assert cues and WORD in words.lower(), text


def streams_a_transcript():
    events = list(transcribe(healthy, stream=True, model="gpt-4o-transcribe"))
    deltas = "".join(event.delta for event in events if event.type == "transcript.text.delta")
    assert events[-1].type == "transcript.text.done" and events[-1].text == deltas, events
    assert WORD in deltas.lower(), deltas


def tells_speakers_apart():
    reply = transcribe(healthy, model="gpt-4o-transcribe-diarize", response_format="diarized_json")
    assert {segment.speaker for segment in reply.segments} == {"A", "B"}, reply.segments
    assert all(segment.start <= segment.end and segment.text for segment in reply.segments), reply.segments
    events = list(
        transcribe(healthy, model="gpt-4o-transcribe-diarize", response_format="diarized_json", stream=True)
    )
    segments = [event for event in events if event.type == "transcript.text.segment"]
    assert [segment.id for segment in segments] == [segment.id for segment in reply.segments], segments
    deltas = "".join(event.delta for event in events if event.type == "transcript.text.delta")
    assert deltas == reply.text == events[-1].text, (deltas, reply.text)


def speaks_faster_and_slower():
    def seconds(speed):
        reply = healthy.audio.speech.create(
            model="tts-1", voice="alloy", input="the train was late again", response_format="pcm", speed=speed
        )
        return len(reply.content) / 48_000

    own = seconds(1.0)
    for speed in [0.25, 0.7, 1.6, 4.0]:
        assert abs(seconds(speed) * speed / own - 1) < 0.02, (speed, own, seconds(speed))


def streams_speech_as_events():
    with healthy.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", voice="alloy", input="the train was late again", response_format="pcm",
        stream_format="sse",
    ) as reply:
        data = [json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: {")]
    audio = b"".join(base64.b64decode(event["audio"]) for event in data if event["type"] == "speech.audio.delta")
    assert len(audio) > 20_000, len(audio)
    assert data[-1]["type"] == "speech.audio.done" and data[-1]["usage"]["total_tokens"] > 0, data[-1]


def speaks_into_a_file():
    with tempfile.TemporaryDirectory() as folder:
        for name, magic in [
            ("wav", b"RIFF"), ("flac", b"fLaC"), ("opus", b"OggS"), ("mp3", None), ("pcm", None), ("webm", b"\x1aE\xdf\xa3")
        ]:
            path = Path(folder, name)
            with healthy.audio.speech.with_streaming_response.create(
                model="tts-1", voice="alloy", input="the train was late again", response_format=name
            ) as reply:
                reply.stream_to_file(path)
            data = path.read_bytes()
            assert len(data) > 2000, f"{name}: {len(data)} bytes"
            assert magic is None or data.startswith(magic), f"{name}: {data[:8]!r}"


def a_bad_request_is_a_bad_request_error():
    error = expect(openai.BadRequestError, 400, lambda: transcribe(healthy, response_format="sonnet"))
    assert error.param == "response_format", error.param
    expect(openai.BadRequestError, 400, lambda: transcribe(healthy, file=("empty.wav", b"")))
    error = expect(
        openai.BadRequestError,
        400,
        lambda: healthy.audio.speech.create(model="tts-1", voice="alloy", input=""),
    )
    assert error.param == "input", error.param


def an_unknown_model_is_a_not_found_error():
    expect(openai.NotFoundError, 404, lambda: healthy.models.retrieve("no-such-model"))
    error = expect(
        openai.NotFoundError,
        404,
        lambda: healthy.audio.transcriptions.create(model="no-such-model", file=CLIP),
    )
    assert error.code == "model_not_found", error.code


def a_body_over_the_limit_is_a_413():
    file = ("large.wav", CLIP.read_bytes() + bytes(3 << 20))
    expect(openai.APIStatusError, 413, lambda: transcribe(healthy, file=file))


def a_full_queue_is_a_rate_limit_error():
    busy = client("SPEECHSTACK_BUSY_URL")

    # A job counts as waiting once its upload is whole, so these come one after the other; the engine needs 3 s for each.
    def attempt(number):
        time.sleep(0.2 * number)
        try:
            return transcribe(busy)
        except openai.APIStatusError as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt, range(8)))
    refused = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert refused and len(refused) < len(outcomes), outcomes
    for error in refused:
        assert type(error) is openai.RateLimitError, repr(error)
        assert error.code == "rate_limit_exceeded", error.code
        assert int(error.response.headers["retry-after"]) >= 1, error.response.headers


def no_engine_is_an_internal_server_error():
    absent = client("SPEECHSTACK_ABSENT_URL")
    error = expect(openai.InternalServerError, 503, lambda: transcribe(absent))
    assert 1 <= int(error.response.headers["retry-after"]) <= 150, error.response.headers
    assert error.response.headers["x-should-retry"] == "true", error.response.headers


def replies_are_as_the_openapi_document_says():
    spec = fetch("/openapi.json")
    assert spec["openapi"] == "3.1.0", spec["openapi"]
    validate(spec)
    registry = Registry().with_resource("urn:spec", DRAFT202012.create_resource(spec))

    def holds(path, method, reply):
        content = spec["paths"][path][method]["responses"]
        found = content.get(str(reply.status_code), content["default"])["content"]
        media = reply.headers["content-type"].split(";")[0]
        assert media in found, f"{method} {path}: {media} is none of {sorted(found)}"
        if media == "application/json":
            place = json.dumps(found[media]["schema"]).replace("#/components", "urn:spec#/components")
            Draft202012Validator(json.loads(place), registry=registry).validate(reply.json())

    def post(path, **options):
        return requests.post(os.environ["SPEECHSTACK_URL"] + path, timeout=120, **options)

    def form(**fields):
        return {"files": {"file": ("clip.wav", CLIP.read_bytes())}, "data": fields}

    transcribe = "/v1/audio/transcriptions"
    for fields in [
        {},
        {"response_format": "text"},
        {"response_format": "srt"},
        {"response_format": "vtt"},
        {"response_format": "diarized_json"},
        {"response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"], "diarize": "true"},
        {"stream": "true", "model": "gpt-4o-transcribe"},
        {"response_format": "sonnet"},
        {"model": "no-such-model"},
    ]:
        holds(transcribe, "post", post(transcribe, **form(**fields)))
    for path in ["/transcribe", "/v1/audio/diarizations", "/api/audio/transcribe-with-speakers", "/v1/audio/translations"]:
        holds(path, "post", post(path, **form(include_timestamps="true")))
    for format in ["mp3", "opus", "flac", "wav", "pcm", "webm", "aac"]:
        body = {"model": "tts-1", "voice": "alloy", "input": "Good morning.", "response_format": format}
        holds("/v1/audio/speech", "post", post("/v1/audio/speech", json=body))
    for path in ["/v1/models", "/v1/audio/models", "/v1/audio/voices", "/readyz", "/docs", "/v1/version"]:
        holds(path, "get", requests.get(os.environ["SPEECHSTACK_URL"] + path, timeout=30))


def known_speakers_have_their_names():
    """As OpenAI's guide sends them: a name and a data URL for each, in one diarized transcription."""
    references = [Path(path) for path in os.environ["SPEECHSTACK_REFERENCES"].split(os.pathsep)]
    urls = ["data:audio/wav;base64," + base64.b64encode(path.read_bytes()).decode() for path in references]
    reply = transcribe(
        healthy, model="gpt-4o-transcribe-diarize", response_format="diarized_json",
        extra_body={"known_speaker_names": ["agent", "caller"], "known_speaker_references": urls},
    )
    speakers = [segment.speaker for segment in reply.segments]
    first = next(segment.speaker for segment in reply.segments if WORD in segment.text.lower())
    assert first == "agent" and set(speakers) == {"agent", "caller"}, reply.segments


def a_voice_is_made_with_a_recorded_consent():
    consents = healthy.audio.voice_consents
    consent = consents.create(name="Ada Lovelace", language="en-US", recording=CLIP)
    assert consent.object == "audio.voice_consent" and consent.language == "en-US", consent
    assert [known.id for known in consents.list(limit=1)] == [consent.id]
    assert consents.retrieve(consent.id) == consent
    assert consents.update(consent.id, name="Ada").name == "Ada"
    sample = Path(os.environ["SPEECHSTACK_REFERENCES"].split(os.pathsep)[0])
    voice = healthy.audio.voices.create(name="mine", audio_sample=sample, consent=consent.id)
    assert voice.object == "audio.voice" and voice.name == "mine", voice
    unknown = lambda: healthy.audio.voices.create(name="yours", audio_sample=sample, consent="cons_1234")
    assert expect(openai.BadRequestError, 400, unknown).param == "consent"
    assert consents.delete(consent.id).deleted
    expect(openai.NotFoundError, 404, lambda: consents.retrieve(consent.id))


def open_webui_sends_a_part_without_a_type():
    """Open WebUI's frames: no content type of the part, model alone, no key for the pickers, mp3 by default."""
    base = os.environ["SPEECHSTACK_URL"] + "/v1"
    reply = requests.post(
        f"{base}/audio/transcriptions", headers={"Authorization": "Bearer sk-x"}, timeout=120,
        files={"file": ("0f8e.wav", CLIP.open("rb"))}, data={"model": "whisper-1"},
    )
    assert reply.status_code == 200 and WORD in reply.json()["text"].lower(), reply.text
    assert requests.get(f"{base}/audio/models", timeout=30).json()["models"][0]["id"]
    assert all(voice["id"] and voice["name"] for voice in requests.get(f"{base}/audio/voices", timeout=30).json()["voices"])
    speech = requests.post(
        f"{base}/audio/speech", json={"model": "tts-1", "input": "Good morning.", "voice": "alloy"}, timeout=120
    )
    assert speech.content[:2] in (b"\xff\xfb", b"\xff\xf3", b"ID"), speech.content[:4]
    wrong = requests.post(f"{base}/audio/transcriptions", files={"file": ("a.txt", b"hello")}, data={"model": "whisper-1"}, timeout=30)
    assert wrong.status_code == 400 and wrong.json()["error"]["message"], wrong.text


def wyoming_openai_adds_deltas_and_reads_the_first_chunk():
    """wyoming_openai's frames: a sum of deltas, and a WAV header within the first chunk."""
    base = os.environ["SPEECHSTACK_URL"]
    assert requests.get(f"{base}/v1/readyz", timeout=30).status_code == 404, "would be taken for LocalAI"
    assert requests.get(f"{base}/v1/test", timeout=30).status_code == 404, "would be taken for Kokoro"
    stream = transcribe(
        healthy, file=("recording.wav", CLIP.read_bytes()), model="gpt-4o-transcribe", response_format="json", stream=True
    )
    text = "".join(event.delta for event in stream if event.type == "transcript.text.delta")
    assert WORD in text.lower(), text
    with healthy.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input="the train was late again", response_format="wav", speed=1.0,
        instructions="None",
    ) as reply:
        first = next(reply.iter_bytes())
    assert first[:4] == b"RIFF" and len(first) > 44, first[:44]


def speech_recognition_hears():
    """The package SpeechRecognition, which reads its base URL from the environment."""
    os.environ.update(OPENAI_BASE_URL=os.environ["SPEECHSTACK_URL"] + "/v1", OPENAI_API_KEY="unused")
    recognizer = speech_recognition.Recognizer()
    with speech_recognition.AudioFile(str(CLIP)) as source:
        audio = recognizer.record(source)
    assert WORD in recognizer.recognize_openai(audio, model="whisper-1", language="en").lower()


def home_assistant_speaks_and_listens():
    """openai_conversation's calls, with the literal text None where a person set nothing."""
    with healthy.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", voice="marin", input="Good morning.", instructions="None", speed=1.0, response_format="mp3"
    ) as reply:
        assert len(reply.read()) > 1000
    heard = transcribe(healthy, file=("a.wav", CLIP.read_bytes()), response_format="json", language="en", prompt="")
    assert WORD in heard.text.lower(), heard.text


CHECKS = [
    lists_models,
    retrieves_a_model,
    transcribes_to_json,
    transcribes_to_text,
    transcribes_to_subtitles,
    transcribes_with_word_times,
    subtitles_are_read_by_other_tools,
    replies_are_as_the_openapi_document_says,
    known_speakers_have_their_names,
    a_voice_is_made_with_a_recorded_consent,
    open_webui_sends_a_part_without_a_type,
    wyoming_openai_adds_deltas_and_reads_the_first_chunk,
    speech_recognition_hears,
    home_assistant_speaks_and_listens,
    streams_a_transcript,
    tells_speakers_apart,
    speaks_faster_and_slower,
    streams_speech_as_events,
    speaks_into_a_file,
    a_bad_request_is_a_bad_request_error,
    an_unknown_model_is_a_not_found_error,
    a_body_over_the_limit_is_a_413,
    a_full_queue_is_a_rate_limit_error,
    no_engine_is_an_internal_server_error,
]

failed = 0
for check in CHECKS:
    try:
        check()
        print("ok    ", check.__name__)
    except Exception:
        failed += 1
        print("FAILED", check.__name__)
        traceback.print_exc(file=sys.stdout)
print(f"openai {openai.__version__} for Python: {len(CHECKS) - failed} of {len(CHECKS)} hold")
sys.exit(1 if failed else 0)
