// Headless Chromium over the WebDriver protocol (W3C, "WebDriver").

import { spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";

const ELEMENT = "element-6066-11e4-a52e-4f735466cecf";
const SOON = 60_000;

/** Calls `look` until it returns something, and returns that; fails after a minute. */
export async function until(what, look) {
  const deadline = Date.now() + SOON;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await sleep(10);
  }
}

export class Browser {
  #driver;
  #session;

  static async start() {
    const browser = new Browser();
    const driver = spawn(process.env.LANDFALL_TEST_CHROMEDRIVER ?? "chromedriver", ["--port=0"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    browser.#driver = driver;
    // Stop the driver and its browser however this process ends.
    process.on("exit", () => driver.kill());
    const port = await new Promise((resolve, reject) => {
      let said = "";
      driver.stdout.on("data", (text) => {
        said += text;
        const found = said.match(/successfully on port (\d+)/);
        if (found) resolve(found[1]);
      });
      driver.on("error", reject);
      driver.on("exit", () => reject(new Error(`chromedriver ended: ${said}`)));
    });
    browser.#session = `http://127.0.0.1:${port}`;
    const args = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
    const binary = process.env.LANDFALL_TEST_CHROMIUM;
    const { sessionId } = await browser.call("POST", "/session", {
      capabilities: { alwaysMatch: { "goog:chromeOptions": { args, ...(binary && { binary }) } } },
    });
    browser.#session += `/session/${sessionId}`;
    return browser;
  }

  async call(method, path, body) {
    const answer = await fetch(this.#session + path, { method, body: body && JSON.stringify(body) });
    const { value } = await answer.json();
    if (!answer.ok) throw new Error(`${method} ${path}: ${value.error}: ${value.message}`);
    return value;
  }

  open = (url) => this.call("POST", "/url", { url });
  reload = () => this.call("POST", "/refresh", {});
  run = (script, ...args) => this.call("POST", "/execute/sync", { script, args });

  async #element(selector) {
    const found = await this.call("POST", "/element", { using: "css selector", value: selector });
    return `/element/${found[ELEMENT]}`;
  }

  click = async (selector) => this.call("POST", `${await this.#element(selector)}/click`, {});
  type = async (selector, text) =>
    this.call("POST", `${await this.#element(selector)}/value`, { text });

  /** In bytes per second; 0 removes the limit. */
  limitUploads = (rate) =>
    this.call("POST", "/goog/cdp/execute", {
      cmd: "Network.emulateNetworkConditions",
      params: {
        offline: false,
        latency: 0,
        downloadThroughput: -1,
        uploadThroughput: rate || -1,
      },
    });

  async stop() {
    await this.call("DELETE", "").catch(() => {});
    if (this.#driver.exitCode === null) {
      const ended = once(this.#driver, "exit");
      this.#driver.kill();
      await ended;
    }
  }
}
