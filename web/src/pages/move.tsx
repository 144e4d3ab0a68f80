// The story of one move, from the request to the pay-back, as source and target noted it.
import { useState } from "preact/hooks";
import { named, post } from "../api/client";
import type { Event, MoveView, Step } from "../api/types";
import { allMoves, findHost, may, via } from "../cluster";
import { useAsk } from "../ask";
import { me, overview, refresh } from "../live";
import { Dialog } from "../parts/dialog";
import { HostLink, ProblemNote, Waiting } from "../parts/notes";
import { link, route } from "../route";
import { use } from "../signal";
import { bytes, clock, milliseconds, percent, plain } from "../words";
import { paid, Standing } from "./moves";

/** The sign of each step, and what it is called: at the source, where `peer` is the target, and at the target, which is `here`. */
type Name = (peer: string, here: string) => string;
const STEPS: Partial<Record<Step, [string, Name, Name?]>> = {
  monitoring: ["◉", () => "What the monitor saw"],
  "vm-policy": ["?", () => "This VM should leave"],
  request: ["⇉", () => "Who can take it?", (_, here) => `${here} is asked`],
  acceptance: ["✓", (peer) => `${peer} says yes`, (_, here) => `${here} keeps room for it`],
  refusal: ["✕", (peer) => `${peer} says no`, (_, here) => `${here} says no`],
  choice: ["★", (peer) => `${peer} is chosen`],
  confirmation: ["→", (peer) => `${peer} is told`, (_, here) => `${here} hears that it was chosen`],
  release: ["↩", (peer) => `${peer} is told that it was not chosen`, (_, here) => `${here} gives the room free`],
  "usage-history": ["≡", (peer) => `Its usage history goes to ${peer}`, (_, here) => `${here} reads its usage history`],
  readiness: ["✓", (peer) => `${peer} has said that it is ready`, (_, here) => `${here} is ready`],
  copy: ["▤", () => "Its memory is copied"],
  stall: ["…", () => "The copy does not follow the guest: a longer pause is allowed"],
  "switch-over": ["‖", () => "It stands still for the last round"],
  "hand-over": ["⇄", (peer) => `Ownership passes to ${peer}`, (_, here) => `${here} owns it`],
  running: ["▶", (peer) => `It was seen running at ${peer}`, (_, here) => `It runs at ${here}`],
  done: ["✓", () => "Done"],
  "pay-back": ["=", () => "What it has brought"],
  abandoned: ["✕", () => "Not made: the VM stays"],
  undo: ["↶", () => "Undone"],
  alarm: ["!", () => "A person is needed"],
};

export function MovePage({ id }: { id: string }) {
  const who = use(me);
  const seen = use(overview);
  const { query } = use(route);
  const known = allMoves(seen).find((one) => one.id === id) ?? null;
  const host = known?.from ?? query.get("host") ?? who?.host ?? "";
  const open = known === null || !known.ended;
  const every = open ? 1000 : 5000;
  const move = useAsk<MoveView>(`/v1/moves/${named(id)}`, via(who, host), every);
  const path = `/v1/events?limit=500&move=${named(id)}`;
  const here = useAsk<Event[]>(path, via(who, host), every);
  const target = move.data?.to ?? null;
  const reached = target !== null && findHost(seen, target) !== null;
  const there = useAsk<Event[]>(reached ? path : null, target ? via(who, target) : null, every);
  const view = move.data ?? known;
  if (!view) return <Waiting problem={move.problem} />;
  const story = [...(here.data ?? []), ...(there.data ?? [])].sort((a, b) => a.time.localeCompare(b.time));
  return (
    <>
      <h1>
        Move of <a href={link.vm(view.vm_id)}>{view.vm}</a>: <HostLink name={view.from} /> →{" "}
        {view.to ? <HostLink name={view.to} /> : "not chosen yet"}
      </h1>
      <Head move={view} host={host} />
      {move.problem && <ProblemNote problem={move.problem} />}
      <h2>What happened</h2>
      <ol class="story">
        {story.map((event) => (
          <Told key={`${event.host} ${event.seq}`} event={event} move={view} />
        ))}
      </ol>
      {here.problem && <ProblemNote problem={here.problem} />}
      {there.problem && <ProblemNote problem={there.problem} />}
    </>
  );
}

function Head({ move, host }: { move: MoveView; host: string }) {
  const who = use(me);
  const [asking, setAsking] = useState(false);
  return (
    <>
      <p class="verdict">
        <Standing move={move} /> {move.ended ? (move.outcome ?? "") : ""}
      </p>
      <dl class="facts">
        <Fact name="Why" value={move.reason} />
        {move.overridden.map((one) => (
          <Fact key={one} name="Overridden by hand" value={one} />
        ))}
        <Fact name="Answers" value={`${move.acceptances} yes, ${move.refusals} no`} />
        {move.copied_bytes > 0 && (
          <Fact name="Copied" value={`${bytes(move.copied_bytes)} of ${bytes(move.total_bytes)}, in ${move.rounds} rounds`} />
        )}
        {move.encrypted !== null && <Fact name="The copy is" value={move.encrypted ? "encrypted" : "in the clear"} />}
        {move.total_ms !== null && <Fact name="Took" value={milliseconds(move.total_ms)} />}
        {move.downtime_ms !== null && <Fact name="Stood still" value={milliseconds(move.downtime_ms)} />}
        {move.promised_percent !== null && <Fact name="Did it pay" value={paid(move)} />}
      </dl>
      {!move.ended && may(who, "operator", host) && (
        <button type="button" onClick={() => setAsking(true)}>
          Cancel this move…
        </button>
      )}
      {asking && (
        <Dialog
          title={`Cancel the move of ${move.vm}?`}
          does="Cancel the move"
          close={() => setAsking(false)}
          act={async () => {
            await post(`/v1/moves/${named(move.id)}/cancel`);
            await refresh();
          }}
        >
          <p>
            The VM goes on at {move.from}. If its copy is complete already it may arrive at {move.to ?? "its target"} all the same:
            this page tells which.
          </p>
        </Dialog>
      )}
    </>
  );
}

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

function Told({ event, move }: { event: Event; move: MoveView }) {
  const [sign, atSource, atTarget] = STEPS[event.step] ?? ["·", () => plain(event.step)];
  const after = Date.parse(event.time) - Date.parse(move.began);
  const peer = event.peer ?? "the others";
  const title = event.host === move.from ? atSource(peer, event.host) : (atTarget ?? atSource)(peer, event.host);
  const won = event.step === "acceptance" && event.host === move.from && event.peer === move.to;
  return (
    <li class={`step ${event.step}${won ? " won" : ""}`}>
      <span class="sign" aria-hidden="true">
        {sign}
      </span>
      <div>
        <strong>{title}</strong> {won && <span class="badge good">chosen</span>}{" "}
        {event.cost_percent !== null && <span class="badge">{percent(event.cost_percent)} of pressure</span>}
        <div>{event.reason}</div>
        <div class="quiet">
          {clock(event.time)}
          {Number.isFinite(after) && after >= 0 ? ` · ${milliseconds(after)} after it began` : ""} · noted by {event.host}
        </div>
      </div>
    </li>
  );
}
