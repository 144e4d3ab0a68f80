// One VM: how it does and did, what is expected of it, why it is where it is, and what can be done with it.
import { useState } from "preact/hooks";
import { named } from "../api/client";
import type { HistoryView, OverviewHost, VmView, Why } from "../api/types";
import { useAsk } from "../ask";
import { allMoves, findVm, may, reachable, via } from "../cluster";
import { me, overview } from "../live";
import { History, SPANS } from "../parts/history";
import { HostLink, ProblemNote, Waiting } from "../parts/notes";
import { FactList, Sentences } from "../parts/lists";
import { link } from "../route";
import { use } from "../signal";
import { age, bits, clock, mib, packets, percent } from "../words";
import { ExcludeDialog, IncludeDialog, MoveDialog } from "../parts/vm_dialogs";

export function VmPage({ about }: { about: string }) {
  const seen = use(overview);
  const found = findVm(seen, about);
  if (!seen) return null;
  if (!found) {
    return (
      <p>
        No host that answers lists a VM {about}. <a href="#/cluster">Back to the cluster</a>
      </p>
    );
  }
  return <Known key={found.vm.id} id={found.vm.id} name={found.vm.name} host={found.host} />;
}

function Known({ id, name, host }: { id: string; name: string; host: OverviewHost }) {
  const who = use(me);
  const at = host.seen.name;
  const all = useAsk<VmView[]>("/v1/vms", via(who, at), 3000);
  const vm = all.data?.find((one) => one.id === id) ?? null;
  const why = useAsk<Why>(`/v1/why/${named(id)}`, via(who, at), 5000);
  const [span, setSpan] = useState(SPANS[0]!);
  const history = useAsk<HistoryView>(
    `/v1/vms/${named(id)}/history?since=${span.seconds}`,
    via(who, at),
    span.seconds <= 600 ? 3000 : 30_000,
  );
  const moves = allMoves(use(overview)).filter((move) => move.vm_id === id);
  const under_way = moves.find((move) => !move.ended);
  return (
    <>
      <h1>
        {name} <span class="at">on <HostLink name={at} /></span>
      </h1>
      {!reachable(host) && (
        <p class="note bad">
          {at} does not answer: what is shown is {age(host.report_age_seconds ?? 0)} old. {host.problem}
        </p>
      )}
      {why.data && <p class="verdict">{why.data.verdict}</p>}
      {under_way && (
        <p class="note">
          It is being moved. <a href={link.move(under_way.id, under_way.from)}>See how that goes</a>
        </p>
      )}
      {vm ? <Facts vm={vm} /> : <Waiting problem={all.problem} />}
      {vm && <Buttons vm={vm} host={at} />}
      <History view={history.data} span={span} choose={setSpan} expected={vm?.next_hour ?? null} />
      {history.problem && <ProblemNote problem={history.problem} />}
      <h2>Why it is here</h2>
      {why.data && (
        <Sentences lines={why.data.because} />
      )}
      {why.problem && <ProblemNote problem={why.problem} />}
      <WhyNot id={id} name={name} at={at} />
      <Past view={history.data} />
    </>
  );
}

/** What keeps it from another host, and the least that would have to change. */
function WhyNot({ id, name, at }: { id: string; name: string; at: string }) {
  const who = use(me);
  const others = (use(overview)?.hosts ?? []).map((host) => host.seen.name).filter((host) => host !== at);
  const [to, setTo] = useState("");
  const why = useAsk<Why>(to ? `/v1/why/${named(id)}?to=${named(to)}` : null, via(who, at), 5000);
  if (others.length === 0) return null;
  return (
    <section aria-labelledby="why-not">
      <h2 id="why-not">Why it is not elsewhere</h2>
      <label>
        What would have to change for it to go to{" "}
        <select value={to} onChange={(event) => setTo(event.currentTarget.value)}>
          <option value="">choose a host</option>
          {others.map((host) => (
            <option key={host}>{host}</option>
          ))}
        </select>
      </label>
      <div aria-live="polite">
        {why.data && (
          <>
            <p>
              <strong>
                {name} to {to}: {why.data.verdict}
              </strong>
            </p>
            <Sentences lines={why.data.because} />
          </>
        )}
        {why.problem && <ProblemNote problem={why.problem} />}
      </div>
    </section>
  );
}

function Facts({ vm }: { vm: VmView }) {
  const facts: [string, string][] = [
    ["State", vm.state],
    ["CPU", `${percent(vm.cpu_percent)} of a core`],
    ["Memory", mib(vm.memory_mib)],
    ["Sends", packets(vm.sent_packets_per_second)],
    ["Receives", packets(vm.received_packets_per_second)],
    ["Traffic", bits(vm.bits_per_second)],
  ];
  if (vm.cpu_wait_percent !== null) facts.push(["Waits for CPU", `${percent(vm.cpu_wait_percent)} of a core`]);
  if (vm.guest_memory_mib !== null) facts.push(["In use inside", mib(vm.guest_memory_mib)]);
  if (vm.dirty_mib_per_second !== null) facts.push(["Writes to memory", `${mib(vm.dirty_mib_per_second)}/s`]);
  if (vm.next_hour) {
    facts.push(["Next hour's CPU", `${percent(vm.next_hour.cpu_mean_percent)}, at its peak ${percent(vm.next_hour.cpu_peak_percent)}`]);
    facts.push(["Next hour's traffic", `${bits(vm.next_hour.mean_bits_per_second)}, at its peak ${bits(vm.next_hour.peak_bits_per_second)}`]);
  }
  facts.push(["Rules", vm.rules.length > 0 ? vm.rules.join("; ") : "none"]);
  if (vm.excluded) facts.push(["Excluded", vm.excluded]);
  if (vm.share) facts.push(["Its share", vm.share.why]);
  return (
    <>
      {vm.trouble && <p class="note bad">! {vm.trouble}</p>}
      <FactList facts={facts} />
    </>
  );
}

function Buttons({ vm, host }: { vm: VmView; host: string }) {
  const who = use(me);
  const [asked, setAsked] = useState<"move" | "exclude" | "include" | null>(null);
  const close = () => setAsked(null);
  if (!may(who, "operator", host)) {
    const other = who?.host !== host && who?.role !== "viewer";
    return other ? (
      <p class="quiet">To move or exclude it, open the dashboard of {host}: a VM's own agent is the one to ask.</p>
    ) : null;
  }
  return (
    <div class="row">
      <button type="button" onClick={() => setAsked("move")} disabled={vm.state === "moving"}>
        Move…
      </button>
      {vm.excluded ? (
        <button type="button" onClick={() => setAsked("include")}>
          Let it be balanced…
        </button>
      ) : (
        <button type="button" onClick={() => setAsked("exclude")}>
          Exclude…
        </button>
      )}
      {asked === "move" && <MoveDialog vm={vm} close={close} />}
      {asked === "exclude" && <ExcludeDialog vm={vm} close={close} />}
      {asked === "include" && <IncludeDialog vm={vm} close={close} />}
    </div>
  );
}

function Past({ view }: { view: HistoryView | null }) {
  if (!view || view.past.length === 0) return null;
  return (
    <>
      <h2>Where it was before</h2>
      <ul>
        {view.past
          .toReversed()
          .map((stay) => (
            <li key={stay.move_id}>
              {stay.host}, until {clock(stay.ended)} (<a href={link.move(stay.move_id, stay.host)}>its move</a>)
            </li>
          ))}
      </ul>
    </>
  );
}
