// A chart over time: drag to zoom, double-click to see all again; the figures under the pointer stand in its legend.
import { useEffect, useMemo, useRef } from "preact/hooks";
import uPlot from "uplot";
import { clock } from "../words";
import "uplot/dist/uPlot.min.css";

export interface Line {
  name: string;
  /** Drawn thin and dashed: a bound or a forecast. */
  thin?: boolean;
  /** The room between it and the line before is filled. */
  filled?: boolean;
  values: (number | null)[];
}

interface Props {
  title: string;
  /** Seconds since 1970. */
  at: number[];
  lines: Line[];
  words: (value: number) => string;
  /** In words, for whoever does not see the chart. */
  summary: string;
}

const HEIGHT = 180;
const INKS = ["--ink-1", "--ink-2", "--ink-3", "--ink-4"];

function ink(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim() || "gray";
}

const CLOCKS: [number, Intl.DateTimeFormat][] = [
  [1800, new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" })],
  [2 * 86_400, new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" })],
  [Infinity, new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" })],
];

/** Times on an axis: no finer than its length asks for. */
function times(_chart: uPlot, ticks: number[]): string[] {
  const length = (ticks[ticks.length - 1] ?? 0) - (ticks[0] ?? 0);
  const format = CLOCKS.find(([most]) => length <= most)?.[1];
  return ticks.map((tick) => format?.format(tick * 1000) ?? "");
}

function options({ lines, words }: Props, width: number): uPlot.Options {
  const quiet = ink("--quiet");
  const axis = { stroke: quiet, grid: { stroke: ink("--line"), width: 1 }, ticks: { stroke: ink("--line"), width: 1 } };
  return {
    width,
    height: HEIGHT,
    scales: { y: { range: (_chart, _least, most) => [0, Math.max(2, most * 1.1)] } },
    axes: [{ ...axis, values: times, space: 90 }, { ...axis, size: 84, values: (_chart, ticks) => ticks.map((tick) => words(tick)) }],
    series: [
      { label: "at", value: (_chart: uPlot, at: number | null) => (at === null ? "–" : clock(new Date(at * 1000).toISOString())) },
      ...lines.map((line, n) => ({
        label: line.name,
        stroke: ink(INKS[n % INKS.length] ?? "--ink-1"),
        width: line.thin ? 1 : 2,
        ...(line.thin ? { dash: [4, 4] } : {}),
        value: (_chart: uPlot, value: number | null) => (value === null ? "–" : words(value)),
      })),
    ],
    bands: lines.flatMap((line, n) => (line.filled ? [{ series: [n + 1, n] as [number, number], fill: `${ink(INKS[n % INKS.length] ?? "--ink-1")}40` }] : [])),
    cursor: { drag: { x: true, y: false } },
  };
}

export function Chart(props: Props) {
  const place = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | null>(null);
  const names = useMemo(() => props.lines.map((line) => line.name).join(), [props.lines]);
  useEffect(() => {
    const within = place.current;
    if (!within) return;
    const draw = () => {
      chart.current?.destroy();
      chart.current = new uPlot(options(props, within.clientWidth), data(props), within);
    };
    draw();
    const resized = new ResizeObserver(() => chart.current?.setSize({ width: within.clientWidth, height: HEIGHT }));
    resized.observe(within);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", draw);
    return () => {
      resized.disconnect();
      dark.removeEventListener("change", draw);
      chart.current?.destroy();
      chart.current = null;
    };
  }, [names]);
  // What came anew is drawn without losing the zoom.
  useEffect(() => {
    const drawn = chart.current;
    if (!drawn) return;
    const all = drawn.data[0];
    const { min, max } = drawn.scales.x ?? {};
    const zoomed = min != null && max != null && (min > (all[0] ?? min) || max < (all[all.length - 1] ?? max));
    drawn.setData(data(props), !zoomed);
    if (zoomed) drawn.setScale("x", { min, max });
  }, [props.at, props.lines]);
  return (
    <figure class="chart">
      <figcaption>{props.title}</figcaption>
      <div ref={place} role="img" aria-label={`${props.title}: ${props.summary}`} />
    </figure>
  );
}

function data({ at, lines }: Props): uPlot.AlignedData {
  return [at, ...lines.map((line) => line.values)];
}
