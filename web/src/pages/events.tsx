// What was decided and seen, newest first: this agent's as they come, the others' when their reports say that there are more.
import { useEffect, useRef, useState } from "preact/hooks";
import { get, Refused } from "../api/client";
import type { Event, Overview, Why } from "../api/types";
import { reachable, via } from "../cluster";
import { EVENTS_KEPT, events, me, overview } from "../live";
import { HostLink } from "../parts/notes";
import { link } from "../route";
import { use } from "../signal";
import { clock, plain } from "../words";

/** Of another host at once. */
const ASKED = 100;
/** Rows that are drawn; more when asked for. */
const DRAWN = 100;
const SERIOUS = ["alarm", "abandoned", "undo", "vm-down", "bad-input"];

export function EventsPage() {
  const own = use(events);
  const others = useOthers(use(overview), use(me)?.host ?? "");
  const [text, setText] = useState("");
  const [serious, setSerious] = useState(false);
  const [drawn, setDrawn] = useState(DRAWN);
  const [at, setAt] = useState("");
  const wanted = text.trim().toLowerCase();
  const all = [...own, ...others]
    .filter((event) => !serious || SERIOUS.includes(event.step))
    .filter((event) => wanted === "" || words(event).includes(wanted))
    .sort((a, b) => b.time.localeCompare(a.time));
  return (
    <>
      <h1>Events</h1>
      <div class="row">
        <label class="filter">
          Find <input type="search" value={text} placeholder="VM, host, step, word" onInput={(event) => setText(event.currentTarget.value)} />
        </label>
        <label>
          <input type="checkbox" checked={serious} onChange={(event) => setSerious(event.currentTarget.checked)} /> only what went wrong
        </label>
        <label>
          What was at <input type="time" value={at} onInput={(event) => setAt(event.currentTarget.value)} />
        </label>
      </div>
      {at !== "" && <Then key={at} at={at} />}
      {at !== "" && <h2>The newest</h2>}
      {all.length === 0 && <p>{own.length === 0 ? "Nothing was noted yet." : "Nothing that was noted is like that."}</p>}
      <ol class="events">
        {all.slice(0, drawn).map((event) => (
          <Row key={`${event.host} ${event.seq}`} event={event} />
        ))}
      </ol>
      {all.length > drawn && (
        <button type="button" onClick={() => setDrawn(drawn + DRAWN)}>
          Show older ones
        </button>
      )}
    </>
  );
}

interface Told {
  host: string;
  why: Why | null;
  problem: string | null;
}

/** Why nothing was moved at that time of day, the last one that is over, host by host, and what was noted around it. */
function Then({ at }: { at: string }) {
  const seen = use(overview);
  const who = use(me);
  const [told, setTold] = useState<Told[]>([]);
  const time = lastTime(at);
  useEffect(() => {
    const ending = new AbortController();
    const ask = async (host: string): Promise<Told> => {
      try {
        const why = await get<Why>(`/v1/why?at=${time.toISOString()}`, via(who, host), ending.signal);
        return { host, why, problem: null };
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        return { host, why: null, problem: error.problem.title };
      }
    };
    const hosts = (seen?.hosts ?? []).filter(reachable).map((host) => ask(host.seen.name));
    Promise.all(hosts)
      .then(setTold)
      .catch((error: unknown) => {
        if (!ending.signal.aborted) throw error;
      });
    return () => ending.abort();
    // Asked once: what is over stays as it was.
  }, [at, seen === null]);
  const near = told.flatMap(({ why }) => why?.events ?? []).sort((a, b) => b.time.localeCompare(a.time));
  return (
    <section aria-label={`What was at ${at}`}>
      <h2>{clock(time.toISOString())}: what each host did, or why nothing</h2>
      <ul class="then" aria-live="polite">
        {told.map(({ host, why, problem }) => (
          <li key={host}>
            <HostLink name={host} />: <strong>{why?.verdict ?? problem}</strong>
            {why?.because.map((line) => (
              <div class="quiet" key={line}>
                {line}
              </div>
            ))}
          </li>
        ))}
      </ul>
      {near.length > 0 && <h2>Noted within ten minutes of it</h2>}
      <ol class="events">
        {near.map((event) => (
          <Row key={`${event.host} ${event.seq}`} event={event} />
        ))}
      </ol>
    </section>
  );
}

/** "03:10" by this person's clock: today's if that is over, else yesterday's. */
function lastTime(at: string): Date {
  const [hours = 0, minutes = 0] = at.split(":").map(Number);
  const time = new Date();
  time.setHours(hours, minutes, 0, 0);
  if (time.getTime() > Date.now()) time.setDate(time.getDate() - 1);
  return time;
}

function words(event: Event): string {
  return [event.host, event.vm, event.peer, event.step, event.reason].join(" ").toLowerCase();
}

function Row({ event }: { event: Event }) {
  const bad = SERIOUS.includes(event.step);
  return (
    <li class={bad ? "event bad" : "event"}>
      <time dateTime={event.time}>{clock(event.time)}</time>
      <span class="badge">
        {bad ? "! " : ""}
        {plain(event.step)}
      </span>
      <span>
        <HostLink name={event.host} />
        {event.vm && (
          <>
            {" "}
            <a href={link.vm(event.vm)}>{event.vm}</a>
          </>
        )}
        {event.peer && event.peer !== event.host ? ` ↔ ${event.peer}` : ""}: {event.reason}
        {event.move_id && (
          <>
            {" "}
            <a href={link.move(event.move_id, event.host)}>move</a>
          </>
        )}
      </span>
    </li>
  );
}

/** The newest of the other hosts: asked of those that have noted something since. */
function useOthers(seen: Overview | null, own: string): Event[] {
  const [kept, setKept] = useState<Event[]>([]);
  const last = useRef(new Map<string, number>());
  useEffect(() => {
    for (const host of seen?.hosts ?? []) {
      const { name } = host.seen;
      const newest = host.report?.newest_event ?? 0;
      const had = last.current.get(name);
      if (name === own || host.problem !== null || newest === 0 || had === newest) continue;
      last.current.set(name, newest);
      const since = had === undefined ? `limit=${ASKED}` : `limit=${ASKED}&after=${had}`;
      get<Event[]>(`/v1/events?${since}`, name)
        .then((fresh) => {
          setKept((before) => [...fresh.reverse(), ...before].slice(0, 4 * EVENTS_KEPT));
        })
        .catch((error: unknown) => {
          // It is asked again with the next report.
          const lost = error instanceof Refused && error.problem.code === "events-reset";
          if (had === undefined || lost) last.current.delete(name);
          else last.current.set(name, had);
          if (!(error instanceof Refused)) throw error;
        });
    }
  }, [seen]);
  return kept;
}
