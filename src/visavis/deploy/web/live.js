// A camera watched: the newest frame is asked about while nothing else is on its way; who was seen, when, and how best.
import { ask, el } from "./parts.js";

const GAP = 1000; // ms a face may be away before its stay ends
const OVERLAP = 0.3;

function shared(a, b) {
  const w = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), h = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (w <= 0 || h <= 0) return 0;
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return (w * h) / (area(a) + area(b) - w * h);
}

// One stay: the answers for one face are weighed by its quality, as the tracks of `visavis identify` are.
class Stay {
  constructor(found, now) {
    this.start = now;
    this.weights = new Map();
    this.best = null;
    this.add(found, now);
  }

  add(found, now) {
    this.end = now;
    this.box = found.face.box;
    const key = found.match ? found.match.id : found.decided ? 0 : -1;
    const known = this.weights.get(key) ?? { weight: 0, name: found.match ? found.match.name ?? `Person ${found.match.id}` : found.decided ? "Unknown" : "Undecided" };
    known.weight += found.face.quality;
    this.weights.set(key, known);
    if (!this.best || found.face.quality > this.best.quality) this.best = found.face;
  }

  get name() { return [...this.weights.values()].reduce((a, b) => (b.weight > a.weight ? b : a)).name; }
}

export class LiveCamera {
  constructor(node) {
    this.button = node.querySelector("button");
    this.video = node.querySelector("video");
    this.boxes = node.querySelector("canvas");
    this.said = node.querySelector("[role=status]");
    this.list = node.querySelector("ul");
    this.view = node.querySelector(".live-view");
    this.stays = [];
    this.stream = null;
    node.hidden = !navigator.mediaDevices?.getUserMedia;
    this.button.addEventListener("click", () => (this.stream ? this.stop() : this.start()));
  }

  async start() {
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 640 } } });
    } catch (error) {
      this.said.textContent = error.name === "NotAllowedError" ? "The camera was not allowed." : "No camera is available.";
      return;
    }
    this.video.srcObject = this.stream;
    await this.video.play();
    this.view.hidden = false;
    this.button.textContent = "Stop watching";
    this.stays = [];
    this.begun = performance.now();
    this.asked = 0;
    this.watch(this.stream);
  }

  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = this.video.srcObject = null;
    this.button.textContent = "Watch with the camera";
    this.view.hidden = true;
  }

  async watch(stream) {
    let pause = 0;
    while (this.stream === stream) {
      if (pause) await new Promise((resolve) => setTimeout(resolve, pause));
      if (this.stream !== stream) return;
      try {
        const body = new FormData(), now = performance.now();
        body.append("picture", await this.frame(), "camera.jpg");
        body.append("crops", "true");
        const answer = await ask("POST", "/identify", body);
        pause = 100;
        if (this.stream !== stream) return;
        this.asked += 1;
        this.take(answer.faces, now);
        this.said.textContent = `${this.asked} frames looked at`;
      } catch (error) {
        pause = Math.min(30_000, Math.max(1000, 2 * pause)); // asked again, ever more seldom
        this.said.textContent = `${error.message} Trying again in ${Math.round(pause / 1000)} s.`;
      }
    }
  }

  async frame() {
    const canvas = el("canvas", { width: this.video.videoWidth, height: this.video.videoHeight });
    canvas.getContext("2d").drawImage(this.video, 0, 0);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
  }

  take(faces, now) {
    const active = new Set(this.stays.filter((stay) => now - stay.end <= GAP));
    for (const found of faces) {
      const near = [...active].map((stay) => [shared(stay.box, found.face.box), stay]).sort((a, b) => b[0] - a[0])[0];
      if (near && near[0] >= OVERLAP) {
        active.delete(near[1]);
        near[1].add(found, now);
      } else this.stays.unshift(new Stay(found, now));
    }
    this.stays.length = Math.min(this.stays.length, 50);
    this.draw(now);
  }

  draw(now) {
    const pen = this.boxes.getContext("2d");
    this.boxes.width = this.video.videoWidth;
    this.boxes.height = this.video.videoHeight;
    pen.font = "bold 18px sans-serif";
    for (const stay of this.stays.filter((one) => one.end === now)) {
      const [x1, y1, x2, y2] = stay.box;
      pen.lineWidth = 3;
      pen.strokeStyle = "#ffc04d";
      pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
      pen.fillStyle = "#000000";
      pen.fillRect(x1, y1 - 24, pen.measureText(stay.name).width + 8, 24);
      pen.fillStyle = "#ffffff";
      pen.fillText(stay.name, x1 + 4, y1 - 6);
    }
    const seconds = (time) => `${((time - this.begun) / 1000).toFixed(1)} s`;
    this.list.replaceChildren(...this.stays.map((stay) => el("li", {},
      el("img", { src: stay.best.crop, width: 48, height: 56, alt: `best view of ${stay.name}` }),
      ` ${stay.name}, ${seconds(stay.start)} to ${seconds(stay.end)}`)));
  }
}
