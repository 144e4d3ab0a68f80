// What all pages look at, kept fresh: who asks, the overview of the cluster, and this agent's events.
//
//   events ──▶ an event came ─┐
//   clock  ──▶ every 3 s ─────┴─▶ overview, asked once at a time, not while the page is hidden
import { signal } from "./signal";
import { get, Refused, showToken, stream } from "./api/client";
import type { Event, Me, Overview, Problem } from "./api/types";

/** How often the overview is asked for where no event says that something has changed. */
const EVERY_MS = 3000;
/** Events that are kept in the page. */
export const EVENTS_KEPT = 500;
const AGAIN_MS = [500, 1000, 2000, 5000];

export const me = signal<Me | null>(null);
export const overview = signal<Overview | null>(null);
/** Newest first; of the host whose agent this is. */
export const events = signal<Event[]>([]);
/** Why what is shown grows old; none: it is fresh. */
export const trouble = signal<Problem | null>(null);

let running: AbortController | null = null;
let asking = false;
let wanted = false;

/** Shows a token, or none, and begins if that is let in. */
export async function logIn(token: string | null): Promise<Me> {
  showToken(token);
  const who = await get<Me>("/v1/me");
  running?.abort();
  running = new AbortController();
  me.value = who;
  void refresh();
  void poll(running.signal);
  void follow(running.signal);
  return who;
}

/** Forgets the token and all that was seen with it. */
export function logOut(): void {
  running?.abort();
  running = null;
  showToken(null);
  me.value = null;
  overview.value = null;
  events.value = [];
  trouble.value = null;
}

/** Asks for the overview now; while it is asked for already, once more after that. */
export async function refresh(): Promise<void> {
  if (asking) {
    wanted = true;
    return;
  }
  asking = true;
  try {
    overview.value = await get<Overview>("/v1/overview");
    trouble.value = null;
  } catch (error) {
    failed(error);
  }
  asking = false;
  if (wanted && me.value) {
    wanted = false;
    await pause(200);
    await refresh();
  }
}

function failed(error: unknown): void {
  if (!(error instanceof Refused)) throw error;
  // The token's time is over, or it was revoked.
  if (error.problem.status === 401) logOut();
  trouble.value = error.problem;
}

async function poll(signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await pause(EVERY_MS);
    if (!document.hidden && !signal.aborted) await refresh();
  }
}

async function follow(signal: AbortSignal): Promise<void> {
  let last: string | null = null;
  let failures = 0;
  while (!signal.aborted) {
    try {
      last = await stream("/v1/events?limit=200", last, signal, (data) => {
        failures = 0;
        heard(JSON.parse(data) as Event);
      });
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.problem.status === 401) return failed(error);
      failures += 1;
    }
    await pause(AGAIN_MS[Math.min(failures, AGAIN_MS.length - 1)] ?? 5000);
  }
}

let coming: Event[] = [];

/** Many may come at once: they are shown together, in the next frame. */
function heard(event: Event): void {
  if (coming.push(event) > 1) return;
  setTimeout(() => {
    const fresh = coming.reverse();
    coming = [];
    events.value = [...fresh, ...events.value].slice(0, EVENTS_KEPT);
    void refresh();
  }, 100);
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((done) => setTimeout(done, milliseconds));
}
