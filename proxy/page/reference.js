// The reference: shows what /openapi.json says.

const make = (tag, text, ...children) => {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  element.append(...children);
  return element;
};

let schemas = {};

const resolve = (schema) => {
  const name = schema.$ref?.split("/").pop();
  return name ? { name, ...schemas[name] } : schema;
};

const kind = (schema) => {
  const { name, type, items, enum: values, anyOf, oneOf } = resolve(schema);
  if (name) return name;
  if (values) return values.join(" | ");
  const choice = anyOf ?? oneOf;
  if (choice) return choice.map(kind).join(" or ");
  if (type === "array" || type?.includes?.("array")) return `list of ${kind(items ?? {})}`;
  return [type].flat().filter(Boolean).join(" or ") || "any";
};

const table = (rows) => {
  const head = make("tr", "", ...["Name", "Type", "Meaning"].map((name) => make("th", name)));
  const body = rows.map(([name, schema, about, required]) => {
    const label = make("td", "", make("code", name));
    if (required) label.append(" required");
    return make("tr", "", label, make("td", kind(schema)), make("td", about ?? ""));
  });
  return make("table", "", make("thead", "", head), make("tbody", "", ...body));
};

const properties = (schema) => {
  const { properties: fields = {}, required = [] } = resolve(schema);
  return Object.entries(fields).map(([name, field]) => [name, field, field.description, required.includes(name)]);
};

const call = (path, method, operation) => {
  const parts = [make("summary", "", make("code", `${method.toUpperCase()} ${path}`), ` ${operation.summary}`)];
  if (operation.parameters) {
    parts.push(make("h3", "Parameters"));
    parts.push(table(operation.parameters.map((found) => [found.name, found.schema, found.description, found.required])));
  }
  for (const [media, { schema }] of Object.entries(operation.requestBody?.content ?? {})) {
    parts.push(make("h3", `Body: ${media}`));
    parts.push(table(properties(schema)));
  }
  for (const [status, reply] of Object.entries(operation.responses)) {
    if (status === "default") continue;
    const media = Object.entries(reply.content ?? {});
    const shown = media.map(([type, { schema }]) => `${type} (${kind(schema)})`).join(", ");
    parts.push(make("p", `${status}: ${shown || reply.description}`));
  }
  const details = make("details", "", ...parts);
  details.id = operation.operationId;
  return details;
};

const show = (spec) => {
  schemas = spec.components.schemas;
  const about = document.getElementById("about");
  about.textContent = `${spec.info.description} Version ${spec.info.version}.`;
  const all = Object.entries(spec.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => ({ path, method, operation })));
  for (const { name, description } of spec.tags) {
    const section = make("section", "", make("h2", name), make("p", description));
    section.id = `group-${name}`;
    for (const { path, method, operation } of all.filter((found) => found.operation.tags.includes(name))) {
      section.append(call(path, method, operation));
    }
    document.getElementById("calls").append(section);
    const link = make("a", name);
    link.href = `#group-${name}`;
    document.getElementById("groups").append(link);
  }
  const section = make("section", "", make("h2", "Schemas"));
  for (const name of Object.keys(schemas).sort()) {
    section.append(make("details", "", make("summary", name), make("p", schemas[name].description ?? ""), table(properties(schemas[name]))));
  }
  document.getElementById("calls").append(section);
  if (location.hash) {
    const wanted = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (wanted?.tagName === "DETAILS") wanted.open = true;
    wanted?.scrollIntoView();
  }
};

try {
  const reply = await fetch("/openapi.json");
  if (!reply.ok) throw new Error(`${reply.status}`);
  show(await reply.json());
} catch (error) {
  const about = document.getElementById("about");
  about.textContent = `The reference cannot be loaded: ${error.message}`;
  about.className = "error";
}
