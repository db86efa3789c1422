"""Real clients of the streaming dialects against a live stack: python-socketio, Deepgram's SDK, the beta client of OpenAI's SDK,
and the frames of vLLM's example client.

SPEECHSTACK_URL   a healthy stack
SPEECHSTACK_CLIP  a 16 kHz mono WAV file in which SPEECHSTACK_WORD is spoken
"""

import base64
import json
import os
import queue
import sys
import threading
import traceback
import wave
from pathlib import Path

# The folder of this file has a riva.py of its own.
sys.path.pop(0)

import deepgram
import openai
import socketio
from deepgram import DeepgramClient
from deepgram.core.events import EventType
from deepgram.environment import DeepgramClientEnvironment
from openai import OpenAI
from websockets.sync.client import connect

URL = os.environ["SPEECHSTACK_URL"]
SOCKETS = URL.replace("http://", "ws://")
CLIP = Path(os.environ["SPEECHSTACK_CLIP"])
WORD = os.environ["SPEECHSTACK_WORD"]
TEXT = "The train was late again."
PATIENCE = 60



def openai_client(key):
    # The beta would use TLS for its socket whatever the base is.
    sockets = SOCKETS + "/v1"
    return OpenAI(base_url=URL + "/v1", websocket_base_url=sockets, api_key=key, max_retries=0, timeout=PATIENCE)


client = openai_client("unused")


def samples():
    with wave.open(str(CLIP), "rb") as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        return file.readframes(file.getnframes())


def at_24_khz():
    """The clip by linear interpolation, and a second of silence."""
    data = samples()
    values = [int.from_bytes(data[at : at + 2], "little", signed=True) for at in range(0, len(data), 2)]
    out = bytearray()
    for at in range(len(values) * 3 // 2 - 2):
        place, rest = divmod(at * 2, 3)
        value = (values[place] * (3 - rest) + values[place + 1] * rest) // 3
        out += value.to_bytes(2, "little", signed=True)
    return bytes(out) + bytes(48_000)


def pieces(data, size):
    return [data[at : at + size] for at in range(0, len(data), size)]


def encoded(data):
    return base64.b64encode(data).decode()


def bridge_over_socket_io(transports):
    messages = queue.Queue()
    bridge = socketio.Client()
    bridge.on("message", messages.put, namespace="/realtime")
    bridge.connect(URL, namespaces=["/realtime"], transports=transports, wait_timeout=PATIENCE)
    try:
        connected = messages.get(timeout=PATIENCE)
        assert connected == {"type": "connected", "content": {"engine": "internal", "sr": 24000}}, connected
        detection = {"type": "server_vad", "aggressiveness": 2, "end_ms": 400}
        bridge.emit("update_session", {"session": {"turn_detection": detection}}, namespace="/realtime")
        for piece in pieces(at_24_khz(), 9_600):
            bridge.emit("audio", {"audio": encoded(piece)}, namespace="/realtime")
        text, audio, kinds = "", b"", []
        while WORD not in text.lower() or kinds[-1] != "turn_done":
            message = messages.get(timeout=PATIENCE)
            kinds.append(message["type"])
            assert message["type"] != "error", message
            if message["type"] == "transcript_final":
                text += " " + message["content"]
            if message["type"] == "audio":
                audio += base64.b64decode(message["content"])
        assert kinds.index("event") < kinds.index("transcript_final") < kinds.index("audio"), kinds
        assert len(audio) > 24_000, len(audio)
        bridge.emit("audio", {}, namespace="/realtime")
        error = messages.get(timeout=PATIENCE)
        assert error == {"type": "error", "content": "Missing audio"}, error
    finally:
        bridge.disconnect()


def socket_io_begins_by_polling():
    bridge_over_socket_io(None)


def socket_io_by_websocket():
    bridge_over_socket_io(["websocket"])


def deepgrams_sdk_transcribes():
    environment = DeepgramClientEnvironment(base=URL, production=SOCKETS, agent=SOCKETS, agent_rest=URL)
    deepgrams = DeepgramClient(api_key="unused", environment=environment)
    options = {"model": "nova-3", "encoding": "linear16", "sample_rate": 16000, "interim_results": True,
               "vad_events": True, "endpointing": 400, "smart_format": True, "punctuate": True}
    events, failures = [], []
    with deepgrams.listen.v1.connect(**options) as connection:
        connection.on(EventType.MESSAGE, events.append)
        connection.on(EventType.ERROR, failures.append)
        listening = threading.Thread(target=connection.start_listening, daemon=True)
        listening.start()
        connection.send_keep_alive()
        for piece in pieces(samples() + bytes(32_000), 3_200):
            connection.send_media(piece)
        connection.send_finalize()
        connection.send_close_stream()
        listening.join(PATIENCE)
        assert not listening.is_alive(), "the server does not end the stream"
    kinds = [event.type for event in events]
    assert "Results" in kinds and "SpeechStarted" in kinds and kinds[-1] == "Metadata", (kinds, failures)
    finals = [event for event in events if event.type == "Results" and event.is_final]
    texts = " ".join(event.channel.alternatives[0].transcript for event in finals)
    assert WORD in texts.lower(), texts
    words = [word for event in finals for word in event.channel.alternatives[0].words]
    assert all(word.start <= word.end for word in words) and words, words


def openais_beta_client_transcribes():
    detection = {"type": "server_vad", "silence_duration_ms": 400}
    made = client.beta.realtime.transcription_sessions.create(
        input_audio_format="pcm16", input_audio_transcription={"model": "gpt-4o-transcribe"}, turn_detection=detection
    )
    assert made.client_secret.value.startswith("ek_"), made
    other = openai_client(made.client_secret.value)
    with other.beta.realtime.connect(model="gpt-4o-transcribe") as connection:
        for piece in pieces(at_24_khz(), 4_800):
            connection.input_audio_buffer.append(audio=encoded(piece))
        text, kinds = "", []
        while WORD not in text.lower():
            event = connection.recv()
            kinds.append(event.type)
            assert event.type != "error", event
            if event.type == "conversation.item.input_audio_transcription.completed":
                text += " " + event.transcript
        assert kinds[0] == "transcription_session.created", kinds
        assert "conversation.item.created" in kinds, kinds


def openais_beta_client_speaks_a_text():
    made = client.beta.realtime.sessions.create(model="gpt-4o-realtime-preview", voice="alloy")
    assert made.client_secret.value.startswith("ek_") and made.voice == "alloy", made
    with client.beta.realtime.connect(model="gpt-4o-realtime-preview") as connection:
        content = [{"type": "input_text", "text": TEXT}]
        connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        connection.response.create()
        audio, transcript = b"", None
        for event in connection:
            assert event.type != "error", event
            if event.type == "response.audio.delta":
                audio += base64.b64decode(event.delta)
            if event.type == "response.audio_transcript.done":
                transcript = event.transcript
            if event.type == "response.done":
                break
        assert event.response.status == "completed" and transcript == TEXT, event
        assert len(audio) > 24_000, len(audio)


def vllms_frames_transcribe():
    with connect(SOCKETS + "/v1/realtime", proxy=None) as socket:
        created = json.loads(socket.recv(PATIENCE))
        assert created["type"] == "session.created" and created["id"], created
        socket.send(json.dumps({"type": "session.update", "model": "mistralai/Voxtral-Mini-4B-Realtime-2602"}))
        socket.send(json.dumps({"type": "input_audio_buffer.commit"}))
        for piece in pieces(samples(), 4_096):
            socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": encoded(piece)}))
        socket.send(json.dumps({"type": "input_audio_buffer.commit", "final": True}))
        deltas = ""
        while True:
            event = json.loads(socket.recv(PATIENCE))
            if event["type"] == "transcription.delta":
                deltas += event["delta"]
            elif event["type"] == "transcription.done":
                break
            else:
                raise AssertionError(event)
        assert WORD in event["text"].lower() and WORD in deltas.lower(), (event, deltas)
        assert event["usage"]["seconds"] > 0, event


CHECKS = [
    socket_io_begins_by_polling,
    socket_io_by_websocket,
    deepgrams_sdk_transcribes,
    openais_beta_client_transcribes,
    openais_beta_client_speaks_a_text,
    vllms_frames_transcribe,
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
versions = f"openai {openai.__version__}, deepgram-sdk {deepgram.__version__}"
print(f"{versions} and python-socketio: {len(CHECKS) - failed} of {len(CHECKS)} hold")
sys.exit(1 if failed else 0)
