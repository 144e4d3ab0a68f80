// Three in the morning: what a person who was woken up asks, after a night in the simulator, in at most three steps each; held against what
// the simulation knows. `cargo xtask night` sets it up.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { VIEWER, faults, launch, logIn, shot, tab } from "./bed.mjs";

const TRUTH = JSON.parse(process.env.EVENKEEL_TRUTH);
const STEPS_MAX = 3;

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser?.close());

/** Figures change between two looks. */
const words = (text) => text.replace(/[\d.,\s]/g, "");
/** As the pages round: "37.42 %" is "37 %". */
const rounded = (percent) => {
  const figure = Number.parseFloat(percent);
  return `${figure >= 10 ? figure.toFixed(0) : figure.toFixed(1)} %`;
};

/** A page that was just opened, and a way to take a step in it: only so many. */
async function asks() {
  const page = await tab(browser);
  await logIn(page, VIEWER);
  await page.locator(".tile").first().waitFor();
  let steps = 0;
  const step = async (does) => {
    steps += 1;
    assert.ok(steps <= STEPS_MAX, `${steps} steps`);
    await does();
  };
  const go = (name) => step(() => page.getByRole("navigation").getByRole("link", { name }).click());
  return { page, step, go };
}

async function ended(page) {
  assert.deepEqual(await faults(page), []);
  assert.deepEqual(page.wrongs, []);
  await page.context().close();
}

for (const { id, vm, from, to, costs } of TRUTH.moves) {
  test(`what moved and why there: ${vm} from ${from} to ${to}`, async () => {
    const { page, step, go } = await asks();
    await go("Moves");
    const row = page.locator("tbody tr").filter({ has: page.locator(`a[href*="${id}"]`) });
    const cell = await row.locator("td").nth(1).innerText();
    assert.equal(cell, `${from} → ${to}`);
    await step(() => row.getByRole("link", { name: vm, exact: true }).click());
    const chosen = page.locator(".step.acceptance.won");
    await chosen.getByText(`it would cost ${costs[to]} there`).waitFor();
    const told = await page.locator(".story").innerText();
    for (const [host, cost] of Object.entries(costs)) {
      assert.ok(told.includes(`${host} says yes`) && told.includes(`it would cost ${cost} there`), `${host} at ${cost}: ${told}`);
    }
    const why = Object.keys(costs).length > 1 ? /lowest cost of/ : /the only acceptor/;
    assert.match(await page.locator(".step.choice").innerText(), why);
    await shot(page, `night-move-${vm}`);
    await ended(page);
  });
}

test("why nothing moved at 03:10", async () => {
  const { page, step, go } = await asks();
  await go("Events");
  await step(() => page.getByLabel("What was at").fill("03:10"));
  const told = page.locator(".then li");
  await told.nth(Object.keys(TRUTH.doing).length - 1).waitFor();
  const hosts = new Map();
  for (const one of await told.all()) {
    hosts.set(await one.getByRole("link").first().innerText(), await one.locator("strong").innerText());
  }
  for (const [host, doing] of Object.entries(TRUTH.doing)) assert.equal(words(hosts.get(host) ?? ""), words(doing), host);
  await shot(page, "night-quiet");
  await ended(page);
});

test(`what would have to change for ${TRUTH.kept.vm} to go to ${TRUTH.kept.to}`, async () => {
  const { vm, to, host, obstacles } = TRUTH.kept;
  const { page, step } = await asks();
  await step(() => page.locator(`[data-host="${host}"] .tile[aria-label^="${vm}:"]`).click());
  await step(() => page.getByLabel("What would have to change for it to go to").selectOption(to));
  const answer = page.locator('section[aria-labelledby="why-not"]');
  await answer.getByText(`${vm} to ${to}:`).waitFor();
  const told = words(await answer.innerText());
  for (const [what, change] of obstacles) assert.ok(told.includes(words(what)) && told.includes(words(change)), `${what}; ${change}: ${told}`);
  // What is expected stands ahead of what was, as a band from the mean to the peak.
  await page.getByRole("img", { name: /^CPU.*expected, next hour .*expected peak / }).waitFor();
  await shot(page, "night-why-not");
  await ended(page);
});

test("did the moves pay", async () => {
  const { page, go } = await asks();
  await go("Moves");
  await page.locator("tbody tr").first().waitFor();
  for (const { id, paid, promised, measured } of TRUTH.moves) {
    const row = page.locator("tbody tr").filter({ has: page.locator(`a[href*="${id}"]`) });
    const word = paid ? "✓ yes" : "✕ no";
    assert.equal(await row.locator("td").last().innerText(), `${word}: promised ${rounded(promised)}, measured ${rounded(measured)}`);
  }
  await shot(page, "night-moves");
  await ended(page);
});
