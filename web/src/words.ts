// Figures and times in words, and what a load is called.

/** 1234567 → "1.2 M". */
function scaled(value: number, step: number, units: string[]): string {
  let figure = value;
  let unit = 0;
  while (figure >= step && unit < units.length - 1) {
    figure /= step;
    unit += 1;
  }
  const digits = unit === 0 || figure >= 100 ? 0 : 1;
  return `${figure.toFixed(digits)} ${units[unit] ?? ""}`.trim();
}

export const packets = (value: number) => `${scaled(value, 1000, ["", "k", "M"])} pkt/s`;
export const bits = (value: number) => scaled(value, 1000, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"]);
export const mib = (value: number) => scaled(value, 1024, ["MiB", "GiB", "TiB"]);
export const bytes = (value: number) => scaled(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
export const percent = (value: number) => `${value >= 10 ? value.toFixed(0) : value.toFixed(1)} %`;
export const milliseconds = (value: number) => (value < 1000 ? `${value} ms` : `${(value / 1000).toFixed(1)} s`);

export function age(seconds: number): string {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129_600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });

/** An RFC 3339 time as this person's clock shows it; with the day if it is not today's. */
export function clock(time: string): string {
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return time;
  const today = at.toDateString() === new Date().toDateString();
  return today ? CLOCK.format(at) : `${DAY.format(at)} ${CLOCK.format(at)}`;
}

export const count = (n: number, one: string, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

/** How busy a VM is, by percent of one core: in four steps, which have a sign each beside their colour. */
export function load(cpuPercent: number): 0 | 1 | 2 | 3 {
  if (cpuPercent >= 80) return 3;
  if (cpuPercent >= 40) return 2;
  return cpuPercent >= 10 ? 1 : 0;
}

/** "usage-history" → "usage history". */
export const plain = (word: string) => word.replaceAll("-", " ");
