// What one page alone asks for: asked when it is shown, and again now and then while it is.
import { useEffect, useState } from "preact/hooks";
import { get, Refused } from "./api/client";
import type { Problem } from "./api/types";

export interface Asked<T> {
  data: T | null;
  problem: Problem | null;
}

/** `path` null: there is nothing to ask yet. `host` as of `get`. The last answer stays while a new one is awaited. */
export function useAsk<T>(path: string | null, host?: string | null, everyMs?: number, key: unknown = 0): Asked<T> {
  const [asked, setAsked] = useState<Asked<T> & { of: string | null }>({ data: null, problem: null, of: null });
  const of = path === null ? null : `${host ?? ""}${path}`;
  useEffect(() => {
    if (path === null) return;
    const ending = new AbortController();
    let timer = 0;
    const ask = async () => {
      try {
        if (!document.hidden) {
          const data = await get<T>(path, host, ending.signal);
          setAsked({ data, problem: null, of });
        }
      } catch (error) {
        if (ending.signal.aborted) return;
        if (!(error instanceof Refused)) throw error;
        setAsked((before) => ({ data: before.of === of ? before.data : null, problem: error.problem, of }));
      }
      if (everyMs !== undefined && !ending.signal.aborted) timer = window.setTimeout(ask, everyMs);
    };
    void ask();
    return () => {
      ending.abort();
      clearTimeout(timer);
    };
  }, [path, host, everyMs, key]);
  // An answer about something else is none.
  return asked.of === of ? asked : { data: null, problem: null };
}
