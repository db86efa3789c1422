"""Real CUDA faults on a real GPU: two engines (engine.py) under guards behind a gateway, with clients. Each fault breaks one
engine. It must be found, restarted and verified, the other engine must be left alone, and no client may see an error; wrong
words reach clients only of `garbage`, and only until golden probes have found it.

usage: faults.py PROXY MODELS [FAULT...]     PROXY is the binary speechstack-proxy, MODELS the folder of `make models`
"""

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid

HERE = pathlib.Path(__file__).resolve().parent
CLIPS = HERE.parents[1] / "proxy/src/guard/heal/golden"
# What the clips say, for clients to check.
WORDS = {"a.wav": "tomorrow morning", "b.wav": "before dinner"}
# The classes of docs/faults.md that a fault may be found by: its own, or that of a library that reports it first.
FAULTS = {
    "illegal_address": ["A", "B", "X"],
    "misaligned_address": ["A", "B", "X"],
    "launch_failure": ["A", "B", "X"],
    "device_assert": ["A", "B", "X"],
    "capture": ["A'", "A", "B"],
    "garbage": ["Q"],
    "hang": ["H", "P"],
    "out_of_memory": ["C", "B"],
}
CONFIG = """
gateway: {{listen: "127.0.0.1:18080", admin: "127.0.0.1:19090"}}
guard:
  probe: {{idle_period: 10s, content_period: 30s}}
  repair: {{probation: 10s, burst: 20, max_per_day: 1000}}
engines:
  - {{name: gpu-a, capability: stt, protocols: [openai], url: "http://127.0.0.1:18101", guard: "127.0.0.1:18201",
     guard_admin: "127.0.0.1:18301", command: {a}, env: {{CUDA_VISIBLE_DEVICES: "0"}}}}
  - {{name: gpu-b, capability: stt, protocols: [openai], url: "http://127.0.0.1:18102", guard: "127.0.0.1:18202",
     guard_admin: "127.0.0.1:18302", command: {b}, env: {{CUDA_VISIBLE_DEVICES: "0"}}}}
"""


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
        return reply.read().decode()


def report(port):
    return json.loads(get(port, "/state"))


def metric(port, name):
    """Its sum over all labels; `None` when it is not there."""
    values = [line.rsplit(" ", 1)[1] for line in get(port, "/metrics").splitlines() if line.startswith((name + "{", name + " "))]
    return sum(map(float, values)) if values else None


def until(what, seconds, check):
    """Seconds until `check` holds."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        try:
            if check():
                return time.monotonic() - started
        except OSError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds} s; gpu-a says {report(18301)}")


class Clients:
    """Callers that transcribe one after the other; each upload differs by noise that cannot be heard."""

    def __init__(self, count):
        self.clips = {name: (CLIPS / name).read_bytes() for name in WORDS}
        self.stopped, self.lock = threading.Event(), threading.Lock()
        self.served, self.garbled, self.failed, self.slowest = 0, 0, [], 0.0
        self.threads = [threading.Thread(target=self.call, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def upload(self, name):
        clip = bytearray(self.clips[name])
        for _ in range(64):
            clip[2 * random.randrange(100, len(clip) // 2 - 1)] ^= 1
        border = uuid.uuid4().hex
        head = f'--{border}\r\ncontent-disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--{border}\r\n'
        head += 'content-disposition: form-data; name="file"; filename="a.wav"\r\ncontent-type: audio/wav\r\n\r\n'
        body = head.encode() + bytes(clip) + f"\r\n--{border}--\r\n".encode()
        url = "http://127.0.0.1:18080/v1/audio/transcriptions"
        return urllib.request.Request(url, body, {"content-type": f"multipart/form-data; boundary={border}"})

    def call(self):
        while not self.stopped.is_set():
            started, name, garbled, error = time.monotonic(), random.choice(list(WORDS)), False, None
            try:
                with urllib.request.urlopen(self.upload(name), timeout=60) as reply:
                    garbled = WORDS[name] not in json.loads(reply.read())["text"].lower()
            except urllib.error.HTTPError as refused:
                error = f"{refused.code} {refused.read()[:300]}"
            except OSError as broken:
                error = str(broken)
            with self.lock:
                self.served += error is None and not garbled
                self.garbled += garbled
                self.failed += [error] if error else []
                self.slowest = max(self.slowest, time.monotonic() - started)
            self.stopped.wait(0.15)

    def taken(self):
        """What was counted since the last look."""
        with self.lock:
            counted = (self.served, self.garbled, self.failed, self.slowest)
            self.served, self.garbled, self.failed, self.slowest = 0, 0, [], 0.0
        return counted

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(90)


def serving(port):
    seen = report(port)
    return seen["verdict"] == "serving" and seen["state"] in ("healthy", "saturated")


def try_fault(name, clients):
    until("both engines serve", 120, lambda: serving(18301) and serving(18302))
    clients.taken()
    before, other = report(18301), report(18302)
    xids = metric(18301, "speechstack_gpu_xid_total") or 0
    memory = metric(18301, "speechstack_gpu_memory_bytes")
    known = {incident["id"] for incident in before["incidents"]}
    request = urllib.request.Request(f"http://127.0.0.1:18101/fault/{name}", b"", method="POST")
    try:
        urllib.request.urlopen(request, timeout=10).read()
    except (OSError, urllib.error.HTTPError):
        pass  # The fault may break the very call that asks for it.
    started = time.monotonic()
    since = lambda: time.monotonic() - started
    until("the engine is taken out", 120, lambda: report(18301)["weight"] == 0 or report(18301)["restarts"] > before["restarts"])
    ejected = since()
    until("the engine is restarted", 120, lambda: report(18301)["restarts"] > before["restarts"])
    restarted = since()
    until("the engine serves again", 120, lambda: report(18301)["weight"] > 0 and report(18301)["instance"] != before["instance"])
    verified = since()
    until("the engine's probation ends", 120, lambda: serving(18301))
    served, garbled, failed, slowest = clients.taken()
    after = report(18301)
    found = [incident for incident in after["incidents"] if incident["id"] not in known]
    row = {
        "fault": name,
        "class": found[0]["class"] if found else None,
        "signature": found[0]["signature"] if found else None,
        "xids": int((metric(18301, "speechstack_gpu_xid_total") or 0) - xids),
        "ejected_s": round(ejected, 2),
        "restarted_s": round(restarted, 2),
        "verified_s": round(verified, 2),
        "restarts": after["restarts"] - before["restarts"],
        "other_restarts": report(18302)["restarts"] - other["restarts"],
        "served": served,
        "garbled": garbled,
        "failed": len(failed),
        "slowest_s": round(slowest, 2),
        "gpu_memory_mb": [round((value or 0) / 1e6) for value in (memory, metric(18301, "speechstack_gpu_memory_bytes"))],
    }
    print(json.dumps(row), flush=True)
    for error in failed[:3]:
        print("  client:", error, flush=True)
    wrong = []
    if row["class"] not in FAULTS[name]:
        wrong.append(f"{name}: class {row['class']}, not one of {FAULTS[name]}: {found}")
    if row["restarts"] != 1 or row["other_restarts"] != 0:
        wrong.append(f"{name}: {row['restarts']} restarts, {row['other_restarts']} of the other engine")
    if failed or not served or (garbled and name != "garbage"):
        wrong.append(f"{name}: {len(failed)} clients failed, {garbled} got wrong words, {served} were served")
    return wrong


def run(name, options):
    """Tries one fault on a stack of its own: repairs in quick succession wait for each other. What was wrong."""
    command = [sys.executable, str(HERE / "engine.py"), "--models", os.path.abspath(options.models)]
    command += ["--device", options.device, "--listen"]
    with tempfile.TemporaryDirectory() as folder:
        config, log = pathlib.Path(folder) / "stack.yaml", pathlib.Path(options.logs or folder) / f"{name}.log"
        config.write_text(CONFIG.format(a=json.dumps([*command, "18101"]), b=json.dumps([*command, "18102"])))
        with log.open("w") as output:
            stack = subprocess.Popen([options.proxy, "standalone", "--config", str(config)], stdout=output, stderr=output)
        wrong, clients = [], None
        try:
            until("both engines serve", 180, lambda: serving(18301) and serving(18302))
            if options.device == "cuda" and metric(18301, "speechstack_gpu_xid_total") is None:
                wrong.append("the guard does not watch the GPU")
            clients = Clients(2)
            time.sleep(3)
            wrong += try_fault(name, clients)
        except AssertionError as late:
            wrong.append(f"{name}: {late}")
        finally:
            if clients:
                clients.stop()
            stack.send_signal(signal.SIGTERM)
            try:
                stack.wait(40)
            except subprocess.TimeoutExpired:
                stack.kill()
            if wrong:
                lines = [line for line in log.read_text(errors="replace").splitlines() if "request ended" not in line]
                print("\n".join(lines[-40:]))
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("proxy")
    parser.add_argument("models")
    parser.add_argument("faults", nargs="*", metavar="fault", help=f"of {', '.join(FAULTS)}; all of them by default")
    parser.add_argument("--logs", help="folder for the log of each stack")
    parser.add_argument("--device", default="cuda", help="cpu tries this program where there is no GPU, with the fault garbage alone")
    options = parser.parse_args()
    if unknown := set(options.faults) - set(FAULTS):
        parser.error(f"no fault {', '.join(unknown)}")
    wrong = [line for name in options.faults or FAULTS for line in run(name, options)]
    print("\n".join(wrong) or "every fault was found and repaired, and no client saw an error")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
