// Small things that many pages show.
import type { OverviewHost, Problem } from "../api/types";
import { link } from "../route";
import { age, percent } from "../words";
import { reachable } from "../cluster";

export function ProblemNote({ problem }: { problem: Problem }) {
  return (
    <p class="note bad" role="alert">
      <strong>{problem.title}</strong>
      <br />
      {problem.hint}
    </p>
  );
}

/** Something is awaited. */
export function Waiting({ problem }: { problem: Problem | null }) {
  return problem ? <ProblemNote problem={problem} /> : <p class="quiet">Asking…</p>;
}

/** A name that leads to a host's page. */
export function HostLink({ name }: { name: string }) {
  return <a href={link.host(name)}>{name}</a>;
}

/** A bar with its figure in words; past `high` it is marked by more than its colour. */
export function Meter({ name, value, high }: { name: string; value: number; high: number }) {
  const over = value >= high;
  const shown = Math.max(0, Math.min(100, value));
  return (
    <div class={over ? "meter over" : "meter"}>
      <span>{name}</span>
      <svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
        <rect class="all" width="100" height="8" />
        <rect class="part" width={shown} height="8" />
      </svg>
      <span class="figure">
        {over ? "▲ " : ""}
        {percent(value)}
      </span>
    </div>
  );
}

/** Copied so far. */
export function Progress({ part, name }: { part: number | null; name: string }) {
  return part === null ? <progress aria-label={name} /> : <progress aria-label={name} value={part} max={1} />;
}

/** What is to be known of a host before its figures are believed. */
export function HostState({ host }: { host: OverviewHost }) {
  if (reachable(host)) {
    return host.seen.hot ? <span class="badge hot">▲ hot</span> : <span class="badge">not hot</span>;
  }
  const old = host.report_age_seconds ?? host.seen.age_seconds;
  const since = old === null ? "nothing is known of it" : `what is shown is ${age(old)} old`;
  const why = host.problem ?? "";
  return (
    <span class="badge gone" title={why}>
      ✕ {host.seen.state === "alive" ? "does not answer" : host.seen.state}: {since}
    </span>
  );
}
