import { PictureField, ask, el, faceCard, percent, rate, scaleBar } from "./parts.js";
import { LiveCamera } from "./live.js";

const $ = (id) => document.getElementById(id);

// Tabs: arrow keys move, the address remembers.
const tabs = [...document.querySelectorAll("[role=tab]")];
const offered = () => tabs.filter((tab) => !tab.hidden);
function show(tab, focus) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    $(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (focus) tab.focus();
  const name = tab.getAttribute("aria-controls");
  history.replaceState(null, "", `#${name}`);
  if (name === "people") listPeople();
}
tabs.forEach((tab) => {
  tab.addEventListener("click", () => show(tab));
  tab.addEventListener("keydown", (event) => {
    const open = offered(), i = open.indexOf(tab);
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -i, End: open.length - 1 - i }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    show(open[(i + step + open.length) % open.length], true);
  });
});

// What the token's role may do is offered, nothing else.
const ROLES = ["match", "read", "write", "admin"];
let role = "admin";
const may = (needs) => ROLES.indexOf(role) >= ROLES.indexOf(needs);
function offer() {
  for (const tab of tabs) tab.hidden = !may(tab.dataset.needs ?? "match");
}

// A form with picture fields: enabled when filled, busy while asking, errors where the answer would be.
function pictureForm(id, answer) {
  const form = $(`${id}-form`), result = $(`${id}-result`), button = form.querySelector("[type=submit]");
  const fields = [...form.querySelectorAll(".drop")].map((node) => new PictureField(node, update));
  function update() { button.disabled = fields.some((field) => !field.files.length); }
  form.addEventListener("reset", () => { fields.forEach((field) => field.clear()); result.replaceChildren(); });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = new FormData(form);
    for (const field of fields) {
      field.draw();
      body.delete(field.name);
      field.files.forEach((file) => body.append(field.name, file, "picture"));
    }
    button.disabled = true;
    button.classList.add("busy");
    result.setAttribute("aria-busy", "true");
    try {
      result.replaceChildren(...(await answer(body, fields)));
    } catch (error) {
      result.replaceChildren(el("p", { class: "error", role: "alert" }, error.message));
    }
    result.removeAttribute("aria-busy");
    button.classList.remove("busy");
    update();
    result.scrollIntoView({ block: "nearest", behavior: "smooth" });
  });
  return fields;
}

const notes = (list) => list.map((note) => el("p", { class: "notice" }, note));

pictureForm("compare", async (body, [first, second]) => {
  body.append("crops", "true");
  const answer = await ask("POST", "/verify", body);
  await Promise.all([first.mark([answer.reference]), second.mark([answer.probe])]);
  const [word, tone] = { true: ["The same person", "good"], false: ["Different people", "bad"], null: ["Undecided", "warn"] }[answer.match];
  const said = [];
  if (answer.probability != null) said.push(`Probability ${percent(answer.probability)} that they are one person, if both were equally likely before.`);
  if (answer.fmr !== null) said.push(`At this threshold about ${rate(answer.fmr)} pairs of strangers pass for one person.`);
  return [
    el("div", { class: "panel" },
      el("p", { class: `verdict ${tone}` }, word),
      el("p", { class: "soft" }, said.join(" ") || `Similarity ${answer.similarity.toFixed(3)}.`),
      scaleBar(answer.similarity, answer.threshold),
      el("div", { class: "crops" }, faceCard("First picture", answer.reference), faceCard("Second picture", answer.probe))),
    ...notes(answer.notes),
  ];
});

pictureForm("find", async (body, [field]) => {
  body.append("crops", "true");
  const answer = await ask("POST", "/identify", body);
  if (!answer.faces.length) return [el("p", { class: "notice" }, "No face was found on this picture.")];
  const many = answer.faces.length > 1;
  await field.mark(answer.faces.map((found) => found.face));
  const people = answer.faces.map((found, i) => {
    const other = found.elsewhere ? `Unknown: like ${found.elsewhere.name}, who is another face here` : "Unknown";
    const who = found.match ? found.match.name ?? `Person ${found.match.id}` : found.decided ? other : "Undecided";
    const tone = found.match ? "good" : found.decided ? "" : "warn";
    const list = (found.candidates ?? []).map((c) => el("li", {},
      el("span", { class: "name" }, c.name),
      el("meter", { min: 0, max: 1, low: found.threshold ?? 0, optimum: 1, value: Math.max(0, c.similarity), "aria-hidden": "true" }),
      el("span", { class: "value" }, c.similarity.toFixed(3))));
    const threshold = found.threshold === null ? "" : `Threshold ${found.threshold.toFixed(3)}`;
    const ends = found.fpir_interval ? ` (${percent(found.fpir_interval[0])} to ${percent(found.fpir_interval[1])})` : "";
    const fpir = found.fpir == null ? "" : `; somebody not enrolled would be matched in about ${percent(found.fpir)}${ends} of searches among ${found.searched === 1 ? "1 person" : `${found.searched} people`}`;
    return el("div", { class: "panel" },
      el("p", { class: `verdict ${tone}` }, many ? `${i + 1}: ${who}` : who),
      el("p", { class: "soft" }, threshold ? `${threshold}${fpir}.` : ""),
      list.length ? el("ol", { class: "candidates", "aria-label": "Most similar people" }, list) : found.candidates ? el("p", { class: "soft" }, "The gallery is empty.") : null,
      el("div", { class: "crops" }, faceCard(many ? `Face ${i + 1}` : "Face", found.face)));
  });
  return [...people, ...notes(answer.notes)];
});

new LiveCamera($("live"));

pictureForm("enroll", async (body) => {
  for (const key of ["consent", "retention_days"]) if (!body.get(key)) body.delete(key);
  const answer = await ask("POST", "/enroll", body);
  const parts = [el("p", { class: "done" },
    `${answer.subject.name}: ${answer.added} ${answer.added === 1 ? "picture" : "pictures"} enrolled` +
    (answer.already ? `, ${answer.already} were there already` : "") + `. ${answer.subject.samples} in all.`)];
  const lines = [
    ...answer.refused.map((r) => `Left out, ${r.picture}: ${r.reason}`),
    ...answer.doubts.map((r) => `Poor, ${r.picture}: ${r.reason}`),
    ...answer.resembles.map((c) => `Resembles ${c.name} (similarity ${c.similarity.toFixed(3)}). The same person?`),
  ];
  if (lines.length) parts.push(el("div", { class: "notice" }, el("ul", { class: "plain" }, lines.map((line) => el("li", {}, line)))));
  return parts;
});

// People
const PAGE = 50;
let shown = 0, asked = 0, keepsCrops = false;
const day = (iso) => new Date(iso).toLocaleDateString("en", { day: "numeric", month: "short", year: "numeric" });
async function listPeople(more = false) {
  const turn = ++asked, result = $("people-result"), query = $("people-form").query.value;
  if (!more) shown = 0;
  try {
    const answer = await ask("GET", `/subjects?limit=${PAGE}&offset=${shown}&query=${encodeURIComponent(query)}`);
    if (turn !== asked) return;
    $("people-count").textContent = `(${answer.total.toLocaleString("en")})`;
    shown += answer.subjects.length;
    const cards = answer.subjects.map(personCard);
    if (more) { result.querySelector("ul").append(...cards); result.querySelector(".more")?.remove(); }
    else if (!cards.length) result.replaceChildren(el("p", { class: "soft" }, query ? `Nobody's name contains “${query}”.` : "Nobody is enrolled yet."));
    else result.replaceChildren(el("ul", { class: "cards" }, cards));
    if (answer.subjects.length === PAGE) result.append(el("button", { class: "more", onclick: () => listPeople(true) }, "More"));
  } catch (error) {
    result.replaceChildren(el("p", { class: "error", role: "alert" }, error.message));
  }
}
function personCard(person) {
  const facts = [`${person.samples} ${person.samples === 1 ? "picture" : "pictures"}`, `since ${day(person.created)}`];
  if (person.expires) facts.push(`until ${day(person.expires)}`);
  const thumb = el("img", { class: "thumb", alt: "", hidden: true });
  if (keepsCrops) ask("GET", `/subjects/${person.id}/crop`).then((blob) => { thumb.src = URL.createObjectURL(blob); thumb.hidden = false; }, () => {});
  return el("li", { "data-id": person.id }, thumb,
    el("div", { class: "grow" }, el("h3", {}, person.name), el("p", { class: "soft" }, facts.join(" · ")),
      el("p", { class: "soft" }, person.consent ? `Consent: ${person.consent}` : "No consent noted")),
    el("div", { class: "actions" },
      may("write") && el("button", { class: "small", onclick: (e) => rename(person, e.currentTarget.closest("li")), "aria-label": `Rename ${person.name}` }, "Rename"),
      may("write") && el("button", { class: "small", onclick: () => forget(person), "aria-label": `Forget ${person.name}` }, "Forget")));
}
function rename(person, card) {
  const input = el("input", { value: person.name, maxlength: 200, "aria-label": `New name of ${person.name}` });
  const back = () => card.replaceWith(personCard(person));
  const form = el("form", { class: "grow" }, input, el("div", { class: "actions" },
    el("button", { class: "primary small", type: "submit" }, "Save"), el("button", { type: "button", class: "small", onclick: back }, "Cancel")));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      card.replaceWith(personCard(await ask("PATCH", `/subjects/${person.id}`, { name: input.value })));
    } catch (error) {
      form.querySelector(".error")?.remove();
      form.append(el("p", { class: "error", role: "alert" }, error.message));
    }
  });
  form.addEventListener("keydown", (event) => { if (event.key === "Escape") back(); });
  card.replaceChildren(form);
  input.select();
}
function forget(person) {
  const dialog = $("forget-dialog");
  $("forget-text").textContent = `${person.name}, with ${person.samples} ${person.samples === 1 ? "picture" : "pictures"}, is erased from the gallery. This cannot be undone.`;
  dialog.returnValue = "";
  dialog.addEventListener("close", async () => {
    if (dialog.returnValue !== "yes") return;
    const result = $("people-result");
    let said;
    try {
      const receipt = await ask("DELETE", `/subjects/${person.id}`);
      said = el("p", { class: receipt.complete ? "done" : "notice", role: "status" }, receipt.complete
        ? `${person.name} is forgotten. Searched ${receipt.bytes_searched.toLocaleString("en")} bytes for ${receipt.fingerprints} traces: none is left.`
        : `${person.name} is deleted. ${receipt.note || `${receipt.found} traces are still in the file.`}`);
    } catch (error) {
      said = el("p", { class: "error", role: "alert" }, error.message);
    }
    await listPeople();
    result.prepend(said, el("p", {}));
  }, { once: true });
  dialog.showModal();
}
$("people-form").addEventListener("submit", (event) => event.preventDefault());
let typing;
$("people-form").query.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(listPeople, 200); });

// About
$("token-cancel").addEventListener("click", () => $("token-dialog").close("cancel"));
function facts(pairs) { return el("dl", {}, pairs.flatMap(([key, value]) => [el("dt", {}, key), el("dd", {}, value)])); }
function evaluationRows(values, path = []) {
  return Object.entries(values).flatMap(([key, value]) =>
    value !== null && typeof value === "object" ? evaluationRows(value, [...path, key]) : [[[...path, key].join(" · "), value]]);
}
const ROLE_TEXT = {
  match: "compare and find, and learn the decision",
  read: "compare and find, and see names and similarities",
  write: "everything: also enroll, change and forget people",
  admin: "everything: also enroll, change and forget people, and read the audit log",
};
async function about() {
  try {
    const answer = await ask("GET", "/model");
    const { model, point } = answer;
    keepsCrops = answer.keeps_crops;
    role = answer.role;
    offer();
    $("kept").textContent = answer.keeps_crops ? ", except the crops of enrolled people" : "";
    if (!point) {
      $("notice").hidden = false;
      $("notice").textContent = "This model has no calibrated threshold: answers rank by similarity and decide nothing. The person who runs the service can calibrate it with visavis calibrate MODEL PHOTOS.";
    }
    const parts = [];
    if (model) {
      parts.push(el("div", { class: "panel" }, facts([
        ["Model", `${model.name} (${model.backbone}, ${answer.dim} numbers per face)`],
        ["License", model.license], ["Trained on", model.training_data], ["Intended use", model.intended_use],
        ["Decision", point ? `match from similarity ${point.threshold.toFixed(3)}` + (point.fmr ? `, at a false match rate of ${rate(point.fmr)}` : "") : "not calibrated"],
        ["You may", ROLE_TEXT[role]],
        ["Kept", `embeddings${answer.keeps_crops ? " and crops" : " only"}, ${answer.encrypted ? "encrypted" : "not encrypted"}, ${answer.retention_days ? `for ${answer.retention_days} days` : "without a time limit"}`],
      ])));
      const rows = evaluationRows(model.evaluations).slice(0, 60);
      parts.push(el("div", { class: "panel" }, el("h3", {}, "Measured, also by group of people"),
        rows.length ? el("table", {}, el("tbody", {}, rows.map(([key, value]) => el("tr", {}, el("th", { scope: "row" }, key), el("td", {}, String(value))))))
          : el("p", { class: "soft" }, "Nothing is recorded. Error rates can differ between groups of people; measure them before you rely on this model.")));
    }
    $("about-result").replaceChildren(...parts);
  } catch (error) {
    $("about-result").replaceChildren(el("p", { class: "error", role: "alert" }, error.message));
  }
}

await about();
show(offered().find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash) ?? tabs[0]);
document.documentElement.dataset.ready = "";
