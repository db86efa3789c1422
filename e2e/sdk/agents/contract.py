"""The NVIDIA services of LiveKit Agents and pipecat against a gateway, as their users configure them for servers of their own.

contract.py --server HOST:PORT

What is spoken by one service is heard by the other one's counterpart.
"""

import argparse
import asyncio
import re
import sys
import traceback

from loguru import logger

from livekit import rtc
from livekit.agents import stt as livekit_stt
from livekit.plugins import nvidia as livekit_nvidia
from pipecat.frames.frames import EndFrame, InputAudioRawFrame, InterimTranscriptionFrame, TranscriptionFrame
from pipecat.frames.frames import TTSAudioRawFrame, TTSSpeakFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.nvidia.stt import NvidiaSTTService
from pipecat.services.nvidia.tts import NvidiaTTSService
from pipecat.workers.runner import WorkerRunner

logger.remove()
logger.add(sys.stderr, level="WARNING")

RATE = 16000
TEXT = "Good morning. The train to the city is late again."
WORDS = {"good", "morning", "train", "city", "late", "again"}
PIECE_MS = 50
TIMEOUT_S = 120


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    return parser.parse_args()


ARGS = arguments()


def heard(text):
    """Whether half of the words arrived: a small model on a CPU mishears some."""
    return 2 * len(WORDS & set(re.findall(r"\w+", text.lower()))) >= len(WORDS)


def pieces(audio):
    """The audio in pieces, and after it the silence that ends an utterance."""
    audio += bytes(2 * RATE * 2)
    size = RATE * 2 * PIECE_MS // 1000
    return [audio[at : at + size] for at in range(0, len(audio), size)]


async def livekit_speaks():
    tts = livekit_nvidia.TTS(server=ARGS.server, use_ssl=False, voice=await voice())
    audio = b""
    async with tts.synthesize(TEXT) as stream:
        async for event in stream:
            assert event.frame.sample_rate == RATE, event.frame.sample_rate
            audio += bytes(event.frame.data)
    await tts.aclose()
    assert len(audio) > RATE * 2, len(audio)
    return audio


async def voice():
    """The first voice that the plugin lists."""
    voices = livekit_nvidia.TTS(server=ARGS.server, use_ssl=False).list_voices()
    return voices["en-US"]["voices"][0]


async def livekit_hears(audio):
    stt = livekit_nvidia.STT(server=ARGS.server, use_ssl=False, sample_rate=RATE)
    stream = stt.stream()

    async def talk():
        for piece in pieces(audio):
            stream.push_frame(rtc.AudioFrame(piece, RATE, 1, len(piece) // 2))
            await asyncio.sleep(PIECE_MS / 1000)
        stream.end_input()

    talking = asyncio.create_task(talk())
    kinds, text = set(), ""
    async for event in stream:
        kinds.add(event.type)
        if event.type == livekit_stt.SpeechEventType.FINAL_TRANSCRIPT:
            text += event.alternatives[0].text
            assert event.alternatives[0].words, event
    await talking
    await stream.aclose()
    await stt.aclose()
    kind = livekit_stt.SpeechEventType
    assert {kind.START_OF_SPEECH, kind.INTERIM_TRANSCRIPT, kind.FINAL_TRANSCRIPT, kind.END_OF_SPEECH} <= kinds, kinds
    assert heard(text), text


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
    service = NvidiaTTSService(server=ARGS.server, use_ssl=False, settings=settings)
    sink = Sink(TTSAudioRawFrame, lambda frames: False)

    async def feed(task):
        await task.queue_frames([TTSSpeakFrame(TEXT), EndFrame()])

    await run(service, sink, feed)
    audio = b"".join(frame.audio for frame in sink.frames)
    assert sink.frames[0].sample_rate == RATE and len(audio) > RATE * 2, len(audio)
    return audio


async def pipecat_hears(audio):
    service = NvidiaSTTService(server=ARGS.server, use_ssl=False)
    finals = lambda frames: "".join(frame.text for frame in frames if isinstance(frame, TranscriptionFrame))
    sink = Sink((TranscriptionFrame, InterimTranscriptionFrame), lambda frames: heard(finals(frames)))

    async def feed(task):
        for piece in pieces(audio):
            await task.queue_frame(InputAudioRawFrame(piece, RATE, 1))
            await asyncio.sleep(PIECE_MS / 1000)

    await run(service, sink, feed)
    assert heard(finals(sink.frames)), sink.frames
    assert isinstance(sink.frames[0], InterimTranscriptionFrame), sink.frames


async def main():
    failed, spoken = 0, {}
    for speaks, hears in ((livekit_speaks, pipecat_hears), (pipecat_speaks, livekit_hears)):
        for check in (speaks, hears):
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
