"""Real clients of the realtime API against a live stack: OpenAI's SDK for Python and NVIDIA's realtime client.

SPEECHSTACK_URL   a healthy stack
SPEECHSTACK_CLIP  a 16 kHz mono WAV file in which SPEECHSTACK_WORD is spoken
"""

import argparse
import asyncio
import base64
import os
import sys
import traceback
import wave
from pathlib import Path

# The folder of this file has a riva.py of its own.
sys.path.pop(0)

import openai
from openai import OpenAI
from riva.client.realtime import RealtimeClientASR

URL = os.environ["SPEECHSTACK_URL"]
CLIP = Path(os.environ["SPEECHSTACK_CLIP"])
WORD = os.environ["SPEECHSTACK_WORD"]
TEXT = "The train was late again."

client = OpenAI(base_url=URL + "/v1", api_key="unused", max_retries=0, timeout=60)


def samples():
    with wave.open(str(CLIP), "rb") as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        return file.readframes(file.getnframes())


def session(turn_detection):
    audio = {
        "format": {"type": "audio/pcm", "rate": 24000},
        "transcription": {"model": "gpt-4o-transcribe", "language": "en"},
        "turn_detection": turn_detection,
    }
    return {"type": "transcription", "audio": {"input": audio}}


def at_24_khz(data):
    """Each second of 16 kHz as 1.5 s of 24 kHz would be: samples repeated by linear interpolation."""
    values = [int.from_bytes(data[at : at + 2], "little", signed=True) for at in range(0, len(data), 2)]
    out = bytearray()
    for at in range(len(values) * 3 // 2 - 2):
        position = at * 2 / 3
        left, part = int(position), position - int(position)
        value = round(values[left] * (1 - part) + values[left + 1] * part)
        out += value.to_bytes(2, "little", signed=True)
    return bytes(out)


def listen(connection, until):
    """Events up to the first of that type; an error event fails."""
    events = []
    for event in connection:
        assert event.type != "error", event
        events.append(event)
        if event.type == until:
            return events
    raise AssertionError(f"the connection ended before {until}: {events}")


COMPLETED = "conversation.item.input_audio_transcription.completed"


def openai_transcribes_by_commit():
    with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        listen(connection, "session.created")
        connection.session.update(session=session(None))
        updated = listen(connection, "session.updated")[-1]
        assert updated.session.type == "transcription", updated
        data = at_24_khz(samples())
        for at in range(0, len(data), 9_999):
            connection.input_audio_buffer.append(audio=base64.b64encode(data[at : at + 9_999]).decode())
        connection.input_audio_buffer.commit()
        events = listen(connection, COMPLETED)
        assert WORD in events[-1].transcript.lower(), events[-1]
        assert events[-1].usage.type == "duration" and events[-1].usage.seconds > 1, events[-1]
        kinds = [event.type for event in events]
        assert "input_audio_buffer.committed" in kinds and "conversation.item.added" in kinds, kinds


def openai_transcribes_by_voice():
    with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        connection.session.update(session=session({"type": "server_vad", "silence_duration_ms": 400}))
        data = at_24_khz(samples()) + bytes(48_000)
        for at in range(0, len(data), 4_800):
            connection.input_audio_buffer.append(audio=base64.b64encode(data[at : at + 4_800]).decode())
        texts = ""
        while WORD not in texts.lower():
            texts += listen(connection, COMPLETED)[-1].transcript


def openai_speaks_a_text():
    with client.realtime.connect(model="gpt-realtime") as connection:
        connection.session.update(
            session={"type": "realtime", "output_modalities": ["audio"], "audio": {"output": {"voice": "alloy"}}}
        )
        listen(connection, "session.updated")
        content = [{"type": "input_text", "text": TEXT}]
        connection.response.create(
            response={
                "conversation": "none",
                "output_modalities": ["audio"],
                "input": [{"type": "message", "role": "user", "content": content}],
            }
        )
        events = listen(connection, "response.done")
        audio = b"".join(
            base64.b64decode(event.delta) for event in events if event.type == "response.output_audio.delta"
        )
        assert len(audio) > 24_000, len(audio)
        assert events[-1].response.status == "completed", events[-1]
        done = [event for event in events if event.type == "response.output_audio_transcript.done"]
        assert done[0].transcript == TEXT, done


def openai_uses_a_client_secret():
    secret = client.realtime.client_secrets.create(session=session(None))
    assert secret.value.startswith("ek_"), secret
    other = OpenAI(base_url=URL + "/v1", api_key=secret.value, max_retries=0)
    with other.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        created = listen(connection, "session.created")[-1]
        assert created.session.audio.input.turn_detection is None, created


def nvidias_client_transcribes():
    arguments = argparse.Namespace(
        server=URL.removeprefix("http://"), endpoint="/v1/realtime", query_params="intent=transcription",
        use_ssl=False, ssl_root_cert=None, ssl_client_cert=None, ssl_client_key=None, mic=True,
        language_code="en-US", sample_rate_hz=16000, num_channels=1, word_time_offsets=True,
        start_history=-1, start_threshold=-1.0, stop_history=-1, stop_history_eou=-1, stop_threshold=-1.0,
        stop_threshold_eou=-1.0,
    )

    async def run():
        asr = RealtimeClientASR(arguments)
        await asr.connect()
        data = samples()
        chunks = [data[at : at + 3_200] for at in range(0, len(data), 3_200)]
        await asyncio.gather(asr.send_audio_chunks(chunks), asr.receive_responses())
        await asr.disconnect()
        return asr.final_transcript

    text = asyncio.run(asyncio.wait_for(run(), 60))
    assert WORD in text.lower(), text


CHECKS = [
    openai_transcribes_by_commit,
    openai_transcribes_by_voice,
    openai_speaks_a_text,
    openai_uses_a_client_secret,
    nvidias_client_transcribes,
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
print(f"openai {openai.__version__} and NVIDIA's realtime client: {len(CHECKS) - failed} of {len(CHECKS)} hold")
sys.exit(1 if failed else 0)
