"""A speech engine on a real GPU for tests: Whisper on PyTorch behind OpenAI's transcription API, with CUDA faults on demand.

Its health is shallow, as that of the engines it stands for: `GET /v1/models` is 200 for as long as the process lives.
`POST /fault/NAME` breaks the process in the way of `FAULTS`; a new process is whole again. Errors are answered as FastAPI
servers do: status 500, with the text of the exception.
"""

import argparse
import ctypes
import email.parser
import email.policy
import io
import json
import threading
import time
import wave
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch

from whisper import RATE_HZ, Whisper

# One kernel for each way to die. A kernel of PTX needs no compiler: the driver has one.
PTX = """
.version 7.0
.target sm_70
.address_size 64
.visible .entry illegal_address() { .reg .u64 p; mov.u64 p, 16; st.global.u32 [p], 1; ret; }
.visible .entry misaligned(.param .u64 a) { .reg .u64 p; ld.param.u64 p, [a]; add.u64 p, p, 1; st.global.u32 [p], 1; ret; }
.visible .entry trap() { trap; ret; }
.visible .entry spin(.param .u64 a) {
  .reg .u64 p; .reg .u32 v; .reg .pred q;
  ld.param.u64 p, [a];
again:
  ld.volatile.global.u32 v, [p]; setp.eq.u32 q, v, 0; @q bra again;
  ret;
}
"""


def launch(kernel, *pointers):
    """Runs a kernel of PTX in the context that PyTorch uses."""
    driver = ctypes.CDLL("libcuda.so.1")
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    torch.cuda.current_stream().synchronize()

    def check(code):
        if code:
            raise RuntimeError(f"the driver refuses to launch {kernel}: {code}")

    check(driver.cuModuleLoadData(ctypes.byref(module), PTX.encode() + b"\0"))
    check(driver.cuModuleGetFunction(ctypes.byref(function), module, kernel.encode()))
    values = [ctypes.c_uint64(pointer) for pointer in pointers]
    arguments = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    check(driver.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, arguments, None))


class Engine:
    def __init__(self, models, device):
        self.model = Whisper(models, device)
        self.lock = threading.Lock()
        self.kept = []
        self.model.transcribe(torch.zeros(RATE_HZ))

    def hear(self, samples):
        """One job at a time, as one GPU lane does."""
        with self.lock:
            return self.model.transcribe(samples)

    def zeros(self):
        self.kept.append(torch.zeros(1024, dtype=torch.int32, device="cuda"))
        return self.kept[-1].data_ptr()

    def illegal_address(self):
        launch("illegal_address")

    def misaligned_address(self):
        launch("misaligned", self.zeros())

    def launch_failure(self):
        launch("trap")

    def device_assert(self):
        """An index beyond its table, which PyTorch's kernels assert against: the usual fault of a decoder."""
        table = torch.zeros(10, device="cuda")
        self.kept.append(table[torch.tensor([1_000_000], device="cuda")])

    def hang(self):
        """A kernel that never ends: later kernels of the stream wait behind it."""
        launch("spin", self.zeros())

    def out_of_memory(self):
        """Something holds all memory of the GPU."""
        torch.cuda.empty_cache()
        size = torch.cuda.mem_get_info()[0]
        while size > 1 << 12:
            try:
                self.kept.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
            except torch.OutOfMemoryError:
                size //= 2

    def garbage(self):
        """Weights that are no numbers any more: every reply is 200, and worthless."""
        for tensor in self.model.weights.values():
            tensor.fill_(torch.nan)

    def capture(self):
        """A capture into a CUDA graph that was begun and never ended."""
        stream = torch.cuda.Stream()
        torch.cuda.set_stream(stream)
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin()
        self.kept.append((stream, graph))


FAULTS = ["illegal_address", "misaligned_address", "launch_failure", "device_assert", "hang", "out_of_memory", "garbage", "capture"]


def form_file(headers, body):
    """The samples of a form's `file`, a WAV of 16 bits, one channel, 16 kHz."""
    head = f"content-type: {headers['content-type']}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    for part in message.iter_parts():
        if part.get_param("name", header="content-disposition") == "file":
            with wave.open(io.BytesIO(part.get_payload(decode=True))) as sound:
                if (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) != (RATE_HZ, 1, 2):
                    raise ValueError("this engine takes 16 kHz, one channel, 16 bits")
                frames = bytearray(sound.readframes(sound.getnframes()))
                return torch.frombuffer(frames, dtype=torch.int16).float() / 32768
    raise ValueError("no part named file")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine = None

    def do_GET(self):
        self.answer(200, {"object": "list", "data": [{"id": "whisper-base", "object": "model"}]})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0)) if not self.chunked() else self.chunks()
        try:
            if self.path.startswith("/fault/"):
                name = self.path.removeprefix("/fault/")
                if name not in FAULTS:
                    return self.answer(404, {"error": {"message": f"no fault {name}; there are {', '.join(FAULTS)}"}})
                getattr(self.engine, name)()
                return self.answer(200, {"fault": name})
            try:
                samples = form_file(self.headers, body)
            except (ValueError, wave.Error, EOFError) as error:
                return self.answer(400, {"error": {"message": str(error)}})
            self.answer(200, {"text": self.engine.hear(samples), "duration": len(samples) / RATE_HZ})
        except Exception as error:
            self.answer(500, {"detail": f"{type(error).__name__}: {error}"})

    def chunked(self):
        return "chunked" in self.headers.get("transfer-encoding", "")

    def chunks(self):
        body = bytearray()
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return bytes(body)

    def answer(self, status, value):
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", type=int, required=True)
    parser.add_argument("--models", required=True)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    started = time.monotonic()
    Handler.engine = Engine(options.models, options.device)
    print(f"ready after {time.monotonic() - started:.1f} s", flush=True)
    Server(("127.0.0.1", options.listen), Handler).serve_forever()
