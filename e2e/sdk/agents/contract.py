"""The NVIDIA and OpenAI services of LiveKit Agents and pipecat, and LangChain's parser of recordings, against a gateway, as their users
configure them for servers of their own.

contract.py --server HOST:PORT

What is spoken by one service is heard by the other one's counterpart.
"""

import argparse
import asyncio
import io
import re
import sys
import traceback
import wave

from langchain_community.document_loaders.parsers.audio import OpenAIWhisperParser
from langchain_core.documents.base import Blob
from loguru import logger

from livekit import rtc
from livekit.agents import stt as livekit_stt
from livekit.agents.utils import http_context
from livekit.plugins import nvidia as livekit_nvidia
from livekit.plugins import openai as livekit_openai
from pipecat.frames.frames import EndFrame, InputAudioRawFrame, InterimTranscriptionFrame, TranscriptionFrame
from pipecat.frames.frames import TTSAudioRawFrame, TTSSpeakFrame, VADUserStartedSpeakingFrame, VADUserStoppedSpeakingFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.nvidia.stt import NvidiaSTTService
from pipecat.services.nvidia.tts import NvidiaTTSService
from pipecat.services.openai.stt import OpenAIRealtimeSTTService, OpenAISTTService
from pipecat.services.openai.tts import OpenAITTSService
from pipecat.workers.runner import WorkerRunner

logger.remove()
logger.add(sys.stderr, level="WARNING")

RATE = 16000
# Long enough for texts of what is still spoken, of an engine that needs a second for each.
TEXT = "Good morning. The train to the city is late again, so we have to wait for another hour at the old station."
WORDS = {"good", "morning", "train", "city", "late", "again"}
PIECE_MS = 50
TIMEOUT_S = 120


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    return parser.parse_args()


ARGS = arguments()
OPENAI = {"base_url": f"http://{ARGS.server}/v1", "api_key": "unused"}


def heard(text):
    """Whether half of the words arrived: a small model on a CPU mishears some."""
    return 2 * len(WORDS & set(re.findall(r"\w+", text.lower()))) >= len(WORDS)


def pieces(audio):
    """The audio in pieces, and after it the silence that ends an utterance."""
    audio += bytes(2 * RATE * 2)
    size = RATE * 2 * PIECE_MS // 1000
    return [audio[at : at + size] for at in range(0, len(audio), size)]


async def livekit_speaks():
    return await livekit_spoken(livekit_nvidia.TTS(server=ARGS.server, use_ssl=False, voice=await voice()), RATE)


async def livekit_speaks_openai():
    # Each of the ways in which it asks for speech: events for the older models, the audio itself for the newer ones.
    for model in ("tts-1", "gpt-4o-mini-tts"):
        audio = await livekit_spoken(livekit_openai.TTS(model=model, voice="alloy", **OPENAI), 24000)
    return resampled(audio, 24000)


async def livekit_spoken(tts, rate):
    audio = b""
    async with tts.synthesize(TEXT) as stream:
        async for event in stream:
            assert event.frame.sample_rate == rate, event.frame.sample_rate
            audio += bytes(event.frame.data)
    await tts.aclose()
    assert len(audio) > rate * 2, len(audio)
    return audio


def resampled(audio, rate):
    """The audio at RATE."""
    resampler = rtc.AudioResampler(rate, RATE)
    frames = resampler.push(rtc.AudioFrame(audio, rate, 1, len(audio) // 2)) + resampler.flush()
    return b"".join(bytes(frame.data) for frame in frames)


async def voice():
    """The first voice that the plugin lists."""
    voices = livekit_nvidia.TTS(server=ARGS.server, use_ssl=False).list_voices()
    return voices["en-US"]["voices"][0]


async def livekit_hears(audio):
    kinds, alternatives = await livekit_heard(livekit_nvidia.STT(server=ARGS.server, use_ssl=False, sample_rate=RATE), audio)
    kind = livekit_stt.SpeechEventType
    assert {kind.START_OF_SPEECH, kind.INTERIM_TRANSCRIPT, kind.FINAL_TRANSCRIPT, kind.END_OF_SPEECH} <= kinds, kinds
    assert all(alternative.words for alternative in alternatives), alternatives


async def livekit_hears_openai(audio):
    """A recording, and a realtime session."""
    stt = livekit_openai.STT(model="whisper-1", use_realtime=False, **OPENAI)
    event = await stt.recognize([rtc.AudioFrame(audio, RATE, 1, len(audio) // 2)])
    await stt.aclose()
    assert heard(event.alternatives[0].text), event
    async with http_context.open():
        stt = livekit_openai.STT(model="gpt-4o-mini-transcribe", use_realtime=True, vad=None, **OPENAI)
        kinds, _ = await livekit_heard(stt, audio)
    assert livekit_stt.SpeechEventType.INTERIM_TRANSCRIPT in kinds, kinds


async def livekit_heard(stt, audio):
    """The kinds of events of a stream, and its final texts, which must be what was said."""
    stream = stt.stream()

    async def talk():
        for piece in pieces(audio):
            stream.push_frame(rtc.AudioFrame(piece, RATE, 1, len(piece) // 2))
            await asyncio.sleep(PIECE_MS / 1000)
        if stt.provider != ARGS.server:
            stream.end_input()

    talking = asyncio.create_task(talk())
    kinds, finals = set(), []
    text = lambda: " ".join(alternative.text for alternative in finals)
    async for event in stream:
        kinds.add(event.type)
        if event.type == livekit_stt.SpeechEventType.FINAL_TRANSCRIPT:
            finals.append(event.alternatives[0])
            # A realtime session lasts until its client ends it.
            if heard(text()) and stt.provider == ARGS.server:
                break
    await talking
    await stream.aclose()
    await stt.aclose()
    assert heard(text()), text()
    return kinds, finals


class Sink(FrameProcessor):
    """Keeps what comes out of a pipeline, and ends the pipeline when that is enough."""

    def __init__(self, wanted, is_last):
        super().__init__()
        self.wanted, self.is_last, self.frames, self.task = wanted, is_last, [], None

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, self.wanted):
            self.frames.append(frame)
            if self.is_last(self.frames):
                await self.task.queue_frame(EndFrame())
        await self.push_frame(frame, direction)


async def run(service, sink, feed):
    params = PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE)
    task = PipelineWorker(Pipeline([service, sink]), params=params, cancel_on_idle_timeout=False)
    sink.task = task
    feeding = asyncio.create_task(feed(task))
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(task)
    await runner.run()
    feeding.cancel()


async def pipecat_speaks():
    settings = NvidiaTTSService.Settings(voice=await voice())
    return await pipecat_spoken(NvidiaTTSService(server=ARGS.server, use_ssl=False, settings=settings), RATE)


async def pipecat_speaks_openai():
    settings = OpenAITTSService.Settings(model="gpt-4o-mini-tts", voice="alloy")
    audio = await pipecat_spoken(OpenAITTSService(settings=settings, sample_rate=24000, **OPENAI), 24000)
    return resampled(audio, 24000)


async def pipecat_spoken(service, rate):
    sink = Sink(TTSAudioRawFrame, lambda frames: False)

    async def feed(task):
        await task.queue_frames([TTSSpeakFrame(TEXT), EndFrame()])

    await run(service, sink, feed)
    audio = b"".join(frame.audio for frame in sink.frames)
    assert sink.frames[0].sample_rate == rate and len(audio) > rate * 2, len(audio)
    return audio


async def pipecat_hears(audio):
    frames = await pipecat_heard(NvidiaSTTService(server=ARGS.server, use_ssl=False), audio)
    assert any(isinstance(frame, InterimTranscriptionFrame) for frame in frames), frames


async def pipecat_hears_openai(audio):
    """A recording of a turn, and realtime sessions whose turns end by the client and by the server."""
    await pipecat_heard(OpenAISTTService(**OPENAI), audio, turns=True)
    realtime = {"base_url": f"ws://{ARGS.server}/v1/realtime", "api_key": "unused"}
    await pipecat_heard(OpenAIRealtimeSTTService(**realtime), audio, turns=True)
    settings = OpenAIRealtimeSTTService.Settings(model="gpt-transcribe")
    await pipecat_heard(OpenAIRealtimeSTTService(turn_detection={"type": "server_vad"}, settings=settings, **realtime), audio)


async def pipecat_heard(service, audio, turns=False):
    finals = lambda frames: "".join(frame.text for frame in frames if isinstance(frame, TranscriptionFrame))
    sink = Sink((TranscriptionFrame, InterimTranscriptionFrame), lambda frames: heard(finals(frames)))

    async def feed(task):
        if turns:
            await task.queue_frame(VADUserStartedSpeakingFrame())
        for piece in pieces(audio):
            await task.queue_frame(InputAudioRawFrame(piece, RATE, 1))
            await asyncio.sleep(PIECE_MS / 1000)
        if turns:
            await task.queue_frame(VADUserStoppedSpeakingFrame())

    await run(service, sink, feed)
    assert heard(finals(sink.frames)), sink.frames
    return sink.frames


async def langchain_hears(audio):
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, RATE, 0, "NONE", ""))
        writer.writeframes(audio)
    blob = Blob.from_data(file.getvalue(), mime_type="audio/wav", path="audio.wav")
    parser = OpenAIWhisperParser(**OPENAI)
    documents = await asyncio.to_thread(lambda: list(parser.lazy_parse(blob)))
    assert heard(" ".join(document.page_content for document in documents)), documents


async def main():
    failed, spoken = 0, {}
    for speaks, *hears in (
        (livekit_speaks, pipecat_hears),
        (pipecat_speaks, livekit_hears),
        (livekit_speaks_openai, pipecat_hears_openai, langchain_hears),
        (pipecat_speaks_openai, livekit_hears_openai),
    ):
        for check in (speaks, *hears):
            try:
                made = await asyncio.wait_for(check() if check is speaks else check(spoken[speaks]), TIMEOUT_S)
                spoken[speaks] = made or spoken.get(speaks)
                print(f"ok      {check.__name__}", flush=True)
            except Exception:
                failed += 1
                print(f"FAILED  {check.__name__}", flush=True)
                traceback.print_exc()
    sys.exit(1 if failed else 0)


asyncio.run(main())
