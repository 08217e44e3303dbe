// Small parts of the page: elements, requests, picture fields, drawing. No framework, no build step.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function percent(value) {
  if (value >= 0.999) return "> 99.9 %";
  if (value <= 0.001) return "< 0.1 %";
  return `${(100 * value).toFixed(1)} %`;
}

export function rate(value) {
  return value >= 0.01 ? `${+(100 * value).toPrecision(2)} %` : `1 in ${Math.round(1 / value).toLocaleString("en")}`;
}

// Requests. A token, when the service wants one, lives in this tab only.
export async function ask(method, path, body) {
  for (;;) {
    const headers = {};
    const token = sessionStorage.getItem("visavis-token");
    if (token) headers.Authorization = `Bearer ${token}`;
    if (body && !(body instanceof FormData)) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(`.${path}`, { method, headers, body: body && !(body instanceof FormData) ? JSON.stringify(body) : body });
    } catch {
      throw new Error("The service cannot be reached. Is it still running?");
    }
    if (response.status === 401 && (await askToken(Boolean(token)))) continue;
    const kind = response.headers.get("content-type") || "";
    if (response.ok && kind.startsWith("image/")) return response.blob();
    const answer = kind.includes("json") ? await response.json() : {};
    if (!response.ok) throw new Error(answer.error || `The service answered ${response.status}.`);
    return answer;
  }
}

let asking = null;
function askToken(wrong) {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("token-dialog");
    dialog.querySelector("p").textContent = wrong
      ? "That token is not right. Ask the person who runs this service."
      : "Ask the person who runs it. It is remembered until this tab is closed.";
    const input = dialog.querySelector("input");
    input.value = "";
    dialog.addEventListener("close", () => {
      const use = dialog.returnValue === "ok" && input.value.trim();
      if (use) sessionStorage.setItem("visavis-token", input.value.trim());
      asking = null;
      resolve(Boolean(use));
    }, { once: true });
    dialog.returnValue = "";
    dialog.showModal();
  });
  return asking;
}

// A field that takes pictures by drop, by file dialog, from the clipboard or the camera.
export class PictureField {
  constructor(node, onchange) {
    this.node = node;
    this.name = node.dataset.name;
    this.multiple = "multiple" in node.dataset;
    this.files = [];
    this.onchange = onchange;
    const id = `file-${this.name}`;
    this.input = el("input", { type: "file", id, accept: "image/*", multiple: this.multiple, "aria-label": node.dataset.label });
    this.preview = el("div", { class: "preview" });
    this.label = el("label", { class: "button small", for: id, "aria-hidden": "true" }, "Choose");
    const camera = el("button", { type: "button", class: "small", onclick: () => this.fromCamera(), "aria-label": `${node.dataset.label}: use camera` }, "Camera");
    camera.hidden = !navigator.mediaDevices?.getUserMedia;
    this.hint = el("span", { class: "hint" }, this.multiple ? "drop one or several here" : "drop it here");
    node.append(el("strong", {}, node.dataset.label), this.preview, this.hint, el("div", { class: "row" }, this.input, this.label, camera));
    this.input.addEventListener("change", () => this.take([...this.input.files]));
    for (const kind of ["dragover", "dragenter"]) node.addEventListener(kind, (e) => { e.preventDefault(); node.classList.add("over"); });
    for (const kind of ["dragleave", "drop"]) node.addEventListener(kind, () => node.classList.remove("over"));
    node.addEventListener("drop", (e) => { e.preventDefault(); this.take([...e.dataTransfer.files]); });
  }

  take(files) {
    if (!files.length) return;
    this.files = this.multiple ? [...this.files, ...files] : files.slice(0, 1);
    this.draw();
    this.onchange();
  }

  clear() {
    this.files = [];
    this.input.value = "";
    this.draw();
    this.onchange();
  }

  draw() {
    this.preview.querySelectorAll("img").forEach((img) => URL.revokeObjectURL(img.src));
    this.preview.replaceChildren(...this.files.map((file) => {
      const img = el("img", { src: URL.createObjectURL(file), alt: `${this.node.dataset.label}: ${file.name}` });
      img.addEventListener("error", () => img.replaceWith(el("span", { class: "hint" }, file.name)));
      return img;
    }));
    this.node.classList.toggle("full", this.files.length > 0);
    this.hint.hidden = this.files.length > 0 && !this.multiple;
    this.label.textContent = this.files.length && !this.multiple ? "Change" : this.files.length ? "Add" : "Choose";
  }

  // Show where the faces were found, in place of the preview.
  async mark(faces) {
    const many = faces.length === 1 ? "the face and its five landmarks" : `${faces.length} faces with five landmarks each`;
    this.preview.replaceChildren(await drawFaces(this.files[0], faces, `${this.node.dataset.label} with ${many} marked`));
  }

  async fromCamera() {
    const dialog = document.getElementById("camera-dialog");
    const video = document.getElementById("camera-video");
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 } } });
    } catch (error) {
      this.hint.hidden = false;
      this.hint.textContent = error.name === "NotAllowedError" ? "the camera was not allowed" : "no camera is available";
      return;
    }
    video.srcObject = stream;
    await video.play();
    dialog.returnValue = "";
    dialog.showModal();
    dialog.addEventListener("close", async () => {
      if (dialog.returnValue === "yes") {
        const canvas = el("canvas", { width: video.videoWidth, height: video.videoHeight });
        canvas.getContext("2d").drawImage(video, 0, 0);
        const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.95));
        this.take([new File([blob], "camera.jpg", { type: "image/jpeg" })]);
      }
      stream.getTracks().forEach((track) => track.stop());
      video.srcObject = null;
    }, { once: true });
  }
}

// A face: its crop with what is poor about it.
export function faceCard(title, face) {
  const canvas = el("canvas", { width: 96, height: 112, role: "img", "aria-label": `${title}, the aligned crop` });
  const image = new Image();
  image.onload = () => {
    canvas.width = image.width; canvas.height = image.height;
    canvas.getContext("2d").drawImage(image, 0, 0);
  };
  if (face.crop) image.src = face.crop;
  const reasons = face.reasons.length
    ? el("ul", { class: "warn" }, face.reasons.map((reason) => el("li", {}, reason)))
    : el("p", { class: "soft" }, "Good quality");
  const turned = face.turned ? [el("p", { class: "soft" }, `Turned by ${face.turned}° to stand upright`)] : [];
  return el("div", { class: "face" }, canvas, el("div", {}, el("h3", {}, title), reasons, ...turned));
}

// The picture with boxes and landmarks drawn over it.
export async function drawFaces(file, faces, caption) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  const scale = Math.min(900 / bitmap.width, Math.max(1, 480 / bitmap.height));
  const canvas = el("canvas", { width: Math.round(bitmap.width * scale), height: Math.round(bitmap.height * scale), role: "img", "aria-label": caption });
  const pen = canvas.getContext("2d");
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const thick = Math.max(2.5, canvas.width / 130);
  faces.forEach((face, i) => {
    const [x1, y1, x2, y2] = face.box.map((v) => (v + 0.5) * scale);
    pen.lineWidth = thick;
    pen.strokeStyle = "#ffffff";
    pen.strokeRect(x1 - thick, y1 - thick, x2 - x1 + 2 * thick, y2 - y1 + 2 * thick);
    pen.strokeStyle = "#1d4e4a";
    pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
    for (const [x, y] of face.landmarks) {
      pen.beginPath();
      pen.arc((x + 0.5) * scale, (y + 0.5) * scale, thick * 1.6, 0, 7);
      pen.fillStyle = "#ffc04d";
      pen.fill();
      pen.lineWidth = thick / 2;
      pen.strokeStyle = "#000000";
      pen.stroke();
    }
    if (faces.length > 1) {
      pen.font = `bold ${Math.round(10 * thick)}px sans-serif`;
      pen.fillStyle = "#1d4e4a";
      const label = String(i + 1), width = pen.measureText(label).width + 6 * thick;
      pen.fillRect(x1, y1, width, 13 * thick);
      pen.fillStyle = "#ffffff";
      pen.fillText(label, x1 + 3 * thick, y1 + 10 * thick);
    }
  });
  return canvas;
}

// Similarity on its scale, with the calibrated threshold.
export function scaleBar(similarity, threshold) {
  const low = Math.min(-0.2, similarity), at = (v) => (100 * (v - low)) / (1 - low);
  const said = threshold === null ? "" : `, threshold ${threshold.toFixed(3)}`;
  const bar = el("div", { class: "scale", role: "img", "aria-label": `Similarity ${similarity.toFixed(3)} on a scale to 1${said}` });
  // A label is moved left by as much of its width as it stands to the right, so that it never leaves the bar.
  const place = (node, value) => {
    node.style.left = `${at(value)}%`;
    if (node.localName === "span") node.style.transform = `translateX(-${at(value)}%)`;
    return node;
  };
  if (threshold !== null) {
    bar.append(place(el("div", { class: "limit" }), threshold), place(el("span", { class: "below" }, `threshold ${threshold.toFixed(3)}`), threshold));
  }
  bar.append(place(el("div", { class: "mark" }), similarity), place(el("span", { class: "above" }, similarity.toFixed(3)), similarity));
  return bar;
}
