// What each host would move now, and why; a plan is applied at the host whose agent this is.
import { useState } from "preact/hooks";
import { post } from "../api/client";
import type { Applied, Plan, PlannedMove } from "../api/types";
import { useAsk } from "../ask";
import { may, reachable, via } from "../cluster";
import { me, overview, refresh } from "../live";
import { Dialog } from "../parts/dialog";
import { HostLink, ProblemNote } from "../parts/notes";
import { link } from "../route";
import { use } from "../signal";
import { mib, milliseconds, percent } from "../words";

export function PlanPage() {
  const seen = use(overview);
  return (
    <>
      <h1>Plan</h1>
      <p class="quiet">What would be moved now. Looking at it changes nothing, and asks no other host.</p>
      {seen?.hosts.filter(reachable).map((host) => <OfHost key={host.seen.id} host={host.seen.name} />)}
    </>
  );
}

function OfHost({ host }: { host: string }) {
  const who = use(me);
  const plan = useAsk<Plan>("/v1/plan", via(who, host), 5000);
  const [wanted, setWanted] = useState<PlannedMove[] | null>(null);
  const [applied, setApplied] = useState<Applied | null>(null);
  const data = plan.data;
  const allowed = may(who, "operator", host);
  return (
    <section class="card wide" aria-label={`Plan of ${host}`}>
      <h2>
        <HostLink name={host} />
        {data && (data.moves.length > 0 ? ` would move ${data.moves.length}` : " would move nothing")}
      </h2>
      {plan.problem && <ProblemNote problem={plan.problem} />}
      {data && <Held plan={data} />}
      <ol>
        {data?.moves.map((move) => (
          <li key={move.vm_id}>
            <Planned move={move} />
            {allowed && (
              <button type="button" onClick={() => setWanted([move])}>
                Apply…
              </button>
            )}
          </li>
        ))}
      </ol>
      {allowed && data && data.moves.length > 1 && (
        <button type="button" onClick={() => setWanted(data.moves)}>
          Apply all…
        </button>
      )}
      {!allowed && data && data.moves.length > 0 && who?.role !== "viewer" && (
        <p class="quiet">To apply it, open the dashboard of {host}.</p>
      )}
      {applied && <Came applied={applied} />}
      {wanted && (
        <Dialog
          title={wanted.length === 1 ? `Move ${wanted[0]?.vm ?? ""} as planned?` : `Make all ${wanted.length} moves?`}
          does="Apply"
          close={() => setWanted(null)}
          act={async () => {
            setApplied(await post<Applied>("/v1/plan/apply", { vms: wanted.map((move) => move.vm_id) }));
            await refresh();
          }}
        >
          <p>Each is judged and negotiated anew: what does not hold any more is refused, with the reason.</p>
        </Dialog>
      )}
    </section>
  );
}

function Held({ plan }: { plan: Plan }) {
  if (plan.moves.length === 0) return <p>{plan.held ?? plan.end}</p>;
  return (
    <>
      {plan.held && <p>Not by itself: {plan.held}</p>}
      <p class="quiet">No more after these: {plan.end}</p>
    </>
  );
}

function Planned({ move }: { move: PlannedMove }) {
  const to = move.likely ? (
    <>
      likely to <HostLink name={move.likely} />
    </>
  ) : (
    "and no host is known that could take it now"
  );
  return (
    <>
      <strong>
        <a href={link.vm(move.vm_id)}>{move.vm}</a> {to}
      </strong>
      <div>{move.reason}</div>
      {move.choice && <div>{move.choice}</div>}
      <div class="quiet">
        {move.relief_percent === null ? "a rule asks for it" : `relieves ${percent(move.relief_percent)} of pressure here`}
        {move.cost_percent !== null && `, costs ${percent(move.cost_percent)} there`}, copies {mib(move.memory_mib)}
        {move.copy_ms === null ? ", which would not end as fast as it writes to its memory" : ` in ${milliseconds(move.copy_ms)} at the most`}
        {move.downtime_ms !== null && `, stands still for ${move.downtime_ms === 0 ? "a moment" : milliseconds(move.downtime_ms)}`}
      </div>
    </>
  );
}

function Came({ applied }: { applied: Applied }) {
  return (
    <ul aria-live="polite">
      {applied.nothing && <li>{applied.nothing}</li>}
      {applied.vms.map((vm) => (
        <li key={vm.vm}>
          {vm.vm}: {vm.move_id ? <a href={link.move(vm.move_id, applied.host)}>its move has begun</a> : `✕ ${vm.refused ?? ""}`}
        </li>
      ))}
    </ul>
  );
}
