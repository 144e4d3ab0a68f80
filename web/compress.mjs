// Packs what was built, and holds the script against its limit.
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const SITE = "dist/site";
const SCRIPT_KIB_MAX = 200;
const assets = readdirSync(join(SITE, "assets")).map((name) => join(SITE, "assets", name));
let script = 0;
for (const file of [join(SITE, "index.html"), ...assets]) {
  const plain = readFileSync(file);
  const packed = gzipSync(plain, { level: 9 });
  if (packed.length < plain.length) writeFileSync(`${file}.gz`, packed);
  if (file.endsWith(".js")) script += packed.length;
  console.log(`${file}: ${plain.length} bytes, ${packed.length} by gzip`);
}
if (script > SCRIPT_KIB_MAX * 1024) {
  console.error(`the script has ${Math.ceil(script / 1024)} KiB by gzip; ${SCRIPT_KIB_MAX} are the most`);
  process.exit(1);
}
