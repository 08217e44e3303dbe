import { el } from "./parts.js";

document.getElementById("here").textContent = new URL(".", location.href).href.replace(/\/$/, "");
const api = await (await fetch("openapi.json")).json();
const resolve = (schema) => (schema?.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema);
const routes = Object.entries(api.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, route]) => {
  const fields = (route.parameters ?? []).map((p) => [p.name, p.in, p.required, p.schema?.description ?? ""]);
  for (const [kind, content] of Object.entries(route.requestBody?.content ?? {})) {
    const schema = resolve(content.schema);
    for (const [name, value] of Object.entries(schema.properties ?? {}))
      fields.push([name, kind.includes("json") ? "JSON" : "form", schema.required?.includes(name), value.description ?? (value.type === "array" ? "several" : value.format === "binary" ? "picture" : "")]);
  }
  const rows = fields.map(([name, where, required, text]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, where), el("td", {}, required ? "required" : ""), el("td", {}, text)));
  return el("details", { class: "route" }, el("summary", {}, el("span", { class: "method" }, method.toUpperCase()), el("code", {}, path), ` — ${(route.description ?? "").split("\n")[0]}`),
    rows.length ? el("table", {}, el("tbody", {}, rows)) : el("p", { class: "soft" }, "No fields."));
}));
document.getElementById("routes").replaceChildren(...routes);
