// Show /openapi.json and /asyncapi.json. All text is added as text nodes, so that no text can become markup.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
const main = document.getElementById("main");
let schemas = {};

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}

const code = (text) => make("code", {}, text);
const slug = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
const lastPart = (path) => path.split("/").pop();

// Descriptions are plain text with `code` and *names*.
function formatted(text) {
  const parts = (text || "").split(/(`[^`]+`|\*\w+\*)/).filter(Boolean);
  return parts.map((part) => (/^[`*].*[`*]$/.test(part) && part.length > 2 ? code(part.slice(1, -1)) : part));
}

function section(title, level = "h2") {
  const id = slug(title);
  const heading = make(level, { id }, title);
  const element = make("section", {}, heading);
  element.setAttribute("aria-labelledby", id);
  if (level === "h2") document.getElementById("tags").append(make("a", { href: `#${id}` }, title));
  main.append(element);
  return element;
}

function details(id, summary, ...body) {
  return make("details", { id }, make("summary", {}, ...summary), make("div", { className: "inside" }, ...body));
}

// --- schemas

function typeOf(schema) {
  if (!schema || Object.keys(schema).length === 0) return ["any"];
  if (schema.$ref) return [make("a", { href: `#shape-${lastPart(schema.$ref)}` }, lastPart(schema.$ref))];
  if ("const" in schema) return [code(JSON.stringify(schema.const))];
  if (schema.enum) return join(schema.enum.map((value) => [code(JSON.stringify(value))]), " | ");
  const choices = schema.anyOf || schema.oneOf;
  if (choices) return join(choices.map(typeOf), " | ");
  if (schema.type === "array") return ["array of ", ...typeOf(schema.items)];
  if (schema.type === "object" && schema.additionalProperties) return ["object of ", ...typeOf(schema.additionalProperties)];
  return [[schema.type || "any"].flat().join(" | ")];
}

const join = (lists, separator) => lists.flatMap((list, index) => (index ? [separator, ...list] : list));

function limits(schema) {
  const texts = [];
  if (schema.minimum !== undefined) texts.push(`from ${schema.minimum}`);
  if (schema.maximum !== undefined) texts.push(`to ${schema.maximum}`);
  if (schema.exclusiveMaximum !== undefined) texts.push(`below ${schema.exclusiveMaximum}`);
  if (schema.default !== undefined && schema.default !== null) texts.push(`default ${JSON.stringify(schema.default)}`);
  return texts.length ? ` (${texts.join(", ")})` : "";
}

function row(name, schema, isRequired, text) {
  const head = make("th", { scope: "row" }, code(name));
  const required = make("small", {}, isRequired ? "required" : "");
  return make("tr", {}, head, make("td", {}, ...typeOf(schema)), make("td", {}, required, " ", ...formatted(text), limits(schema)));
}

function table(caption, rows, ...columns) {
  const heads = (columns.length ? columns : ["name", "type", "meaning"]).map((text) => make("th", { scope: "col" }, text));
  const element = make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows));
  element.setAttribute("aria-label", caption);
  return make("div", { className: "table" }, element);
}

function fields(caption, schema) {
  if (!schema.properties) return make("p", {}, ...typeOf(schema));
  const required = schema.required || [];
  const rows = Object.entries(schema.properties).map(([name, field]) => row(name, field, required.includes(name), field.description));
  return rows.length ? table(caption, rows) : make("p", {}, "No fields.");
}

// --- routes

function sample(schema) {
  if (schema.$ref) return sample(schemas[lastPart(schema.$ref)]);
  if (schema.examples) return schema.examples[0];
  if ("const" in schema) return schema.const;
  if (schema.enum) return schema.enum[0];
  if (schema.anyOf || schema.oneOf) return sample((schema.anyOf || schema.oneOf)[0]);
  if (schema.type === "array") return [sample(schema.items)];
  if (schema.type === "object") {
    const required = schema.required || [];
    const entries = Object.entries(schema.properties || {}).filter(([name, field]) => required.includes(name) || field.examples);
    return Object.fromEntries(entries.map(([name, field]) => [name, sample(field)]));
  }
  return { string: "text", integer: 1, number: 1, boolean: true }[schema.type] ?? null;
}

function address(path, operation) {
  const parameters = (operation.parameters || []).filter((parameter) => parameter.required);
  const query = parameters.filter((parameter) => parameter.in === "query").map(({ name, schema }) => `${name}=${sample(schema)}`);
  const value = ({ example, schema }) => example ?? sample(schema);
  const fullPath = parameters.reduce((text, parameter) => text.replace(`{${parameter.name}}`, value(parameter)), path);
  return query.length ? `${fullPath}?${query.join("&")}` : fullPath;
}

// The address of the hub: the page is at its /docs, perhaps under a path of a proxy.
const HUB_ADDRESS = location.href.replace(/\/docs([?#].*)?$/, "");

// Quote a word for the shell; the word may have quotes.
const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function exampleCommand(method, path, operation) {
  const target = HUB_ADDRESS + address(path, operation);
  if ("101" in operation.responses) return `new WebSocket("${target.replace(/^http/, "ws")}")`;
  const words = ["curl"];
  const media = Object.keys(operation.responses["200"]?.content || {});
  if (media.length === 1 && media[0] === "text/event-stream") words.push("-N");
  if (method !== "get") words.push("-X", method.toUpperCase());
  words.push(quote(target));
  const body = operation.requestBody?.content;
  if (body?.["application/json"]) {
    words.push("-H", quote("Content-Type: application/json"));
    words.push("-d", quote(JSON.stringify(body["application/json"].example)));
  } else if (body) words.push("-H", quote("Content-Type: text/plain"), "--data-binary", quote("hello"));
  return words.join(" ");
}

function copyable(text) {
  const button = make("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  });
  return [make("pre", {}, code(text)), button];
}

function answers(operation) {
  const rows = Object.entries(operation.responses).map(([status, answer]) => {
    const contents = Object.entries(answer.content || {}).map(([media, content]) =>
      media === "application/json" ? typeOf(content.schema) : [media]);
    const types = contents.length ? join(contents, " or ") : ["nothing"];
    const head = make("th", { scope: "row" }, code(status));
    return make("tr", {}, head, make("td", {}, ...types), make("td", {}, ...formatted(answer.description)));
  });
  return table("Answers", rows, "status", "content", "meaning");
}

function route(method, path, operation) {
  const elements = [operation.description ? make("p", {}, ...formatted(operation.description)) : null];
  if (operation.parameters?.length) {
    const rows = operation.parameters.map((parameter) => {
      const text = [parameter.description, `In the ${parameter.in}.`].filter(Boolean).join(" ");
      return row(parameter.name, parameter.schema, parameter.required, text);
    });
    elements.push(make("h3", {}, "Parameters"), table("Parameters", rows));
  }
  const body = operation.requestBody;
  if (body) elements.push(make("h3", {}, body.required ? "Body" : "Body (optional)"), bodyFields(body.content["application/json"]));
  elements.push(make("h3", {}, "Answers"), answers(operation), make("h3", {}, "Example"), ...copyable(exampleCommand(method, path, operation)));
  const head = [make("b", {}, method.toUpperCase()), code(path), make("span", {}, operation.summary)];
  return details(operation.operationId, head, ...elements);
}

function bodyFields(content) {
  if (!content) return make("p", {}, "Bytes.");
  const schema = content.schema.$ref ? schemas[lastPart(content.schema.$ref)] : content.schema;
  return fields("Body", schema);
}

function showRoutes(openapi) {
  for (const { name } of openapi.tags) {
    const element = section(name);
    for (const [path, methods] of Object.entries(openapi.paths)) {
      for (const method of METHODS.filter((verb) => methods[verb]?.tags[0] === name)) {
        element.append(route(method, path, methods[method]));
      }
    }
  }
}

// --- messages

function showMessages(asyncapi) {
  const element = section("WebSocket messages");
  element.append(make("p", {}, ...formatted(asyncapi.info.description)));
  for (const [name, operation] of Object.entries(asyncapi.operations)) {
    const channel = asyncapi.channels[lastPart(operation.channel.$ref)];
    element.append(make("h3", { id: `operation-${name}` }, ...formatted(operation.summary)), make("p", {}, code(channel.address)));
    for (const { $ref } of operation.messages) {
      element.append(message(name, lastPart($ref), asyncapi.components.messages[lastPart($ref)]));
    }
  }
}

function message(operation, key, { name, summary, payload, examples = [] }) {
  const schema = payload.$ref ? schemas[lastPart(payload.$ref)] : payload;
  const description = (summary || schema.description || "").split("\n\n")[0];
  const blocks = examples.map((example) => make("pre", {}, code(JSON.stringify(example.payload))));
  const head = [code(name), make("span", {}, ...formatted(description))];
  return details(`${operation}-${key}`, head, fields(name, schema), ...blocks);
}

function showSchemas() {
  const element = section("Schemas");
  for (const [name, schema] of Object.entries(schemas).sort()) {
    const head = [code(schema.title || name), make("span", {}, ...formatted(schema.description))];
    element.append(details(`shape-${name}`, head, fields(name, schema)));
  }
}

// Open the folded element that the address names.
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target?.tagName === "DETAILS") target.open = true;
  target?.scrollIntoView();
}

async function fetchDocument(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path} answered with status ${answer.status}`);
  return answer.json();
}

async function show() {
  const state = document.getElementById("state");
  try {
    const [openapi, asyncapi] = await Promise.all([fetchDocument("openapi.json"), fetchDocument("asyncapi.json")]);
    schemas = { ...asyncapi.components.schemas, ...openapi.components.schemas };
    showRoutes(openapi);
    showMessages(asyncapi);
    showSchemas();
    state.remove();
    openTarget();
  } catch (error) {
    state.textContent = `The documents cannot be loaded: ${error.message}. Reload the page.`;
  }
}

addEventListener("hashchange", openTarget);
show();
