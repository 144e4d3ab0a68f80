// What the overview says of single VMs, hosts and moves.
import type { Me, MoveView, Overview, OverviewHost, Role, VmTile } from "./api/types";

export interface Placed {
  vm: VmTile;
  host: OverviewHost;
}

/** A VM by UUID or name; where two hosts list it, the one that runs it. */
export function findVm(overview: Overview | null, about: string): Placed | null {
  let found: Placed | null = null;
  for (const host of overview?.hosts ?? []) {
    for (const vm of host.report?.vms ?? []) {
      if (vm.id !== about && vm.name !== about) continue;
      if (!found || found.vm.state === "released") found = { vm, host };
    }
  }
  return found;
}

export function findHost(overview: Overview | null, name: string): OverviewHost | null {
  return overview?.hosts.find((host) => host.seen.name === name || host.seen.id === name) ?? null;
}

/** Of all hosts, newest first. Source and target both tell of a move: what the source says is the whole. */
export function allMoves(overview: Overview | null): MoveView[] {
  const all = new Map<string, MoveView>();
  for (const host of overview?.hosts ?? []) {
    for (const move of host.report?.moves ?? []) {
      if (move.from === host.seen.name || !all.has(move.id)) all.set(move.id, move);
    }
  }
  return [...all.values()].sort((a, b) => b.began.localeCompare(a.began));
}

/** Copied so far, 0 to 1; null: it is not known yet. */
export function progress(move: MoveView): number | null {
  return move.total_bytes > 0 ? Math.min(1, move.copied_bytes / move.total_bytes) : null;
}

/** The host as the rest of the dashboard names it to the API: none for the one whose agent this is. */
export function via(me: Me | null, host: string): string | null {
  return me && me.host === host ? null : host;
}

const RANKS: Role[] = ["viewer", "operator", "admin"];

/** Whether this role may have something done at a host: only where it is the host whose agent this is. */
export function may(me: Me | null, role: Role, host: string): boolean {
  return me !== null && me.host === host && RANKS.indexOf(me.role) >= RANKS.indexOf(role);
}

/** An unreachable host is one that did not report when asked last, or that the others take for gone. */
export function reachable(host: OverviewHost): boolean {
  return host.seen.state === "alive" && host.problem === null;
}
