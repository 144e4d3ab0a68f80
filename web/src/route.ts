// Which page is shown, by what follows the `#` of the address: `#/vm/web1`.
import { signal } from "./signal";

export interface Route {
  page: string;
  /** What the page is about, if it is about one thing. */
  about: string;
  query: URLSearchParams;
}

function read(): Route {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [page = "", ...about] = path.split("/");
  return { page: page || "cluster", about: decodeURIComponent(about.join("/")), query: new URLSearchParams(query) };
}

export const route = signal<Route>(read());
addEventListener("hashchange", () => {
  route.value = read();
});

export const link = {
  host: (name: string) => `#/host/${encodeURIComponent(name)}`,
  vm: (id: string) => `#/vm/${encodeURIComponent(id)}`,
  move: (id: string, host: string) => `#/move/${encodeURIComponent(id)}?host=${encodeURIComponent(host)}`,
};

export function go(to: string): void {
  location.hash = to;
}
