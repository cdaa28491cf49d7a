// Shows /openapi.json and /asyncapi.json. Text goes in as text, so nothing in a document can become markup.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
const main = document.getElementById("main");
let shapes = {};

function make(tag, fields = {}, ...children) {
  const element = Object.assign(document.createElement(tag), fields);
  element.append(...children.filter((child) => child !== null));
  return element;
}

const code = (text) => make("code", {}, text);
const slug = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
const last = (path) => path.split("/").pop();

// Descriptions are plain text with `code` and *names* in them.
function prose(text) {
  const parts = (text || "").split(/(`[^`]+`|\*\w+\*)/).filter(Boolean);
  return parts.map((part) => (/^[`*].*[`*]$/.test(part) && part.length > 2 ? code(part.slice(1, -1)) : part));
}

function section(title, level = "h2") {
  const id = slug(title);
  const heading = make(level, { id }, title);
  const place = make("section", {}, heading);
  place.setAttribute("aria-labelledby", id);
  if (level === "h2") document.getElementById("tags").append(make("a", { href: `#${id}` }, title));
  main.append(place);
  return place;
}

function folded(id, head, ...inside) {
  return make("details", { id }, make("summary", {}, ...head), make("div", { className: "inside" }, ...inside));
}

// --- shapes

function typed(schema) {
  if (!schema || Object.keys(schema).length === 0) return ["any"];
  if (schema.$ref) return [make("a", { href: `#shape-${last(schema.$ref)}` }, last(schema.$ref))];
  if ("const" in schema) return [code(JSON.stringify(schema.const))];
  if (schema.enum) return spaced(schema.enum.map((value) => [code(JSON.stringify(value))]), " | ");
  const choices = schema.anyOf || schema.oneOf;
  if (choices) return spaced(choices.map(typed), " | ");
  if (schema.type === "array") return ["array of ", ...typed(schema.items)];
  if (schema.type === "object" && schema.additionalProperties) return ["object of ", ...typed(schema.additionalProperties)];
  return [[schema.type || "any"].flat().join(" | ")];
}

const spaced = (lists, between) => lists.flatMap((list, at) => (at ? [between, ...list] : list));

function limits(schema) {
  const said = [];
  if (schema.minimum !== undefined) said.push(`from ${schema.minimum}`);
  if (schema.maximum !== undefined) said.push(`to ${schema.maximum}`);
  if (schema.exclusiveMaximum !== undefined) said.push(`below ${schema.exclusiveMaximum}`);
  if (schema.default !== undefined && schema.default !== null) said.push(`else ${JSON.stringify(schema.default)}`);
  return said.length ? ` (${said.join(", ")})` : "";
}

function row(name, schema, required, text) {
  const first = make("th", { scope: "row" }, code(name));
  const needed = make("small", {}, required ? "required" : "");
  return make("tr", {}, first, make("td", {}, ...typed(schema)), make("td", {}, needed, " ", ...prose(text), limits(schema)));
}

function table(caption, rows, ...named) {
  const heads = (named.length ? named : ["name", "type", "meaning"]).map((text) => make("th", { scope: "col" }, text));
  const all = make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows));
  all.setAttribute("aria-label", caption);
  return make("div", { className: "table" }, all);
}

function fields(caption, schema) {
  if (!schema.properties) return make("p", {}, ...typed(schema));
  const needed = schema.required || [];
  const rows = Object.entries(schema.properties).map(([name, one]) => row(name, one, needed.includes(name), one.description));
  return rows.length ? table(caption, rows) : make("p", {}, "No fields.");
}

// --- routes

function sample(schema) {
  if (schema.$ref) return sample(shapes[last(schema.$ref)]);
  if (schema.examples) return schema.examples[0];
  if ("const" in schema) return schema.const;
  if (schema.enum) return schema.enum[0];
  if (schema.anyOf || schema.oneOf) return sample((schema.anyOf || schema.oneOf)[0]);
  if (schema.type === "array") return [sample(schema.items)];
  if (schema.type === "object") {
    const needed = schema.required || [];
    const shown = Object.entries(schema.properties || {}).filter(([name, one]) => needed.includes(name) || one.examples);
    return Object.fromEntries(shown.map(([name, one]) => [name, sample(one)]));
  }
  return { string: "text", integer: 1, number: 1, boolean: true }[schema.type] ?? null;
}

function address(path, operation) {
  const given = (operation.parameters || []).filter((one) => one.required);
  const asked = given.filter((one) => one.in === "query").map((one) => `${one.name}=${sample(one.schema)}`);
  const filled = given.reduce((text, one) => text.replace(`{${one.name}}`, one.example ?? sample(one.schema)), path);
  return asked.length ? `${filled}?${asked.join("&")}` : filled;
}

// A word for the shell, also where it has a quote in it.
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function example(method, path, operation) {
  const where = address(path, operation);
  if ("101" in operation.responses) return `new WebSocket("${location.origin.replace(/^http/, "ws")}${where}")`;
  const words = ["curl"];
  const media = Object.keys(operation.responses["200"]?.content || {});
  if (media.length === 1 && media[0] === "text/event-stream") words.push("-N");
  if (method !== "get") words.push("-X", method.toUpperCase());
  words.push(quoted(location.origin + where));
  const body = operation.requestBody?.content;
  if (body?.["application/json"]) {
    words.push("-H", quoted("Content-Type: application/json"));
    words.push("-d", quoted(JSON.stringify(body["application/json"].example)));
  } else if (body) words.push("-H", quoted("Content-Type: text/plain"), "--data-binary", quoted("hello"));
  return words.join(" ");
}

function copied(text) {
  const button = make("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  });
  return [make("pre", {}, code(text)), button];
}

function answers(operation) {
  const rows = Object.entries(operation.responses).map(([status, answer]) => {
    const contents = Object.entries(answer.content || {}).map(([media, one]) =>
      media === "application/json" ? typed(one.schema) : [media]);
    const holds = contents.length ? spaced(contents, " or ") : ["nothing"];
    const first = make("th", { scope: "row" }, code(status));
    return make("tr", {}, first, make("td", {}, ...holds), make("td", {}, ...prose(answer.description)));
  });
  return table("Answers", rows, "status", "holds", "meaning");
}

function route(method, path, operation) {
  const inside = [operation.description ? make("p", {}, ...prose(operation.description)) : null];
  if (operation.parameters?.length) {
    const rows = operation.parameters.map((one) => row(one.name, one.schema, one.required, [one.description, `in the ${one.in}`].filter(Boolean).join("; ")));
    inside.push(make("h3", {}, "Parameters"), table("Parameters", rows));
  }
  const body = operation.requestBody;
  if (body) inside.push(make("h3", {}, body.required ? "Body" : "Body, if any"), bodied(body.content["application/json"]));
  inside.push(make("h3", {}, "Answers"), answers(operation), make("h3", {}, "Example"), ...copied(example(method, path, operation)));
  const head = [make("b", {}, method.toUpperCase()), code(path), make("span", {}, operation.summary)];
  return folded(operation.operationId, head, ...inside);
}

function bodied(content) {
  if (!content) return make("p", {}, "Bytes.");
  const schema = content.schema.$ref ? shapes[last(content.schema.$ref)] : content.schema;
  return fields("Body", schema);
}

function showRoutes(openapi) {
  for (const { name } of openapi.tags) {
    const place = section(name);
    for (const [path, methods] of Object.entries(openapi.paths)) {
      for (const method of METHODS.filter((one) => methods[one]?.tags[0] === name)) {
        place.append(route(method, path, methods[method]));
      }
    }
  }
}

// --- messages

function showMessages(asyncapi) {
  const place = section("WebSocket messages");
  place.append(make("p", {}, ...prose(asyncapi.info.description)));
  for (const [name, operation] of Object.entries(asyncapi.operations)) {
    const channel = asyncapi.channels[last(operation.channel.$ref)];
    place.append(make("h3", { id: `operation-${name}` }, ...prose(operation.summary)), make("p", {}, code(channel.address)));
    for (const { $ref } of operation.messages) place.append(message(name, last($ref), asyncapi.components.messages[last($ref)]));
  }
}

function message(operation, key, said) {
  const schema = said.payload.$ref ? shapes[last(said.payload.$ref)] : said.payload;
  const about = (said.summary || schema.description || "").split("\n\n")[0];
  const examples = (said.examples || []).map((one) => make("pre", {}, code(JSON.stringify(one.payload))));
  return folded(`${operation}-${key}`, [code(said.name), make("span", {}, ...prose(about))], fields(said.name, schema), ...examples);
}

function showShapes() {
  const place = section("Shapes");
  for (const [name, schema] of Object.entries(shapes).sort()) {
    place.append(folded(`shape-${name}`, [code(schema.title || name), make("span", {}, ...prose(schema.description))], fields(name, schema)));
  }
}

// A link to what is folded away opens it.
function unfold() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target?.tagName === "DETAILS") target.open = true;
  target?.scrollIntoView();
}

async function read(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path} answers ${answer.status}`);
  return answer.json();
}

async function show() {
  const state = document.getElementById("state");
  try {
    const [openapi, asyncapi] = await Promise.all([read("/openapi.json"), read("/asyncapi.json")]);
    shapes = { ...asyncapi.components.schemas, ...openapi.components.schemas };
    showRoutes(openapi);
    showMessages(asyncapi);
    showShapes();
    state.remove();
    unfold();
  } catch (error) {
    state.textContent = `The documents cannot be read: ${error.message}`;
  }
}

addEventListener("hashchange", unfold);
show();
