// A value that components look at, and are drawn anew when it is set.
import { useEffect, useState } from "preact/hooks";

export interface Signal<T> {
  value: T;
  follow(on: () => void): () => void;
}

export function signal<T>(first: T): Signal<T> {
  let value = first;
  const followers = new Set<() => void>();
  return {
    get value() {
      return value;
    },
    set value(next: T) {
      if (Object.is(next, value)) return;
      value = next;
      followers.forEach((follower) => follower());
    },
    follow(on) {
      followers.add(on);
      return () => followers.delete(on);
    },
  };
}

/** Its value, now and whenever it is set. */
export function use<T>(of: Signal<T>): T {
  const [, draw] = useState(0);
  useEffect(() => of.follow(() => draw((n) => n + 1)), [of]);
  return of.value;
}
