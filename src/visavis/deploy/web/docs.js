import { el } from "./parts.js";

document.getElementById("here").textContent = new URL(".", location.href).href.replace(/\/$/, "");
const api = await (await fetch("openapi.json")).json();
const resolve = (schema) => (schema?.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema);

// Words between backticks are code.
const prose = (text) => text.split("`").map((part, i) => (i % 2 ? el("code", {}, part) : part));
const anchor = (method, path) => `${method}-${path.replace(/[^a-z]+/g, "-").replace(/^-|-$/g, "")}`;

function fieldsOf(route) {
  const fields = (route.parameters ?? []).map((p) => [p.name, p.in, p.required, p.schema?.description ?? ""]);
  for (const [kind, content] of Object.entries(route.requestBody?.content ?? {})) {
    const schema = resolve(content.schema);
    for (const [name, value] of Object.entries(schema.properties ?? {})) {
      const text = value.description ?? (value.type === "array" ? "several" : value.format === "binary" ? "picture" : "");
      fields.push([name, kind.includes("json") ? "JSON" : "form", schema.required?.includes(name), text]);
    }
  }
  return fields;
}

function table(fields) {
  const rows = fields.map(([name, where, required, text]) => el("tr", {},
    el("th", { scope: "row" }, el("code", {}, name)), el("td", {}, where + (required ? ", required" : "")), el("td", {}, prose(text))));
  return el("table", { class: "stack" },
    el("thead", {}, el("tr", {}, ["Name", "Where", "What it says"].map((head) => el("th", { scope: "col" }, head)))), el("tbody", {}, rows));
}

function section([path, method, route]) {
  const [line, ...more] = (route.description ?? "").split("\n");
  const fields = fieldsOf(route);
  return el("details", { class: "route", id: anchor(method, path) },
    el("summary", {}, el("span", { class: "method" }, method.toUpperCase()), el("code", {}, path), el("span", { class: "what" }, prose(line))),
    ...more.filter((text) => text.trim()).map((text) => el("p", {}, prose(text))),
    el("p", { class: "soft" }, route["x-role"] === "anybody" ? "Open to everybody." : `For tokens of the role ${route["x-role"]} and above.`),
    fields.length ? table(fields) : el("p", { class: "soft" }, "No fields."));
}

const routes = Object.entries(api.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, route]) => [path, method, route]));
document.getElementById("routes").replaceChildren(...routes.map(section));
document.getElementById("contents").replaceChildren(...routes.map(([path, method]) =>
  el("li", {}, el("a", { href: `#${anchor(method, path)}` }, `${method.toUpperCase()} ${path}`))));

function openTarget() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target) { target.open = true; target.scrollIntoView(); }
}
addEventListener("hashchange", openTarget);
openTarget();
document.documentElement.dataset.ready = "";
