"""NVIDIA's Riva client for Python against live servers: recognition, synthesis, configurations and the .proto files.

riva.py --stt HOST:PORT --tts HOST:PORT --clip WAV --word WORD --dialogue WAV --protos FOLDER

--clip      a WAV file in which WORD is spoken
--dialogue  a WAV file in which two people speak in turn
--protos    the folder of our own .proto files, which must agree with the client's

A server may be the engine itself or anything that stands in front of it; what is not given is not run.
"""

import argparse
import sys
import tempfile
import traceback
import wave
from pathlib import Path

HERE = Path(__file__).resolve().parent
# This script has the name of the client's package.
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != HERE]

import grpc
import riva.client
from google.protobuf import descriptor_pb2
from grpc_tools import protoc
from riva.client.proto import health_pb2, riva_asr_pb2, riva_audio_pb2, riva_common_pb2, riva_tts_pb2

RATE = 22050
TEXT = "Good morning. The report is finished."


def arguments():
    parser = argparse.ArgumentParser()
    for name in ("--stt", "--tts", "--word"):
        parser.add_argument(name)
    for name in ("--clip", "--dialogue", "--protos"):
        parser.add_argument(name, type=Path)
    return parser.parse_args()


ARGS = arguments()


def asr():
    return riva.client.ASRService(riva.client.Auth(uri=ARGS.stt))


def tts():
    return riva.client.SpeechSynthesisService(riva.client.Auth(uri=ARGS.tts))


def config(file, **options):
    config = riva.client.RecognitionConfig(language_code="en-US", max_alternatives=1, **options)
    config.encoding = riva.client.AudioEncoding.LINEAR_PCM
    riva.client.add_audio_file_specs_to_config(config, file)
    return config


def transcript(results):
    return "".join(result.alternatives[0].transcript for result in results)


def stt_recognizes_a_file_with_words():
    request = config(ARGS.clip, enable_word_time_offsets=True)
    response = asr().offline_recognize(ARGS.clip.read_bytes(), request)
    words = [word for result in response.results for word in result.alternatives[0].words]
    assert ARGS.word in transcript(response.results).lower(), response
    assert ARGS.word in [word.word.lower().strip(".,") for word in words], response
    assert all(0 <= word.start_time < word.end_time for word in words), words
    assert all(word.speaker_tag == 0 for word in words), words


def stt_recognizes_a_file_without_an_encoding():
    request = riva.client.RecognitionConfig(language_code="en-US")
    response = asr().offline_recognize(ARGS.clip.read_bytes(), request)
    assert ARGS.word in transcript(response.results).lower(), response
    assert not response.results[0].alternatives[0].words, response


def stt_tells_speakers_apart():
    request = config(ARGS.dialogue, enable_word_time_offsets=True)
    riva.client.add_speaker_diarization_to_config(request, diarization_enable=True, diarization_max_speakers=4)
    response = asr().offline_recognize(ARGS.dialogue.read_bytes(), request)
    tags = [word.speaker_tag for result in response.results for word in result.alternatives[0].words]
    assert set(tags) == {1, 2} and tags[0] == 1, tags


def stt_streams_with_interim_results():
    streaming = riva.client.StreamingRecognitionConfig(
        config=config(ARGS.clip, enable_word_time_offsets=True), interim_results=True
    )
    # At the pace of speech, as a microphone has it.
    pace = riva.client.sleep_audio_length
    with riva.client.AudioChunkFileIterator(ARGS.clip, 1600, pace) as chunks:
        responses = list(asr().streaming_response_generator(chunks, streaming))
    results = [result for response in responses for result in response.results]
    finals = [result for result in results if result.is_final]
    assert ARGS.word in transcript(finals).lower(), results
    assert not results[0].is_final, "no interim result"
    assert finals[-1].alternatives[0].words[-1].end_time > 0, finals


def stt_lists_its_models():
    configs = asr().stub.GetRivaSpeechRecognitionConfig(riva_asr_pb2.RivaSpeechRecognitionConfigRequest())
    languages = [model.parameters["language_code"] for model in configs.model_config]
    assert "en-US" in languages or "multi" in languages, configs
    assert {model.parameters["type"] for model in configs.model_config} == {"offline", "online"}, configs


def stt_refuses_a_language_it_lacks():
    request = config(ARGS.clip)
    request.language_code = "klingon"
    try:
        asr().offline_recognize(ARGS.clip.read_bytes(), request)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
    else:
        raise AssertionError("no error")


def voice():
    """The first voice, found as NVIDIA's talk.py finds voices."""
    response = tts().stub.GetRivaSynthesisConfig(riva_tts_pb2.RivaSynthesisConfigRequest())
    parameters = response.model_config[0].parameters
    assert parameters["language_code"] == "en-US", parameters
    return parameters["voice_name"] + "." + parameters["subvoices"].split(",")[0].split(":")[0]


def tts_lists_voices_and_speaks_with_one():
    response = tts().synthesize(TEXT, voice_name=voice(), language_code="en-US", sample_rate_hz=RATE)
    assert len(response.audio) > RATE, len(response.audio)
    assert response.meta.text == TEXT, response.meta


def tts_speaks_in_pieces():
    pieces = list(tts().synthesize_online(TEXT, language_code="en-US", sample_rate_hz=RATE))
    whole = tts().synthesize(TEXT, language_code="en-US", sample_rate_hz=RATE)
    assert len(pieces) > 1, len(pieces)
    assert sum(len(piece.audio) for piece in pieces) == len(whole.audio)


def tts_refuses_a_voice_it_lacks():
    try:
        tts().synthesize(TEXT, voice_name="Nobody", language_code="en-US")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
    else:
        raise AssertionError("no error")


def both_hear_what_was_spoken():
    spoken = tts().synthesize("Good morning.", language_code="en-US", sample_rate_hz=16000)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "spoken.wav"
        with wave.open(str(file), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(16000)
            out.writeframesraw(spoken.audio)
        response = asr().offline_recognize(file.read_bytes(), config(file))
    assert transcript(response.results).lower().strip(" .") == "good morning", response


def fields(message):
    """Number, name, type, label, type name, oneof and presence of each field of a message."""
    oneofs = [oneof.name for oneof in message.oneof_decl]
    return {
        field.number: (
            field.name,
            field.type,
            field.label,
            field.type_name,
            oneofs[field.oneof_index] if field.HasField("oneof_index") else None,
            field.proto3_optional,
        )
        for field in message.field
    }


def described(files):
    """Everything that is on the wire, by full name."""
    found = {}

    def enums(prefix, declared):
        for enum in declared:
            found[f"enum {prefix}.{enum.name}"] = {value.number: value.name for value in enum.value}

    def messages(prefix, declared):
        for message in declared:
            name = f"{prefix}.{message.name}"
            found[f"message {name}"] = fields(message)
            enums(name, message.enum_type)
            messages(name, message.nested_type)

    for file in files:
        messages(file.package, file.message_type)
        enums(file.package, file.enum_type)
        for service in file.service:
            for method in service.method:
                found[f"rpc {file.package}.{service.name}/{method.name}"] = (
                    method.input_type,
                    method.output_type,
                    method.client_streaming,
                    method.server_streaming,
                )
    return found


def protos_agree_with_the_clients():
    modules = (health_pb2, riva_asr_pb2, riva_audio_pb2, riva_common_pb2, riva_tts_pb2)
    theirs = []
    for module in modules:
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        theirs.append(file)
    names = sorted(str(path.relative_to(ARGS.protos)) for path in ARGS.protos.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "ours.bin"
        status = protoc.main(["protoc", f"-I{ARGS.protos}", f"--descriptor_set_out={out}", *names])
        assert status == 0, status
        ours = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    ours, theirs = described(ours.file), described(theirs)
    assert len(ours) > 30, ours.keys()
    for name, shape in ours.items():
        assert shape == theirs.get(name), f"{name}: ours {shape}, the client's {theirs.get(name)}"


def main():
    given = {
        "stt": ARGS.stt and ARGS.clip and ARGS.word and ARGS.dialogue,
        "tts": ARGS.tts,
        "both": ARGS.stt and ARGS.tts,
        "protos": ARGS.protos,
    }
    checks = [check for name, check in globals().items() if name.partition("_")[0] in given and "_" in name]
    failed = 0
    for check in checks:
        if not given[check.__name__.split("_")[0]]:
            continue
        try:
            check()
            print(f"ok      {check.__name__}")
        except Exception:
            failed += 1
            print(f"FAILED  {check.__name__}")
            traceback.print_exc()
    sys.exit(1 if failed else 0)


main()
