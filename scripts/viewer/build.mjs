// Bundles scene.mjs with three.js into the package: `npm ci && npm run build` in this folder (Node 20 or newer).
// The result is committed, so that users of pip need no node. `npm run build -- --check` only says whether it is current.

import { copyFileSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const assets = here("../../bodyreg/assets/viewer/");
const { version } = JSON.parse(readFileSync(here("node_modules/three/package.json"), "utf8"));

const { outputFiles } = await build({
  entryPoints: [here("scene.mjs")],
  bundle: true,
  format: "iife",
  globalName: "BodyregScene",
  minify: true,
  target: "es2021",
  charset: "ascii",
  legalComments: "none",
  banner: { js: `/* three.js ${version}, MIT licence, see three.LICENSE; bundled by scripts/viewer/build.mjs */` },
  outfile: assets + "scene.js",
  write: !process.argv.includes("--check"),
});
if (outputFiles) {
  const current = Buffer.from(outputFiles[0].contents).equals(readFileSync(assets + "scene.js"));
  console.log(current ? "scene.js is current" : "scene.js is not what scene.mjs gives: run `npm run build`");
  process.exitCode = current ? 0 : 1;
} else {
  copyFileSync(here("node_modules/three/LICENSE"), assets + "three.LICENSE");
}
