// What a person may have done with a VM of this agent's host, each after a question.
import { useState } from "preact/hooks";
import { named, post } from "../api/client";
import type { Exclusion, MoveRequest, MoveStarted, VmView, Why } from "../api/types";
import { useAsk } from "../ask";
import { overview, refresh } from "../live";
import { go, link } from "../route";
import { use } from "../signal";
import { mib } from "../words";
import { Dialog } from "./dialog";
import { ProblemNote } from "./notes";

const HOUR = 3600;

export function MoveDialog({ vm, close }: { vm: VmView; close: () => void }) {
  const seen = use(overview);
  const [to, setTo] = useState("");
  const why = useAsk<Why>(to ? `/v1/why/${named(vm.id)}?to=${named(to)}` : null);
  const others = (seen?.hosts ?? []).filter((host) => host.seen.name !== vm.host && host.seen.state === "alive");
  const act = async () => {
    const request: MoveRequest = { vm: vm.id, to: to || null };
    const started = await post<MoveStarted>("/v1/moves", request);
    await refresh();
    go(link.move(started.move_id, vm.host));
  };
  return (
    <Dialog title={`Move ${vm.name}?`} does="Move it now" act={act} close={close}>
      <p>
        {mib(vm.memory_mib)} are copied while it runs; for the last round it stands still for a moment. Its host asks; who takes it
        has the last word on room and rules.
      </p>
      <label for="target">To</label>
      <select id="target" value={to} onChange={(event) => setTo(event.currentTarget.value)}>
        <option value="">whichever host takes it at the least cost</option>
        {others.map((host) => (
          <option key={host.seen.id} value={host.seen.name}>
            {host.seen.name}
            {host.seen.room_mib === null ? "" : ` (room for ${mib(host.seen.room_mib)})`}
          </option>
        ))}
      </select>
      {why.data && <InTheWay why={why.data} to={to} />}
      {why.problem && <ProblemNote problem={why.problem} />}
    </Dialog>
  );
}

/** How the agent marks what a person's move passes over. */
const PASSED_OVER = "(not by hand)";

function InTheWay({ why, to }: { why: Why; to: string }) {
  const stands = why.because.filter((line) => !line.includes(PASSED_OVER));
  const passed = why.because.filter((line) => line.includes(PASSED_OVER));
  const list = (lines: string[]) => (
    <ul>
      {lines.map((line) => (
        <li key={line}>{line}</li>
      ))}
    </ul>
  );
  return (
    <div class={stands.length > 0 ? "note bad" : "note"} aria-live="polite">
      <strong>
        {stands.length > 0 ? "In the way, also of a move by hand:" : `Nothing that is known keeps a person from moving it to ${to}.`}
      </strong>
      {stands.length > 0 && list(stands)}
      {passed.length > 0 && (
        <details>
          <summary>Why it does not go there by itself</summary>
          {list(passed)}
        </details>
      )}
    </div>
  );
}

export function ExcludeDialog({ vm, close }: { vm: VmView; close: () => void }) {
  const [hours, setHours] = useState("2");
  const act = async () => {
    const seconds = hours === "" ? null : Number(hours) * HOUR;
    await post<Exclusion>(`/v1/vms/${named(vm.id)}/exclude`, { for_seconds: seconds });
    await refresh();
  };
  return (
    <Dialog title={`Exclude ${vm.name}?`} does="Exclude it" act={act} close={close}>
      <p>It is left on {vm.host}: balancing and rules pass it over. A person can still move it.</p>
      <label for="hours">For</label>
      <select id="hours" value={hours} onChange={(event) => setHours(event.currentTarget.value)}>
        <option value="2">2 hours</option>
        <option value="8">8 hours</option>
        <option value="24">a day</option>
        <option value="168">a week</option>
        <option value="">good, until somebody ends it</option>
      </select>
    </Dialog>
  );
}

export function IncludeDialog({ vm, close }: { vm: VmView; close: () => void }) {
  const act = async () => {
    await post<Exclusion>(`/v1/vms/${named(vm.id)}/include`);
    await refresh();
  };
  return (
    <Dialog title={`Let ${vm.name} be balanced again?`} does="End its exclusion" act={act} close={close}>
      <p>It was excluded: {vm.excluded}. What the configuration's rules exclude stays excluded.</p>
    </Dialog>
  );
}
