// The frame of all pages: who may come in, where one is, and the answer before all else.
import { useEffect, useRef, useState } from "preact/hooks";
import { Refused } from "./api/client";
import type { Overview, Problem } from "./api/types";
import { allMoves, reachable } from "./cluster";
import { logIn, logOut, me, overview, trouble } from "./live";
import { ClusterPage } from "./pages/cluster";
import { EventsPage } from "./pages/events";
import { HostPage } from "./pages/host";
import { MovePage } from "./pages/move";
import { MovesPage } from "./pages/moves";
import { PlanPage } from "./pages/plan";
import { PolicyPage } from "./pages/policy";
import { TrafficPage } from "./pages/traffic";
import { VmPage } from "./pages/vm";
import { ProblemNote } from "./parts/notes";
import { link, route } from "./route";
import { use } from "./signal";
import { count } from "./words";

const PAGES = ["cluster", "moves", "events", "plan", "traffic", "policy"];

export function App() {
  const who = use(me);
  return who ? <Frame /> : <Login />;
}

function Login() {
  const [problem, setProblem] = useState<Problem | null>(use(trouble));
  const [asked, setAsked] = useState(false);
  const field = useRef<HTMLInputElement>(null);
  const tryTo = async (token: string | null) => {
    try {
      await logIn(token);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (token !== null || error.problem.code !== "no-token") setProblem(error.problem);
      setAsked(true);
    }
  };
  // Over a forwarded unix socket no token is needed.
  useEffect(() => void tryTo(null), []);
  if (!asked) return <p class="quiet alone">Asking the agent…</p>;
  return (
    <main class="alone">
      <h1>Evenkeel</h1>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void tryTo(field.current?.value.trim() ?? "");
        }}
      >
        <label for="token">Token of this agent</label>
        <input ref={field} id="token" type="password" autocomplete="off" required placeholder="evk_…" autofocus />
        <button type="submit" class="does">
          Log in
        </button>
      </form>
      {problem && <ProblemNote problem={problem} />}
      <p class="quiet">
        <code>evenkeel token create --role viewer --name YOU --days 30</code> on this host makes one. It is kept in this page
        alone, and forgotten when you close it.
      </p>
    </main>
  );
}

function Frame() {
  const { page, about } = use(route);
  const who = use(me);
  const seen = use(overview);
  const wrong = use(trouble);
  const main = useRef<HTMLElement>(null);
  useEffect(() => {
    document.title = `${about || page} – Evenkeel`;
  }, [page, about]);
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), main.current?.focus())}>
        Skip to the content
      </a>
      <header>
        <strong class="brand">{seen ? `Evenkeel · ${seen.cluster}` : "Evenkeel"}</strong>
        <nav aria-label="Pages">
          {PAGES.map((one) => (
            <a key={one} href={`#/${one}`} aria-current={one === page ? "page" : undefined}>
              {one[0]?.toUpperCase() + one.slice(1)}
            </a>
          ))}
        </nav>
        <span class="who">
          {who?.role} at {who?.host}
          {!who?.here && (
            <button type="button" onClick={logOut}>
              Log out
            </button>
          )}
        </span>
      </header>
      {wrong && <ProblemNote problem={wrong} />}
      <Answer seen={seen} />
      <main id="main" ref={main} tabIndex={-1}>
        <Page page={page} about={about} />
      </main>
    </>
  );
}

function Page({ page, about }: { page: string; about: string }) {
  switch (page) {
    case "cluster":
      return <ClusterPage />;
    case "host":
      return <HostPage name={about} />;
    case "vm":
      return <VmPage about={about} />;
    case "moves":
      return <MovesPage />;
    case "move":
      return <MovePage id={about} />;
    case "events":
      return <EventsPage />;
    case "plan":
      return <PlanPage />;
    case "traffic":
      return <TrafficPage />;
    case "policy":
      return <PolicyPage />;
    default:
      return (
        <p>
          There is no page {page}. <a href="#/cluster">Back to the cluster</a>
        </p>
      );
  }
}

/** What somebody who was woken up wants to know first. */
function Answer({ seen }: { seen: Overview | null }) {
  if (!seen) return <p class="answer quiet">Asking the agents…</p>;
  const alarms = seen.hosts.flatMap((host) =>
    (host.report?.status.alarms ?? []).map((alarm) => ({ host: host.seen.name, alarm })),
  );
  const silent = seen.hosts.filter((host) => !reachable(host)).map((host) => host.seen.name);
  const hot = seen.hosts.filter((host) => host.seen.hot && reachable(host)).map((host) => host.seen.name);
  const moving = allMoves(seen).filter((move) => !move.ended).length;
  const bad = alarms.length > 0 || silent.length > 0;
  return (
    <section class={bad ? "answer bad" : hot.length > 0 ? "answer warm" : "answer good"} aria-live="polite" aria-label="In short">
      <strong>
        {silent.length > 0 && (
          <>
            ✕ <Names hosts={silent} /> {silent.length > 1 ? "do" : "does"} not answer.{" "}
          </>
        )}
        {hot.length > 0 ? (
          <>
            ▲ <Names hosts={hot} /> {hot.length > 1 ? "are" : "is"} hot.
          </>
        ) : (
          "No host is hot."
        )}{" "}
        {moving > 0 ? <a href="#/moves">{count(moving, "move is", "moves are")} under way.</a> : "Nothing is being moved."}
      </strong>
      {alarms.map(({ host, alarm }) => (
        <div key={host + alarm}>
          ! <a href={link.host(host)}>{host}</a>: {alarm}
        </div>
      ))}
    </section>
  );
}

/** Of a few; how many more there are. */
const NAMED = 8;

function Names({ hosts }: { hosts: string[] }) {
  return (
    <>
      {hosts.slice(0, NAMED).map((name, n) => (
        <>
          {n > 0 && ", "}
          <a href={link.host(name)}>{name}</a>
        </>
      ))}
      {hosts.length > NAMED && ` and ${hosts.length - NAMED} more`}
    </>
  );
}
