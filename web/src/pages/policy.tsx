// By what each host goes, what it says of that now, and what is left alone.
import { useState } from "preact/hooks";
import { post } from "../api/client";
import type { Balancer, Exclusion, OverviewHost, VmView, Why } from "../api/types";
import { useAsk } from "../ask";
import { may, reachable, via } from "../cluster";
import { me, overview, refresh } from "../live";
import { Dialog } from "../parts/dialog";
import { HostLink, ProblemNote } from "../parts/notes";
import { Sentences } from "../parts/lists";
import { link } from "../route";
import { use } from "../signal";

const MODES: Record<string, string> = {
  off: "hosts are watched only",
  recommend: "moves are proposed; a person applies them",
  automatic: "moves are made by themselves",
};

export function PolicyPage() {
  const seen = use(overview);
  return (
    <>
      <h1>Policy</h1>
      <p class="quiet">
        The configuration of each host is on that host (<code>/etc/evenkeel/evenkeel.toml</code>); here is what it comes to.
      </p>
      {seen?.hosts.filter(reachable).map((host) => <OfHost key={host.seen.id} host={host} />)}
    </>
  );
}

function OfHost({ host }: { host: OverviewHost }) {
  const who = use(me);
  const { name } = host.seen;
  const why = useAsk<Why>("/v1/why", via(who, name), 5000);
  const exclusions = useAsk<Exclusion[]>("/v1/exclusions", via(who, name), 10_000);
  const vms = useAsk<VmView[]>("/v1/vms", via(who, name), 10_000);
  const ruled = vms.data?.filter((vm) => vm.rules.length > 0) ?? [];
  const status = host.report?.status;
  return (
    <section class="card wide" aria-label={`Policy of ${name}`}>
      <h2>
        <HostLink name={name} />
      </h2>
      {status && (
        <p>
          <strong>{status.balance}</strong>: {MODES[status.balance] ?? ""}
          {status.balancer_on ? "" : "; the balancer is switched off here"}
          {status.config ? `. Not in force: ${status.config}` : ""}
        </p>
      )}
      {why.data && (
        <>
          <p class="verdict">{why.data.verdict}</p>
          <Sentences lines={why.data.because} />
        </>
      )}
      {why.problem && <ProblemNote problem={why.problem} />}
      {ruled.length > 0 && (
        <>
          <h3>Rules, as they were understood</h3>
          <ul>
            {ruled.map((vm) => (
              <li key={vm.id}>
                <a href={link.vm(vm.id)}>{vm.name}</a>: {vm.rules.join("; ")}
              </li>
            ))}
          </ul>
        </>
      )}
      {(exclusions.data?.length ?? 0) > 0 && (
        <>
          <h3>Excluded by hand</h3>
          <ul>
            {exclusions.data?.map((one) => (
              <li key={one.vm_id}>
                <a href={link.vm(one.vm_id)}>{one.vm}</a> {one.until ? `until ${one.until}` : "for good"}
                {one.rule ? `; besides, ${one.rule}` : ""}
              </li>
            ))}
          </ul>
        </>
      )}
      {status && may(who, "admin", name) && <Switch host={name} on={status.balancer_on} />}
    </section>
  );
}

function Switch({ host, on }: { host: string; on: boolean }) {
  const [asking, setAsking] = useState(false);
  return (
    <>
      <button type="button" onClick={() => setAsking(true)}>
        {on ? "Switch the balancer off here…" : "Switch the balancer on here…"}
      </button>
      {asking && (
        <Dialog
          title={on ? `Switch the balancer off on ${host}?` : `Switch the balancer on on ${host}?`}
          does={on ? "Switch it off" : "Switch it on"}
          close={() => setAsking(false)}
          act={async () => {
            await post<Balancer>("/v1/balancer", { on: !on });
            await refresh();
          }}
        >
          <p>
            {on
              ? "This host begins no move by itself until it is switched on again, also after a restart. Moves under way go on."
              : "It begins moves again where its configuration lets it."}
          </p>
        </Dialog>
      )}
    </>
  );
}
