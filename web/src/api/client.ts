// Asks the agent. The token is kept in memory alone: it is gone when the page is closed or loaded anew.
import type { Problem } from "./types";

let token: string | null = null;

/** From now on this token is shown; none: nothing is, as over a forwarded unix socket. */
export function showToken(shown: string | null): void {
  token = shown;
}

/** What the agent refused, or why there is no answer. */
export class Refused extends Error {
  constructor(readonly problem: Problem) {
    super(problem.title);
  }
}

/** For the fields of `Problem` that the agent did not get to say. */
function unreachable(why: string): Refused {
  const hint = "Look whether the agent of this host runs, and whether its port can be reached from here.";
  return new Refused({ status: 0, code: "no-answer", title: `The agent does not answer: ${why}`, hint });
}

function headers(more: Record<string, string>): Record<string, string> {
  return token === null ? more : { ...more, authorization: `Bearer ${token}` };
}

async function refusal(answer: Response): Promise<Refused> {
  try {
    return new Refused((await answer.json()) as Problem);
  } catch {
    return unreachable(`status ${answer.status}`);
  }
}

async function ask<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const init: RequestInit = { method, cache: "no-store", headers: headers({ accept: "application/json" }) };
  if (signal) init.signal = signal;
  if (body !== undefined) {
    init.headers = headers({ accept: "application/json", "content-type": "application/json" });
    init.body = JSON.stringify(body);
  }
  let answer: Response;
  try {
    answer = await fetch(path, init);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw unreachable(error instanceof Error ? error.message : String(error));
  }
  if (!answer.ok) throw await refusal(answer);
  return (await answer.json()) as T;
}

/** Reads; `host` absent: of the host whose agent this is, else of that host, through it. */
export function get<T>(path: string, host?: string | null, signal?: AbortSignal): Promise<T> {
  return ask("GET", host ? `/v1/at/${encodeURIComponent(host)}${path}` : path, undefined, signal);
}

/** Has something done, at the host whose agent this is. */
export function post<T>(path: string, body?: unknown): Promise<T> {
  return ask("POST", path, body);
}

/** The parts of a path that are names. */
export function named(name: string): string {
  return encodeURIComponent(name);
}

/** One stream of events: calls `on` with the data of each, until it ends. Gives the id of the last. */
export async function stream(
  path: string,
  last: string | null,
  signal: AbortSignal,
  on: (data: string) => void,
): Promise<string | null> {
  const more: Record<string, string> = { accept: "text/event-stream" };
  if (last !== null) more["last-event-id"] = last;
  const answer = await fetch(path, { headers: headers(more), cache: "no-store", signal });
  if (!answer.ok || !answer.body) throw await refusal(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let id = last;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return id;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop() ?? "";
    for (const block of blocks) {
      const data: string[] = [];
      // Said where the agent's log was lost: what follows is of a new one.
      if (block.startsWith("event: reset")) continue;
      for (const line of block.split("\n")) {
        if (line.startsWith("id:")) id = line.slice(3).trim();
        if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
      }
      if (data.length > 0) on(data.join("\n"));
    }
  }
}
