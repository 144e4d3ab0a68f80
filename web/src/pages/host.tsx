// One host: how it does and did, its VMs, what it says of itself, and draining it.
import { useState } from "preact/hooks";
import { named, post } from "../api/client";
import type { DrainView, HistoryView, OverviewHost, Status, VmTile } from "../api/types";
import { useAsk } from "../ask";
import { findHost, may, reachable, via } from "../cluster";
import { me, overview, refresh } from "../live";
import { Dialog } from "../parts/dialog";
import { History, SPANS } from "../parts/history";
import { HostState, Meter, ProblemNote } from "../parts/notes";
import { FactList } from "../parts/lists";
import { link } from "../route";
import { use } from "../signal";
import { age, bits, count, mib, packets, percent } from "../words";

export function HostPage({ name }: { name: string }) {
  const seen = use(overview);
  const host = findHost(seen, name);
  if (!seen) return null;
  if (!host) {
    return (
      <p>
        No host {name} is known. <a href="#/cluster">Back to the cluster</a>
      </p>
    );
  }
  return <Known key={host.seen.id} host={host} />;
}

function Known({ host }: { host: OverviewHost }) {
  const who = use(me);
  const { name } = host.seen;
  const at = via(who, name);
  const [span, setSpan] = useState(SPANS[0]!);
  const path = `/v1/hosts/${named(name)}/history?since=${span.seconds}`;
  const history = useAsk<HistoryView>(path, at, span.seconds <= 600 ? 3000 : 30_000);
  const drain = useAsk<DrainView>("/v1/drain", at, 3000);
  return (
    <>
      <h1>
        {name} <HostState host={host} />
      </h1>
      {!reachable(host) && (
        <p class="note bad">
          {name} does not answer: what is shown is {age(host.report_age_seconds ?? host.seen.age_seconds ?? 0)} old. {host.problem}
        </p>
      )}
      {host.report && <p class="verdict">{host.report.status.doing}</p>}
      <Meter name="CPU" value={host.seen.cpu_percent} high={80} />
      <Meter name="Memory" value={host.seen.memory_percent} high={90} />
      <Facts host={host} />
      {host.report?.status.alarms.map((alarm) => (
        <p key={alarm} class="note bad">
          ! {alarm}
        </p>
      ))}
      <DrainPart host={name} drain={drain.data} />
      <h2>Its VMs</h2>
      <Vms vms={host.report?.vms ?? []} />
      <History view={history.data} span={span} choose={setSpan} expected={null} />
      {history.problem && <ProblemNote problem={history.problem} />}
    </>
  );
}

function Facts({ host: { seen, report } }: { host: OverviewHost }) {
  const facts: [string, string][] = [
    ["Packets", packets(seen.packets_per_second)],
    ["Traffic", bits(seen.bits_per_second)],
    ["Room for guests", seen.room_mib === null ? "it does not say" : mib(seen.room_mib)],
    ["Able to", seen.able.join(", ") || "it does not say"],
    ["Address", seen.address],
  ];
  if (report) {
    facts.push(["Balancing", report.status.balancer_on ? report.status.balance : `${report.status.balance}, switched off here`]);
    facts.push(["Agent", report.status.version]);
    if (report.status.hot) facts.push(["Hot by", report.status.hot]);
    if (report.status.uplink) facts.push(["Uplink", uplink(report.status)]);
    if (report.status.config) facts.push(["Not in force", report.status.config]);
    // An agent of an earlier version does not say.
    for (const failing of report.status.webhooks_failing ?? []) facts.push(["Webhook fails", failing]);
    if (report.status.traces_failing) facts.push(["Traces fail", report.status.traces_failing]);
  }
  return (
    <FactList facts={facts} />
  );
}

function uplink({ uplink }: Status): string {
  if (!uplink) return "–";
  const speed = uplink.speed_bits_per_second === null ? [] : [bits(uplink.speed_bits_per_second)];
  const losing = uplink.losing_queues.map((queue) => `queue ${queue.queue} loses ${queue.drops_per_second} pkt/s`);
  return [uplink.name, uplink.driver ?? "", ...speed, uplink.up === false ? "no link" : "", ...losing].filter(Boolean).join(", ");
}

function Vms({ vms }: { vms: VmTile[] }) {
  if (vms.length === 0) return <p>It has none.</p>;
  return (
    <div class="scrolls" tabIndex={0} role="region" aria-label="Its VMs">
      <table class="cards">
        <thead>
          <tr>
            <th>VM</th>
            <th>State</th>
            <th class="number">CPU</th>
            <th class="number">Memory</th>
            <th class="number">Sends</th>
            <th class="number">Receives</th>
            <th>Trouble</th>
          </tr>
        </thead>
        <tbody>
          {vms.map((vm) => (
            <tr key={vm.id}>
              <td data-name="VM">
                <a href={link.vm(vm.id)}>{vm.name}</a>
              </td>
              <td data-name="State">{vm.excluded ? `${vm.state}, excluded` : vm.state}</td>
              <td data-name="CPU" class="number">
                {percent(vm.cpu_percent)}
              </td>
              <td data-name="Memory" class="number">
                {mib(vm.memory_mib)}
              </td>
              <td data-name="Sends" class="number">
                {packets(vm.sent_packets_per_second)}
              </td>
              <td data-name="Receives" class="number">
                {packets(vm.received_packets_per_second)}
              </td>
              <td data-name="Trouble">{vm.trouble ? `! ${vm.trouble}` : "–"}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function DrainPart({ host, drain }: { host: string; drain: DrainView | null }) {
  const allowed = may(use(me), "operator", host);
  const [asking, setAsking] = useState(false);
  if (!drain) return null;
  const on = !drain.draining;
  return (
    <>
      {drain.draining && (
        <section class="note">
          <strong>It is being drained: {count(drain.here.length, "VM is", "VMs are")} still here.</strong>
          <ul>
            {drain.here.map((vm) => (
              <li key={vm.vm_id}>
                <a href={link.vm(vm.vm_id)}>{vm.vm}</a> {vm.state}
                {vm.why ? `: ${vm.why}` : ""}
              </li>
            ))}
          </ul>
        </section>
      )}
      {allowed && (
        <button type="button" onClick={() => setAsking(true)}>
          {on ? "Drain this host…" : "End the drain…"}
        </button>
      )}
      {asking && (
        <Dialog
          title={on ? `Drain ${host}?` : `End the drain of ${host}?`}
          does={on ? "Drain it" : "End it"}
          close={() => setAsking(false)}
          act={async () => {
            await post<DrainView>("/v1/drain", { on, host });
            await refresh();
          }}
        >
          <p>
            {on
              ? "All its VMs leave, one after another, and none comes. VMs that no other host takes stay, and are named here."
              : "VMs that have left stay where they are; moves that are under way go on."}
          </p>
        </Dialog>
      )}
    </>
  );
}
