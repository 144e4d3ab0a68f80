// Each page against what the API says, on three hosts with real VMs: host2 is hot and recommends a move, the agent is host1's.
import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { AGENT_3, DESK, OPERATOR, PHONE, VIEWER, asked, faults, launch, logIn, open, shot, tab, until } from "./bed.mjs";

let browser;
let page;
/** Each page, and what is there once it has its answers. */
const PAGES = {
  cluster: ".tile",
  "host/host2": ".chart canvas",
  "vm/web1": ".chart canvas",
  moves: "td",
  events: ".event",
  plan: ".card li",
  traffic: ".matrix th, main > p",
  policy: ".card li",
};

before(async () => {
  browser = await launch();
  page = await tab(browser);
  await logIn(page);
});
afterEach(() => assert.deepEqual(page.wrongs, [], "no page fails, breaks its policy, or asks anything elsewhere"));
after(() => browser?.close());

const overview = async () => (await asked(page, "/v1/overview")).body;

test("nobody is let in without a token that holds, and is told why", async () => {
  const stranger = await tab(browser);
  await stranger.goto(page.url().split("#")[0]);
  await stranger.getByLabel("Token of this agent").fill("evk_0_0");
  await stranger.getByRole("button", { name: "Log in" }).click();
  await stranger.getByText("this token is not of this agent, or was revoked").waitFor();
  assert.deepEqual(await faults(stranger), []);
  await shot(stranger, "login");
  await stranger.context().close();
});

test("the cluster page shows each host with its VMs, and which is hot without colour alone", async () => {
  await open(page, "/cluster");
  const { hosts } = await overview();
  assert.equal(hosts.length, 3);
  for (const { seen, report } of hosts) {
    const card = page.locator(`[data-host="${seen.name}"]`);
    const tiles = await until(`VMs of ${seen.name}`, async () => {
      const names = await card.locator(".tile").evaluateAll((all) => all.map((one) => one.getAttribute("aria-label").split(":")[0]));
      return names.length === report.vms.length && names;
    });
    assert.deepEqual(tiles.toSorted(), report.vms.map((vm) => vm.name).toSorted());
    assert.equal(await card.getByText("▲ hot").count(), seen.hot ? 1 : 0, seen.name);
  }
  await page.getByRole("region", { name: "In short" }).getByText("▲ host2 is hot.").waitFor();
  await shot(page, "cluster");
});

test("the search finds hosts and VMs", async () => {
  await open(page, "/cluster");
  await page.getByLabel("Find").fill("web3");
  await until("one host is left", async () => (await page.locator(".hosts .card").count()) === 1);
  assert.equal(await page.locator('[data-host="host3"]').count(), 1);
  await page.getByLabel("Find").fill("nobody");
  await page.getByText("No host and no VM has that in its name.").waitFor();
  await page.getByLabel("Find").fill("");
});

test("a VM's page shows its figures and history, zooms, and asks for other spans", async () => {
  const { body: vms } = await asked(page, "/v1/vms");
  const web1 = vms.find((vm) => vm.name === "web1");
  await open(page, `/vm/${web1.id}`);
  await page.getByText("160 MiB").first().waitFor();
  const { body: why } = await asked(page, "/v1/why/web1");
  await page.getByText(why.verdict.split(":")[0]).first().waitFor();
  const chart = page.locator(".chart canvas").first();
  await chart.waitFor();
  await shot(page, "vm");
  const seen = () => chart.evaluate((canvas) => canvas.toDataURL());
  // Nothing comes anew meanwhile, so that only the zoom changes what is drawn.
  await page.route("**/history?*", (route) => route.abort());
  const whole = await seen();
  const over = page.locator(".chart .u-over").first();
  const { x, y, width, height } = await over.boundingBox();
  await page.mouse.move(x + width * 0.7, y + height / 2);
  await page.mouse.down();
  await page.mouse.move(x + width * 0.95, y + height / 2, { steps: 5 });
  await page.mouse.up();
  await until("zoomed", async () => (await seen()) !== whole);
  await page.unroute("**/history?*");
  const wider = page.waitForRequest((request) => request.url().includes("/history?since=21600"));
  await page.getByRole("button", { name: "6 h" }).click();
  await wider;
  await page.getByRole("button", { name: "10 min" }).click();
});

test("a move started by button is seen on its way and done, and the VM at its new host", async () => {
  const watcher = await tab(browser);
  await logIn(watcher, VIEWER, "#/events");
  await open(page, "/vm/web1");
  await page.getByRole("button", { name: "Move…" }).click();
  await page.getByLabel("To", { exact: true }).selectOption("host3");
  await page.getByText("Nothing that is known keeps a person from moving it to host3.").waitFor();
  assert.deepEqual(await faults(page), []);
  await shot(page, "move-dialog");
  await page.getByRole("button", { name: "Move it now" }).click();
  await page.getByRole("heading", { name: /Move of web1: host1 → host3/ }).waitFor();
  const id = decodeURIComponent(page.url().split("/move/")[1].split("?")[0]);
  await page.locator(".step.copy").first().waitFor();
  await until("progress", async () => (await page.locator("progress").first().getAttribute("value")) > 0);
  await shot(page, "move-under-way");
  // What is noted reaches a viewer of this agent by itself.
  await watcher.locator(".event", { hasText: "copy" }).first().waitFor();
  await open(watcher, "/cluster");
  await watcher.locator(".under-way").getByText("web1").waitFor();
  await watcher.locator(".arrows > path").first().waitFor({ state: "attached" });
  await shot(watcher, "cluster-moving");
  await page.getByText("✓ done").first().waitFor({ timeout: 60_000 });
  const { body: view } = await asked(page, `/v1/moves/${id}`);
  assert.equal(view.phase, "done");
  for (const step of ["request", "acceptance", "choice", "confirmation", "usage-history", "readiness", "copy", "hand-over", "running"]) {
    assert.ok((await page.locator(`.step.${step}`).count()) > 0, step);
  }
  assert.equal(await page.locator(".step.acceptance.won").count(), 1);
  assert.deepEqual(await faults(page), []);
  await shot(page, "move-done");
  await watcher.locator('[data-host="host3"]').getByLabel(/^web1: running/).waitFor();
  assert.deepEqual(watcher.wrongs, []);
  await watcher.context().close();
  await open(page, "/moves");
  const row = page.locator("tr", { hasText: "web1" }).first();
  await row.getByText("✓ done").waitFor();
  await shot(page, "moves");
  await open(page, "/vm/web1");
  await page.getByText("Where it was before").waitFor();
  await page.getByText("To move or exclude it, open the dashboard of host3").waitFor();
  assert.equal(await page.getByRole("button", { name: "Move…" }).count(), 0);
});

test("a VM is excluded and included again, each after a question that Escape declines", async () => {
  await open(page, "/vm/db1");
  await page.getByRole("button", { name: "Exclude…" }).click();
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await until("closed", async () => (await page.getByRole("dialog").count()) === 0);
  assert.deepEqual((await asked(page, "/v1/exclusions")).body, []);
  await page.getByRole("button", { name: "Exclude…" }).click();
  await page.getByRole("button", { name: "Exclude it" }).click();
  await page.getByRole("button", { name: "Let it be balanced…" }).waitFor();
  assert.deepEqual((await asked(page, "/v1/exclusions")).body.map((one) => one.vm), ["db1"]);
  await page.getByRole("button", { name: "Let it be balanced…" }).click();
  await page.getByRole("button", { name: "End its exclusion" }).click();
  await page.getByRole("button", { name: "Exclude…" }).waitFor();
  assert.deepEqual((await asked(page, "/v1/exclusions")).body, []);
});

test("what keeps a VM of any host from another is answered in one step", async () => {
  const { body: why } = await asked(page, "/v1/at/host2/v1/why/web2?to=host3");
  await open(page, "/vm/web2");
  await page.getByLabel("What would have to change for it to go to").selectOption("host3");
  await page.getByText(`web2 to host3: ${why.verdict.slice(0, 20)}`).waitFor();
  await shot(page, "vm-why-not");
});

test("what a viewer may not do is not offered", async () => {
  const viewer = await tab(browser);
  await logIn(viewer, VIEWER, "#/vm/db1");
  await viewer.getByRole("heading", { name: "How it did" }).waitFor();
  await viewer.locator(".facts").first().waitFor();
  assert.equal(await viewer.getByRole("button", { name: "Exclude…" }).count(), 0);
  await open(viewer, "/host/host1");
  await viewer.locator(".facts").first().waitFor();
  assert.equal(await viewer.getByRole("button", { name: /Drain/ }).count(), 0);
  await viewer.context().close();
});

test("events of all hosts are listed, newest first, and found by words", async () => {
  await open(page, "/events");
  const { body: there } = await asked(page, "/v1/at/host2/v1/events?limit=1");
  await page.locator(".event", { hasText: there[0].reason }).first().waitFor();
  const times = await page.locator(".event time").evaluateAll((all) => all.map((one) => one.dateTime));
  assert.deepEqual(times, times.toSorted().toReversed());
  await page.getByLabel("Find").fill("acceptance");
  await until("only those", async () => {
    const steps = await page.locator(".event .badge").allTextContents();
    return steps.length > 0 && steps.every((step) => step === "acceptance");
  });
  await shot(page, "events");
  await page.getByLabel("Find").fill("");
});

test("the plan of the hot host is what its agent plans, and looking at it gives no numbers a meaning", async () => {
  const { body: plan } = await asked(page, "/v1/at/host2/v1/plan");
  assert.ok(plan.moves.length > 0);
  await open(page, "/plan");
  const part = page.getByRole("region", { name: "Plan of host2" });
  await part.getByText(`would move ${plan.moves.length}`).waitFor();
  await part.getByRole("link", { name: plan.moves[0].vm }).waitFor();
  assert.equal(await part.getByRole("button", { name: "Apply…" }).count(), 0, "host2's own dashboard does that");
  await shot(page, "plan");
  for (const host of ["", "/v1/at/host2"]) {
    assert.equal((await asked(page, `${host}/v1/plan/shown`)).body.code, "no-plan-shown");
  }
});

test("traffic is shown as a graph and in figures", async () => {
  await open(page, "/traffic");
  await page.getByLabel("At").selectOption("host2");
  await page.locator(".matrix th", { hasText: "web2" }).first().waitFor();
  const { body: flows } = await asked(page, "/v1/at/host2/v1/traffic");
  assert.ok(flows.some((flow) => flow.to === "web2" && flow.from === "outside"));
  assert.ok((await page.locator(".graph path").count()) >= 2);
  await shot(page, "traffic");
});

test("a host and the policy are shown in the agent's words", async () => {
  const { body: why } = await asked(page, "/v1/at/host2/v1/why");
  await open(page, "/policy");
  await page.getByRole("region", { name: "Policy of host2" }).getByText("moves are proposed; a person applies them").waitFor();
  await page.getByText(why.because[0]).first().waitFor();
  await shot(page, "policy");
  await open(page, "/host/host2");
  await page.getByRole("heading", { name: /host2/ }).first().waitFor();
  await page.locator("td", { hasText: "web2" }).waitFor();
  await page.locator(".chart canvas").first().waitFor();
  await shot(page, "host");
});

test("no page has a serious fault for people who see or steer otherwise, in light and dark", async () => {
  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme });
    for (const [at, ready] of Object.entries(PAGES)) {
      await open(page, `/${at}`);
      await page.locator(ready).first().waitFor();
      assert.deepEqual(await faults(page), [], `${at}, ${scheme}`);
      if (scheme === "dark") await shot(page, `dark-${at.replace("/", "-")}`);
    }
  }
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const dark = await ground();
  await page.emulateMedia({ colorScheme: "light" });
  assert.notEqual(await ground(), dark);
});

test("all can be reached by the keyboard alone, from the token on", async () => {
  const keys = await tab(browser);
  await keys.goto(page.url().split("#")[0]);
  await keys.locator("#token:focus").waitFor();
  await keys.keyboard.type(OPERATOR);
  await keys.keyboard.press("Enter");
  await keys.locator(".tile").first().waitFor();
  const names = [];
  const focused = () => keys.evaluate(() => document.activeElement?.getAttribute("aria-label") ?? document.activeElement?.textContent ?? "");
  for (let n = 0; n < 40 && !names.some((name) => name.startsWith("db1:")); n += 1) {
    await keys.keyboard.press("Tab");
    names.push(await focused());
  }
  assert.equal(names[0], "Skip to the content");
  assert.ok(names.includes("Moves") && names.at(-1).startsWith("db1:"), names.join(" | "));
  await keys.keyboard.press("Enter");
  await keys.getByRole("heading", { name: /^db1/ }).waitFor();
  assert.deepEqual(keys.wrongs, []);
  await keys.context().close();
});

test("on a phone no page is wider than the screen", async () => {
  await page.setViewportSize(PHONE);
  for (const [at, ready] of Object.entries(PAGES)) {
    await open(page, `/${at}`);
    await page.locator(ready).first().waitFor();
    const [all, seen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(all <= seen, `${at}: ${all} of ${seen} pixels`);
    await shot(page, `phone-${at.replace("/", "-")}`);
  }
  await page.setViewportSize(DESK);
});

test("fifty hosts with a thousand VMs are there within a second, and what changes is drawn at once", async (t) => {
  const many = await tab(browser);
  const { body: like } = await asked(page, "/v1/overview");
  // The answer alone is made up: a cluster of that size does not fit this machine.
  await many.route("**/v1/overview", (route) => route.fulfill({ json: grown(like) }));
  await logIn(many, VIEWER);
  await many.locator(".tile").nth(999).waitFor({ state: "attached" });
  const figures = await many.evaluate(async () => {
    const paint = performance.getEntriesByName("first-contentful-paint")[0].startTime;
    const asked = performance.getEntriesByType("resource").find((one) => one.name.endsWith("/v1/overview"));
    return { paint, tiles: document.querySelectorAll(".tile").length, overview: asked.duration };
  });
  // From the answer until the browser has drawn it: scripts, style and layout of one update.
  const update = await many.evaluate(
    () =>
      new Promise((done) => {
        new PerformanceObserver((list, observer) => {
          observer.disconnect();
          done(Math.max(...list.getEntries().map((one) => one.duration)));
        }).observe({ type: "longtask" });
        setTimeout(() => done(0), 7000);
      }),
  );
  t.diagnostic(`first paint ${Math.round(figures.paint)} ms; longest task of two updates ${Math.round(update)} ms (0: below 50)`);
  assert.equal(figures.tiles, 1000);
  assert.ok(figures.paint < 1000, `${figures.paint} ms`);
  assert.ok(update < 500, `${update} ms`);
  assert.deepEqual(await faults(many), []);
  await shot(many, "cluster-of-fifty", false);
  assert.deepEqual(many.wrongs, []);
  await many.context().close();
});

/** An overview of 50 hosts with 20 VMs each, after one of a few; the loads of the VMs change with each answer. */
function grown(like) {
  const [local] = like.hosts;
  const [vm] = like.hosts.flatMap((host) => host.report?.vms ?? []);
  const id = (host, n) => `00000000-0000-0000-${String(host).padStart(4, "0")}-${String(n).padStart(12, "0")}`;
  const vms = (host) =>
    Array.from({ length: 20 }, (_, n) => ({
      ...vm,
      name: `vm-${host}-${n}`,
      id: id(host, n + 1),
      memory_mib: 1024 << (n % 5),
      cpu_percent: Math.random() * 120,
    }));
  const hosts = Array.from({ length: 50 }, (_, n) => ({
    ...local,
    seen: { ...local.seen, name: `node${n + 1}`, id: id(n, 0), local: n === 0, hot: n % 17 === 3, vms: 20, cpu_percent: 10 + ((n * 37) % 85) },
    report: { ...local.report, vms: vms(n), moves: [] },
  }));
  return { ...like, host: "node1", hosts };
}

test("a host that falls silent is shown as such, with the age of what is known, and comes back", async () => {
  await open(page, "/cluster");
  process.kill(AGENT_3, "SIGSTOP");
  try {
    const card = page.locator('[data-host="host3"]');
    await card.getByText(/what is shown is \d+ s old/).waitFor();
    assert.ok((await card.locator(".tile").count()) > 0, "its VMs are still there");
    await page.getByRole("region", { name: "In short" }).getByText("✕ host3 does not answer.").waitFor();
    assert.deepEqual(await faults(page), []);
    await shot(page, "cluster-silent");
  } finally {
    process.kill(AGENT_3, "SIGCONT");
  }
  await page.locator('[data-host="host3"]').getByText(/hot/).waitFor({ timeout: 30_000 });
});
