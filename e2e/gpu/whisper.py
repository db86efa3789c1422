"""Whisper base on PyTorch, from the files that `make models` fetches ("Robust Speech Recognition via Large-Scale Weak
Supervision", 2022). Greedy, English, one window of 30 s: enough for a guard's clips."""

import json
import pathlib
import struct

import torch
import torch.nn.functional as F

HEADS, LAYERS = 8, 6
END, START, ENGLISH, TRANSCRIBE, NO_TIMES = 50257, 50258, 50259, 50359, 50363
RATE_HZ, HOP, SIZE, BANDS, SECONDS = 16000, 160, 400, 80, 30
MAX_TOKENS = 200


def variables(path):
    """Tensors of floats by name, of a file of CTranslate2 (version 6)."""
    data, at = path.read_bytes(), 0

    def read(form):
        nonlocal at
        [value] = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return value

    def text():
        nonlocal at
        length = read("H")
        at += length
        return data[at - length : at].rstrip(b"\0").decode()

    if read("I") != 6 or text() != "WhisperSpec":
        raise ValueError(f"{path} is not a Whisper model of version 6")
    read("I")
    tensors = {}
    for _ in range(read("I")):
        name, dims = text(), [read("I") for _ in range(read("B"))]
        kind, length = read("B"), read("I")
        if kind in (0, 4):
            dtype = torch.float32 if kind == 0 else torch.float16
            tensors[name] = torch.frombuffer(bytearray(data[at : at + length]), dtype=dtype).reshape(dims)
        at += length
    return tensors


def mel_bank():
    """Triangles on Slaney's scale, of equal area: [80, 201]."""
    frequencies = torch.linspace(0, RATE_HZ / 2, SIZE // 2 + 1, dtype=torch.float64)
    step, knee = 200.0 / 3, 1000.0
    log_step = torch.log(torch.tensor(6.4, dtype=torch.float64)) / 27
    top = knee / step + torch.log(torch.tensor(RATE_HZ / 2 / knee, dtype=torch.float64)) / log_step
    mels = torch.linspace(0, float(top), BANDS + 2, dtype=torch.float64)
    edges = torch.where(mels < knee / step, mels * step, knee * torch.exp(log_step * (mels - knee / step)))
    rise = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    return (torch.minimum(rise, fall).clamp(min=0) * (2 / (edges[2:] - edges[:-2]))[:, None]).float()


class Whisper:
    def __init__(self, models, device):
        folder = pathlib.Path(models) / "whisper-base"
        self.device = device
        self.weights = {name: tensor.to(device, torch.float32) for name, tensor in variables(folder / "model.bin").items()}
        config = json.loads((folder / "config.json").read_text())
        self.never = torch.tensor([id for id in config["suppress_ids"] if id >= 0], device=device)
        self.never_first = torch.tensor(config["suppress_ids_begin"], device=device)
        self.tokens = (folder / "vocabulary.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
        self.bank, self.window = mel_bank().to(device), torch.hann_window(SIZE, device=device)
        # Letters that stand for bytes which are no letters, as in GPT-2.
        plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
        self.bytes = {chr(byte): byte for byte in plain}
        self.bytes.update({chr(256 + n): byte for n, byte in enumerate(b for b in range(256) if b not in plain)})

    def linear(self, name, x):
        return F.linear(x, self.weights[name + "/weight"], self.weights[name + "/bias"])

    def norm(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.weights[name + "/gamma"], self.weights[name + "/beta"])

    def attend(self, q, k, v, causal=False):
        heads = lambda x: x.unflatten(-1, (HEADS, -1)).transpose(-3, -2)
        return F.scaled_dot_product_attention(heads(q), heads(k), heads(v), is_causal=causal).transpose(-3, -2).flatten(-2)

    def self_attention(self, name, x, causal=False):
        q, k, v = self.linear(name + "/linear_0", self.norm(name + "/layer_norm", x)).chunk(3, -1)
        return x + self.linear(name + "/linear_1", self.attend(q, k, v, causal))

    def feed_forward(self, name, x):
        return x + self.linear(name + "/linear_1", F.gelu(self.linear(name + "/linear_0", self.norm(name + "/layer_norm", x))))

    def encode(self, samples):
        samples = F.pad(samples[: RATE_HZ * SECONDS], (0, max(0, RATE_HZ * SECONDS - len(samples))))
        power = torch.stft(samples, SIZE, HOP, window=self.window, return_complex=True)[:, :-1].abs() ** 2
        spectrum = (self.bank @ power).clamp(min=1e-10).log10()
        spectrum = (torch.maximum(spectrum, spectrum.max() - 8) + 4) / 4
        weight = self.weights
        x = F.gelu(F.conv1d(spectrum[None], weight["encoder/conv1/weight"], weight["encoder/conv1/bias"], padding=1))
        x = F.gelu(F.conv1d(x, weight["encoder/conv2/weight"], weight["encoder/conv2/bias"], padding=1, stride=2))
        x = x.transpose(1, 2) + weight["encoder/position_encodings/encodings"]
        for n in range(LAYERS):
            layer = f"encoder/layer_{n}"
            x = self.feed_forward(layer + "/ffn", self.self_attention(layer + "/self_attention", x))
        return self.norm("encoder/layer_norm", x)

    def decode(self, tokens, memory):
        embeddings = self.weights["decoder/embeddings/weight"]
        x = embeddings[tokens] + self.weights["decoder/position_encodings/encodings"][: len(tokens)]
        x = x[None]
        for n in range(LAYERS):
            layer = f"decoder/layer_{n}"
            x = self.self_attention(layer + "/self_attention", x, causal=True)
            q = self.linear(layer + "/attention/linear_0", self.norm(layer + "/attention/layer_norm", x))
            k, v = self.linear(layer + "/attention/linear_1", memory).chunk(2, -1)
            x = x + self.linear(layer + "/attention/linear_2", self.attend(q, k, v))
            x = self.feed_forward(layer + "/ffn", x)
        return F.linear(self.norm("decoder/layer_norm", x)[0, -1], embeddings)

    @torch.inference_mode()
    def transcribe(self, samples):
        """The text of samples at 16 kHz, floats from -1 to 1."""
        memory = self.encode(torch.as_tensor(samples, dtype=torch.float32).to(self.device))
        prompt = [START, ENGLISH, TRANSCRIBE, NO_TIMES]
        tokens = torch.tensor(prompt, device=self.device)
        while len(tokens) < MAX_TOKENS:
            scores = self.decode(tokens, memory)
            scores[self.never] = -torch.inf
            scores[END + 1 :] = -torch.inf
            if len(tokens) == len(prompt):
                scores[self.never_first] = -torch.inf
            best = scores.argmax()
            if int(best) == END:
                break
            tokens = torch.cat([tokens, best[None]])
        letters = "".join(self.tokens[id] for id in tokens[len(prompt) :].tolist())
        return bytes(self.bytes.get(letter, 63) for letter in letters).decode("utf-8", "replace").strip()
