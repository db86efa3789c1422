import { byId, json, logout, status } from "./api.js";
import * as engines from "./engines.js";
import * as speak from "./speak.js";
import * as transcribe from "./transcribe.js";

const option = (value, text = value) => new Option(text, value);

async function choices() {
  const [models, speaking, voices] = await Promise.all([
    json("v1/models"), json("v1/audio/models"), json("v1/audio/voices"),
  ]);
  const speaks = new Set((speaking.models ?? speaking.data ?? []).map((model) => model.id ?? model));
  const ids = models.data.map((model) => model.id);
  byId("stt-model").replaceChildren(...ids.filter((id) => !speaks.has(id)).map((id) => option(id)));
  byId("tts-model").replaceChildren(...ids.filter((id) => speaks.has(id)).map((id) => option(id)));
  byId("voice").replaceChildren(...voices.voices.map(({ id, name, language }) => option(id, [name, language].filter(Boolean).join(", "))));
}

byId("logout").addEventListener("click", logout);
transcribe.start();
speak.start();
engines.start();
choices().catch((error) => status(byId("ready"), error.message, true));
