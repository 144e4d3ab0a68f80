// A usage history as charts, over all spans for which one is kept.
import { useMemo } from "preact/hooks";
import type { HistoryView, NextHourView, Series } from "../api/types";
import { bits, mib, packets, percent } from "../words";
import { Chart, type Line } from "./chart";

export interface Span {
  words: string;
  seconds: number;
}

/** By seconds, ten seconds, minutes and quarters of an hour: the shortest that is kept for so long. */
export const SPANS: Span[] = [
  { words: "10 min", seconds: 600 },
  { words: "6 h", seconds: 6 * 3600 },
  { words: "2 days", seconds: 2 * 86_400 },
  { words: "30 days", seconds: 30 * 86_400 },
];

interface Props {
  view: HistoryView | null;
  span: Span;
  choose: (span: Span) => void;
  expected: NextHourView | null;
}

export function History({ view, span, choose, expected }: Props) {
  return (
    <section aria-label="History">
      <h2>How it did</h2>
      <div class="row" role="group" aria-label="How far back">
        {SPANS.map((one) => (
          <button key={one.seconds} type="button" aria-pressed={one === span} onClick={() => choose(one)}>
            {one.words}
          </button>
        ))}
        <span class="quiet">drag in a chart to zoom, double-click to see all</span>
      </div>
      {view && view.at.length > 0 ? (
        <Charts view={view} span={span} expected={expected} />
      ) : (
        <p class="quiet">{view ? "Nothing is kept of that time yet." : "Asking…"}</p>
      )}
    </section>
  );
}

const cores = (value: number) => percent(value / 10);

function Charts({ view, span, expected }: { view: HistoryView; span: Span; expected: NextHourView | null }) {
  const past = useMemo(() => view.at.map((time) => Date.parse(time) / 1000), [view]);
  // What is expected stands ahead of what was: the next hour, or as much of it as the span leaves room for.
  const at = useMemo(() => {
    const now = past[past.length - 1] ?? 0;
    return expected ? [...past, now + 1, now + Math.min(3600, span.seconds / 6)] : past;
  }, [past, span, expected]);
  const of = (metric: string) => view.metrics.find((one) => one.metric === metric);
  const ahead = (name: string, value: number, filled = false): Line => ({
    name,
    thin: true,
    filled,
    values: at.map((_time, n) => (n < past.length ? null : value)),
  });
  const charts = useMemo(() => {
    const cpu = banded("CPU", of("cpu"), view.step_seconds);
    const traffic = [...line("receives", of("received-bits")), ...line("sends", of("sent-bits"))];
    if (expected) {
      cpu.push(ahead("expected, next hour", expected.cpu_mean_percent * 10), ahead("expected peak", expected.cpu_peak_percent * 10, true));
      traffic.push(ahead("expected, both", expected.mean_bits_per_second), ahead("expected peak", expected.peak_bits_per_second, true));
    }
    return [
      { title: "CPU, percent of a core", lines: cpu, words: cores },
      {
        title: "Packets",
        lines: [...line("receives", of("received-packets")), ...line("sends", of("sent-packets")), ...line("dropped", of("dropped"))],
        words: packets,
      },
      { title: "Traffic", lines: traffic, words: bits },
      { title: "Memory written to, per second", lines: line("writes to", of("dirty")), words: mib },
    ]
      .filter(({ lines }) => lines.length > 0)
      .map((chart) => ({ ...chart, lines: padded(chart.lines, at.length) }));
  }, [view, at, expected]);
  return (
    <div class="charts">
      {charts.map(({ title, lines, words }) => (
        <Chart key={title} title={title} at={at} lines={lines} words={words} summary={summary(lines, words)} />
      ))}
    </div>
  );
}

/** As long as the axis, which goes on beyond what was. */
function padded(lines: Line[], length: number): Line[] {
  return lines.map((one) => ({ ...one, values: [...one.values, ...Array<null>(length - one.values.length).fill(null)] }));
}

function line(name: string, series: Series | undefined): Line[] {
  return series ? [{ name, values: series.mean }] : [];
}

/** Where a point is longer than a second, its most beside its mean. */
function banded(name: string, series: Series | undefined, step: number): Line[] {
  if (!series) return [];
  const most: Line[] = step > 1 ? [{ name: "most", thin: true, values: series.max }] : [];
  return [{ name, values: series.mean }, ...most];
}

function summary(lines: Line[], words: (value: number) => string): string {
  const last = (one: Line) => one.values.findLast((value) => value !== null);
  return lines.map((one) => `${one.name} ${words(last(one) ?? 0)} last`).join(", ");
}
