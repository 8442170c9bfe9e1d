// Uploads with examples/uppy.html in headless Chromium: node uppy.mjs SERVER FILE. The upload is paused, the page
// reloaded, and the same file chosen again. Prints the results as JSON: {file, pausedAt, resumedAt}.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { Browser, until } from "./browser.mjs";

const modules = process.env.LANDFALL_TEST_NODE_MODULES;
const require = createRequire(`${modules}/`);
const [server, file] = process.argv.slice(2);
const RATE = 50 * 1024 * 1024;

/** The page, with Uppy from this machine. */
async function page() {
  const { outputFiles } = await require("esbuild").build({
    stdin: {
      contents: 'export { default as Uppy } from "@uppy/core"; export { default as Tus } from "@uppy/tus";',
      resolveDir: modules,
    },
    bundle: true,
    format: "esm",
    write: false,
  });
  const example = readFileSync(new URL("../../examples/uppy.html", import.meta.url), "utf8");
  const html = example.replace(/https:[^"]*uppy\.min\.mjs/, "/uppy.mjs");
  if (html === example) throw new Error("the example imports Uppy from elsewhere");
  return createServer((request, response) => {
    const script = request.url === "/uppy.mjs";
    response.setHeader("Content-Type", script ? "text/javascript" : "text/html");
    response.end(script ? outputFiles[0].text : html);
  }).listen(0, "127.0.0.1");
}

const pages = await page();
const browser = await Browser.start();
try {
  const progress = () => browser.run('return document.querySelector("progress")?.value ?? 0');
  const choose = async () => {
    await browser.run('document.getElementById("server").value = arguments[0]', server);
    await browser.type("#files", file);
  };
  await browser.open(`http://127.0.0.1:${pages.address().port}/`);
  await browser.limitUploads(RATE);
  await choose();
  await until("a quarter of the file", async () => (await progress()) > 50 * 1024 * 1024);
  await browser.click("#pause");
  const pausedAt = await progress();
  await browser.reload();
  await choose();
  const resumedAt = await until("going on", progress);
  await browser.limitUploads(0);
  const link = await until("the end", async () => {
    const problem = await browser.run('return document.getElementById("problem").textContent');
    if (problem) throw new Error(problem);
    return browser.run('return document.querySelector("li a")?.href');
  });
  console.log(JSON.stringify({ file: link, pausedAt, resumedAt }));
} finally {
  await browser.stop();
  pages.close();
  pages.closeAllConnections();
}
