// Every host with its VMs, as tiles sized by memory and coloured by load, and what moves between them.
import { memo } from "preact/compat";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import type { MoveView, OverviewHost, VmTile } from "../api/types";
import { allMoves, progress, reachable } from "../cluster";
import { overview } from "../live";
import { HostLink, HostState, Meter, Progress } from "../parts/notes";
import { link } from "../route";
import { use } from "../signal";
import { bits, count, load, mib, packets, percent, plain } from "../words";

/** Beside the colour of each load: so that they can be told apart without it. */
const SIGNS = ["▁", "▃", "▅", "▇"] as const;
const LOADS = ["idle", "light", "busy", "full"] as const;

export function ClusterPage() {
  const seen = use(overview);
  const field = useRef<HTMLDivElement>(null);
  const [filter, setFilter] = useState("");
  if (!seen) return null;
  const largest = Math.max(1, ...seen.hosts.flatMap((host) => (host.report?.vms ?? []).map((vm) => vm.memory_mib)));
  const under_way = allMoves(seen).filter((move) => !move.ended);
  const wanted = filter.trim().toLowerCase();
  const hosts = seen.hosts.filter((host) => wanted === "" || matches(host, wanted));
  return (
    <>
      <h1 class="hidden">Cluster</h1>
      <div class="row">
        <label class="filter">
          Find <input type="search" value={filter} placeholder="host or VM" onInput={(event) => setFilter(event.currentTarget.value)} />
        </label>
        <Legend />
      </div>
      {under_way.length > 0 && <UnderWay moves={under_way} />}
      <div class="hosts" ref={field}>
        {hosts.map((host) => (
          <HostCard key={host.seen.id} host={host} wanted={wanted} largest={largest} />
        ))}
        <Arrows field={field} moves={under_way} />
      </div>
      {hosts.length === 0 && <p>No host and no VM has that in its name.</p>}
    </>
  );
}

function matches(host: OverviewHost, wanted: string): boolean {
  const names = [host.seen.name, ...(host.report?.vms ?? []).map((vm) => vm.name)];
  return names.some((name) => name.toLowerCase().includes(wanted));
}

function Legend() {
  return (
    <p class="legend quiet" aria-label="What tiles mean">
      {LOADS.map((word, n) => (
        <span key={word}>
          <span class={`swatch load-${n}`}>{SIGNS[n]}</span> {word}
        </span>
      ))}
      <span>larger: more memory</span>
    </p>
  );
}

function UnderWay({ moves }: { moves: MoveView[] }) {
  return (
    <section class="under-way" aria-label="Moves under way">
      {moves.map((move) => (
        <a key={move.id} class="move-line" href={link.move(move.id, move.from)}>
          <strong>{move.vm}</strong> {move.from} → {move.to ?? "?"}
          <Progress part={progress(move)} name={`copied of ${move.vm}`} />
          <span class="quiet">{plain(move.phase)}</span>
        </a>
      ))}
    </section>
  );
}

/** A side of the largest VM's tile, in pixels: smaller where there are many. */
function tileMost(vms: number): number {
  if (vms <= 8) return 88;
  return vms <= 24 ? 60 : 44;
}
const TILE_LEAST = 26;

function HostCard({ host, wanted, largest }: { host: OverviewHost; wanted: string; largest: number }) {
  const { seen, report } = host;
  const vms = report?.vms ?? [];
  const most = tileMost(vms.length);
  const kind = !reachable(host) ? "card gone" : seen.hot ? "card hot" : "card";
  return (
    <section class={kind} data-host={seen.name} aria-labelledby={`host-${seen.id}`}>
      <h2 id={`host-${seen.id}`}>
        <HostLink name={seen.name} /> <HostState host={host} />
      </h2>
      <Meter name="CPU" value={seen.cpu_percent} high={80} />
      <Meter name="Memory" value={seen.memory_percent} high={90} />
      <p class="quiet">
        {packets(seen.packets_per_second)}, {bits(seen.bits_per_second)} · {count(seen.vms, "VM")}
        {report?.status.hot ? ` · ${report.status.hot}` : ""}
      </p>
      {report ? (
        <ul class="tiles">
          {vms.map((vm) => (
            <Tile key={vm.id} vm={vm} size={Math.round(Math.max(TILE_LEAST, most * Math.sqrt(vm.memory_mib / largest)))} dim={wanted !== "" && !`${vm.name} ${seen.name}`.toLowerCase().includes(wanted)} />
          ))}
        </ul>
      ) : (
        <p class="quiet">{host.problem ?? "Its agent was asked for its VMs and has not answered yet."}</p>
      )}
    </section>
  );
}

/** Drawn anew only if something of it that is shown has changed. */
const Tile = memo(
  ({ vm, size, dim }: { vm: VmTile; size: number; dim: boolean }) => {
    const step = load(vm.cpu_percent);
    const words = `${vm.name}: ${vm.state}, ${LOADS[step]} (CPU ${percent(vm.cpu_percent)}), ${mib(vm.memory_mib)}${vm.excluded ? ", excluded" : ""}${vm.trouble ? `, ${vm.trouble}` : ""}`;
    const kind = `tile load-${step}${vm.trouble || vm.state === "down" ? " bad" : ""}${dim ? " dim" : ""}${vm.state === "moving" ? " moving" : ""}`;
    return (
      <li>
        <a class={kind} data-vm={vm.id} href={link.vm(vm.id)} title={words} aria-label={words} style={{ width: `${size}px`, height: `${size}px` }}>
          <span aria-hidden="true">
            {vm.trouble ? "!" : SIGNS[step]}
            {size >= 40 ? ` ${vm.name}` : ""}
          </span>
        </a>
      </li>
    );
  },
  (a, b) =>
    a.dim === b.dim &&
    a.size === b.size &&
    a.vm.name === b.vm.name &&
    a.vm.state === b.vm.state &&
    a.vm.memory_mib === b.vm.memory_mib &&
    Math.round(a.vm.cpu_percent) === Math.round(b.vm.cpu_percent) &&
    a.vm.excluded === b.vm.excluded &&
    a.vm.trouble === b.vm.trouble,
);

interface Arrow {
  id: string;
  path: string;
}

/** An arrow from host to host for each move under way. */
function Arrows({ field, moves }: { field: { current: HTMLDivElement | null }; moves: MoveView[] }) {
  const [arrows, setArrows] = useState<Arrow[]>([]);
  const key = moves.map((move) => `${move.id} ${move.to}`).join();
  useLayoutEffect(() => {
    const within = field.current;
    if (!within || moves.length === 0) return setArrows([]);
    const draw = () => setArrows(moves.flatMap((move) => arrow(within, move) ?? []));
    draw();
    const resized = new ResizeObserver(draw);
    resized.observe(within);
    return () => resized.disconnect();
  }, [key]);
  return (
    <svg class="arrows" aria-hidden="true">
      <defs>
        <marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
          <path d="M0 0L8 4L0 8z" />
        </marker>
      </defs>
      {arrows.map(({ id, path }) => (
        <path key={id} d={path} marker-end="url(#tip)" />
      ))}
    </svg>
  );
}

/** From the VM's tile to the foot of the target's card, below what is written there. */
function arrow(within: HTMLElement, move: MoveView): Arrow | null {
  const card = (name: string | null) => within.querySelector(`[data-host="${CSS.escape(name ?? "")}"]`);
  const source = card(move.from);
  const from = (source?.querySelector(`[data-vm="${CSS.escape(move.vm_id)}"]`) ?? source)?.getBoundingClientRect();
  const [to, all] = [card(move.to)?.getBoundingClientRect(), within.getBoundingClientRect()];
  if (!from || !to) return null;
  const [x, y] = [from.left + from.width / 2 - all.left, from.bottom - all.top];
  const [u, v] = [to.left + to.width / 2 - all.left, to.bottom - all.top];
  const bend = Math.max(40, Math.abs(u - x) / 6);
  return { id: move.id, path: `M${x} ${y} Q${(x + u) / 2} ${Math.max(y, v) + bend} ${u} ${v}` };
}
