// A browser before one agent of a live cluster, and that agent's API to hold pages against. `cargo xtask web --test` sets it up.
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { chromium } from "playwright-core";

function given(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run cargo xtask web --test`);
  return value;
}

export const URL = given("EVENKEEL_URL");
export const OPERATOR = given("EVENKEEL_OPERATOR");
export const VIEWER = given("EVENKEEL_VIEWER");
export const AGENT_3 = Number(process.env.EVENKEEL_AGENT_3);
const SCREENSHOTS = given("EVENKEEL_SCREENSHOTS");
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const CHROMIUM = ["/usr/bin/chromium-headless-shell", "/usr/bin/chromium"].find((path) => existsSync(path));
export const DESK = { width: 1280, height: 900 };
export const PHONE = { width: 390, height: 844 };

mkdirSync(SCREENSHOTS, { recursive: true });

export async function launch() {
  if (!CHROMIUM) throw new Error("there is no chromium: cargo xtask web --test installs it");
  return chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"] });
}

/** A tab in which whatever goes wrong is kept: what a page must never do. */
export async function tab(browser, { scheme = "light", viewport = DESK } = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, colorScheme: scheme, viewport });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  page.wrongs = [];
  page.on("pageerror", (error) => page.wrongs.push(String(error)));
  page.on("console", (line) => {
    // The browser itself says of each refused request that it was refused.
    const refused = line.text().startsWith("Failed to load resource");
    if (line.type() === "error" && !refused) page.wrongs.push(line.text());
  });
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(URL) && !url.startsWith("data:")) page.wrongs.push(`a request to ${url}`);
  });
  return page;
}

export async function logIn(page, token = OPERATOR, at = "") {
  await page.goto(`${URL}/${at}`);
  await page.getByLabel("Token of this agent").fill(token);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("navigation").waitFor();
}

/** Another page of the dashboard, without loading it anew: that would forget the token. */
export async function open(page, hash) {
  await page.evaluate((to) => (location.hash = to), hash);
}

/** What the API answers, asked beside the browser. */
export async function asked(page, path, token = OPERATOR) {
  const answer = await page.context().request.get(`${URL}${path}`, { headers: { authorization: `Bearer ${token}` } });
  return { status: answer.status(), body: await answer.json() };
}

export async function shot(page, name, fullPage = true) {
  await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), fullPage });
}

/** Serious and critical faults by axe-core, one line each. */
export async function faults(page) {
  // Put in by the debugger, which the page's own policy does not concern.
  await page.evaluate(AXE);
  const found = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  return found.violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.target} ${node.failureSummary}`).join("; ")}`);
}

/** Waits until `found` gives something. */
export async function until(what, found, withinMs = 30_000) {
  const end = Date.now() + withinMs;
  for (;;) {
    const value = await found();
    if (value) return value;
    if (Date.now() > end) throw new Error(`${what}: not within ${withinMs} ms`);
    await new Promise((done) => setTimeout(done, 100));
  }
}
