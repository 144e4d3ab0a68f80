// What the dashboard of a large cluster costs: `cargo xtask bench dashboard` sets the cluster up and reads what this prints, a line of JSON a
// phase. One viewer is a page in the browser; the others ask what it asks, over TLS, each from an address of its own.
import { request } from "node:https";
import { createInterface } from "node:readline";
import { URL as AT, VIEWER, launch, logIn, shot, tab } from "./bed.mjs";

const VIEWERS = Number(process.env.EVENKEEL_VIEWERS);
const SECONDS = Number(process.env.EVENKEEL_SECONDS);
const PAINTS = 5;
/** As `live.ts` has them. */
const EVERY_MS = 3000;
const TOGETHER_MS = 100;
/** Stands in each event once. */
const MARK = "\ndata:";

const { hostname, port } = new URL(AT);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const orders = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
/** Says that a phase is ready, and waits until it is to begin. */
const agreed = async (phase) => {
  say({ phase });
  await orders.next();
};

function asked(path, from, accept, on) {
  return new Promise((done, failed) => {
    const headers = { authorization: `Bearer ${VIEWER}`, accept };
    const asking = request({ hostname, port, path, headers, localAddress: from, rejectUnauthorized: false, agent: false }, (answer) => {
      answer.setEncoding("utf8");
      let bytes = 0;
      answer.on("data", (text) => {
        bytes += text.length;
        on?.(text);
      });
      answer.on("error", failed);
      answer.on("end", () => (answer.statusCode === 200 ? done(bytes) : failed(new Error(`${path}: status ${answer.statusCode}`))));
    });
    asking.on("error", failed);
    asking.end();
  });
}

/** Asks as the page does: the stream of events, and the overview now and then and after events. */
class Viewer {
  events = 0;
  overviews = 0;
  bytes = 0;
  #asking = false;
  #coming = false;
  #stopped = false;

  constructor(number) {
    this.from = `127.0.0.${number + 2}`;
    void this.#poll();
    void this.#follow();
  }

  stop() {
    this.#stopped = true;
  }

  async #refresh() {
    if (this.#asking || this.#stopped) return;
    this.#asking = true;
    try {
      this.bytes += await asked("/v1/overview", this.from, "application/json");
      this.overviews += 1;
    } finally {
      this.#asking = false;
    }
  }

  async #poll() {
    while (!this.#stopped) {
      await this.#refresh();
      await pause(EVERY_MS);
    }
  }

  async #follow() {
    while (!this.#stopped) {
      // A stream ends after a while, and is begun anew.
      let tail = "";
      await asked("/v1/events?limit=1", this.from, "text/event-stream", (text) => {
        // What is cut in two is counted when its second half is there.
        const whole = tail + text;
        tail = whole.slice(1 - MARK.length);
        this.events += whole.split(MARK).length - 1;
        if (this.#coming) return;
        this.#coming = true;
        setTimeout(() => {
          this.#coming = false;
          void this.#refresh();
        }, TOGETHER_MS);
      });
    }
  }
}

const median = (all) => all.toSorted((a, b) => a - b)[Math.floor(all.length / 2)];
const tiles = Number(process.env.EVENKEEL_TILES);
const browser = await launch();

// First paint: of the page that asks for the token, then of the whole cluster once that is given.
const [paints, clusters] = [[], []];
for (let n = 0; n < PAINTS; n += 1) {
  const page = await tab(browser);
  await page.goto(AT);
  await page.getByLabel("Token of this agent").fill(VIEWER);
  const painted = await page.evaluate(
    (tiles) =>
      new Promise((done) => {
        const began = performance.now();
        new MutationObserver((_, observer) => {
          if (document.querySelectorAll(".tile").length < tiles) return;
          observer.disconnect();
          // Two frames on it has been painted.
          requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began)));
        }).observe(document.body, { childList: true, subtree: true });
        document.querySelector("form button").click();
      }),
    tiles,
  );
  clusters.push(painted);
  paints.push(await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime));
  if (n === 0) await shot(page, "bench-cluster", false);
  await page.context().close();
}
say({ first_paint_ms: median(paints), cluster_ms: median(clusters) });

const page = await tab(browser);
await logIn(page, VIEWER);
await page.locator(".tile").nth(tiles - 1).waitFor({ state: "attached" });
const viewers = Array.from({ length: VIEWERS - 1 }, (_, n) => new Viewer(n));
// All have their first answers before anything is counted.
while (viewers.some((viewer) => viewer.overviews === 0)) await pause(50);
await pause(1000);

const counted = () => ({ events: viewers.map((one) => one.events), overviews: viewers.reduce((sum, one) => sum + one.overviews, 0) });
await agreed("watching");
let before = counted();
let began = performance.now();
await pause(SECONDS * 1000);
let after = counted();
say({
  seconds: (performance.now() - began) / 1000,
  events: after.events.map((all, n) => all - before.events[n]),
  overviews: after.overviews - before.overviews,
  overview_bytes: Math.round(viewers.reduce((sum, one) => sum + one.bytes, 0) / viewers.reduce((sum, one) => sum + one.overviews, 0)),
});

// How fast events are pushed: so many at once, until each viewer has the last.
const burst = Number(process.env.EVENKEEL_BURST);
await agreed("burst");
before = counted();
began = performance.now();
const end = began + 60_000;
while (counted().events.some((all, n) => all - before.events[n] < burst) && performance.now() < end) await pause(5);
after = counted();
say({ seconds: (performance.now() - began) / 1000, events: after.events.map((all, n) => all - before.events[n]) });
viewers.forEach((viewer) => viewer.stop());
await browser.close();
process.exit(page.wrongs.length === 0 ? 0 : 1);
