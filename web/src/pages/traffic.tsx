// Who sends how much to whom at one host: as a matrix, and as a graph.
import { useState } from "preact/hooks";
import type { FlowView } from "../api/types";
import { useAsk } from "../ask";
import { reachable, via } from "../cluster";
import { me, overview } from "../live";
import { Waiting } from "../parts/notes";
import { use } from "../signal";
import { bits, packets } from "../words";

/** Ends that are shown; the rest is in the sums of `others`. */
const ENDS_MAX = 16;
const STEPS = 5;

export function TrafficPage() {
  const seen = use(overview);
  const who = use(me);
  const [chosen, setChosen] = useState<string | null>(null);
  const host = chosen ?? who?.host ?? "";
  const flows = useAsk<FlowView[]>("/v1/traffic", via(who, host), 3000);
  return (
    <>
      <h1>Traffic</h1>
      <div class="row">
        <label>
          At{" "}
          <select value={host} onChange={(event) => setChosen(event.currentTarget.value)}>
            {seen?.hosts.filter(reachable).map((one) => <option key={one.seen.id}>{one.seen.name}</option>)}
          </select>
        </label>
        <span class="quiet">mean of the last ten seconds; at least one end is a VM there</span>
      </div>
      {flows.data ? <Shown flows={flows.data} /> : <Waiting problem={flows.problem} />}
    </>
  );
}

function Shown({ flows }: { flows: FlowView[] }) {
  if (flows.length === 0) return <p>No VM there has sent or received anything for ten seconds.</p>;
  const sums = new Map<string, number>();
  for (const flow of flows) {
    for (const end of [flow.from, flow.to]) sums.set(end, (sums.get(end) ?? 0) + flow.bits_per_second);
  }
  const ends = [...sums].sort((a, b) => b[1] - a[1]).map(([end]) => end);
  const shown = ends.slice(0, ENDS_MAX);
  const most = Math.max(1, ...flows.map((flow) => flow.bits_per_second));
  const between = (from: string, to: string) => flows.find((flow) => flow.from === from && flow.to === to);
  const left = ends.length - shown.length;
  return (
    <>
      <Graph ends={shown} flows={flows} most={most} />
      <div class="scrolls" tabIndex={0} role="region" aria-label="Matrix">
        <table class="matrix">
          <caption>Rows send, columns receive{left > 0 ? `; ${left} with less are left out` : ""}</caption>
          <thead>
            <tr>
              <td />
              {shown.map((to) => (
                <th key={to} scope="col">
                  {to}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {shown.map((from) => (
              <tr key={from}>
                <th scope="row">{from}</th>
                {shown.map((to) => (
                  <Cell key={to} flow={between(from, to)} most={most} />
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}

function Cell({ flow, most }: { flow: FlowView | undefined; most: number }) {
  if (!flow) return <td class="none">·</td>;
  const step = Math.max(1, Math.ceil(STEPS * Math.sqrt(flow.bits_per_second / most)));
  return (
    <td class={`heat-${step}`} title={`${flow.from} → ${flow.to}: ${packets(flow.packets_per_second)}`}>
      {bits(flow.bits_per_second)}
    </td>
  );
}

const [WIDTH, HEIGHT] = [640, 360];

function Graph({ ends, flows, most }: { ends: string[]; flows: FlowView[]; most: number }) {
  const place = new Map(
    ends.map((end, n): [string, { x: number; y: number }] => {
      const turn = (2 * Math.PI * n) / ends.length - Math.PI / 2;
      return [end, { x: WIDTH / 2 + 230 * Math.cos(turn), y: HEIGHT / 2 + 140 * Math.sin(turn) }];
    }),
  );
  return (
    <svg class="graph" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label="Who talks to whom; the matrix below has the same in figures">
      {flows.map((flow) => {
        const [from, to] = [place.get(flow.from), place.get(flow.to)];
        if (!from || !to) return null;
        const width = 1 + (7 * flow.bits_per_second) / most;
        const path = `M${from.x} ${from.y} Q${WIDTH / 2} ${HEIGHT / 2} ${to.x} ${to.y}`;
        return <path key={`${flow.from}\n${flow.to}`} d={path} stroke-width={width} />;
      })}
      {[...place].map(([end, { x, y }]) => (
        <g key={end}>
          <circle cx={x} cy={y} r="6" />
          <text x={x} y={y < HEIGHT / 2 ? y - 12 : y + 24}>
            {end}
          </text>
        </g>
      ))}
    </svg>
  );
}
