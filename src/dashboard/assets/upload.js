// Resumable uploads from this window: a few at a time, shown until their events are delivered.
"use strict";
(() => {
  const drop = document.getElementById("drop");
  const list = document.getElementById("uploads");
  const sent = document.getElementById("sent");
  const tally = document.getElementById("tally");
  const pauseAll = document.getElementById("pause-all");
  const clear = document.getElementById("clear");
  if (!drop || !window.tus) return;
  drop.hidden = false;

  // The base path of this server, which need not be the root of its host.
  const base = drop.dataset.endpoint.replace(/\/upload\/tus$/, "");

  // More concurrent uploads would only share the bandwidth.
  const AT_ONCE = 3;
  const POLL_INTERVAL = 1000;
  const rows = [];

  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const bytes = (count) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0;
    while (count >= 1023.5 && unit < units.length - 1) {
      count /= 1024;
      unit += 1;
    }
    return `${unit === 0 || count >= 99.95 ? Math.round(count) : count.toFixed(count < 9.995 ? 2 : 1)} ${units[unit]}`;
  };

  // The word and the colour of each state.
  const WORDS = {
    waiting: ["waiting", "dim"],
    sending: ["sending", "run"],
    paused: ["paused", "warn"],
    broken: ["interrupted", "bad"],
    uploading: ["received", "run"],
    staged: ["staged", "run"],
    finalizing: ["finalizing", "run"],
    stored: ["stored", "ok"],
    announced: ["stored and announced", "ok"],
    untold: ["stored, not announced", "bad"],
    failed: ["failed", "bad"],
    deleted: ["deleted", "dim"],
  };
  const FINAL = ["announced", "untold", "failed", "deleted"];

  const say = (row, state, detail) => {
    row.state = state;
    const [word, tone] = WORDS[state] || [state, "dim"];
    row.badge.className = `state ${tone}`;
    row.badge.textContent = word;
    row.item.dataset.state = state;
    row.detail.textContent = detail || "";
    row.button.hidden = !["waiting", "sending", "paused", "broken"].includes(state);
    row.button.textContent = state === "broken" ? "Try again" : state === "paused" ? "Resume" : "Pause";
    count();
  };

  const count = () => {
    const of = (...states) => rows.filter((row) => states.includes(row.state)).length;
    const parts = [
      [of("waiting", "sending", "paused", "broken"), "to send"],
      [of("uploading", "staged", "finalizing", "stored"), "in progress"],
      [of("announced"), "announced"],
      [of("failed", "untold"), "failed"],
    ];
    const text = parts.filter(([n]) => n).map(([n, word]) => `${n} ${word}`).join(", ");
    if (tally.textContent !== text) tally.textContent = text;
    const busy = of("waiting", "sending") > 0;
    pauseAll.hidden = !busy && !of("paused");
    clear.hidden = !of("announced");
    pauseAll.textContent = busy ? "Pause all" : "Resume all";
  };

  const next = () => {
    const free = AT_ONCE - rows.filter((row) => row.state === "sending").length;
    rows.filter((row) => row.state === "waiting").slice(0, Math.max(free, 0)).forEach(start);
  };

  const start = async (row) => {
    say(row, "sending");
    if (!row.upload.url) {
      const before = await row.upload.findPreviousUploads();
      if (row.state !== "sending") return;
      if (before.length) row.upload.resumeFromPreviousUpload(before[0]);
    }
    row.upload.start();
  };

  const pause = (row) => {
    if (row.state === "sending") row.upload.abort();
    say(row, "paused");
    next();
  };

  const resume = (row) => {
    say(row, "waiting");
    next();
  };

  const add = (file) => {
    const item = element("li");
    const row = { item, file, state: "waiting", id: null };
    row.name = element("bdi", "name", file.name);
    row.badge = element("span", "state");
    row.detail = element("span", "sub");
    row.bar = element("progress");
    row.bar.max = Math.max(file.size, 1);
    row.bar.value = 0;
    row.bar.setAttribute("aria-label", `${file.name}, sent`);
    row.button = element("button", "", "Pause");
    row.button.type = "button";
    row.button.addEventListener("click", () => (["paused", "broken"].includes(row.state) ? resume(row) : pause(row)));
    const head = element("div", "row");
    head.append(row.name, element("span", "sub", bytes(file.size)), row.badge, row.button);
    item.append(head, row.bar, row.detail);
    list.prepend(item);
    row.upload = new tus.Upload(file, {
      endpoint: drop.dataset.endpoint,
      headers: { "X-CSRF-Token": drop.dataset.csrf },
      metadata: { filename: file.name, filetype: file.type },
      retryDelays: [0, 1000, 3000, 5000, 10000, 20000],
      removeFingerprintOnSuccess: true,
      onProgress: (done) => {
        row.bar.value = done;
        if (row.state === "sending") row.detail.textContent = `${bytes(done)} of ${bytes(file.size)}`;
      },
      onSuccess: () => {
        row.id = row.upload.url.split("/").pop();
        row.bar.value = row.bar.max;
        row.bar.hidden = true;
        link(row);
        say(row, "uploading");
        next();
        poll();
      },
      onError: (error) => {
        say(row, "broken", reason(error));
        next();
      },
    });
    rows.push(row);
    say(row, "waiting");
  };

  // The server sends problem documents; anything else is a network error.
  const reason = (error) => {
    const body = error.originalResponse && error.originalResponse.getBody();
    try {
      return JSON.parse(body).detail;
    } catch {
      return error.originalResponse ? `The server responded with ${error.originalResponse.getStatus()}.` : "The server cannot be reached.";
    }
  };

  const link = (row) => {
    if (drop.dataset.links === undefined) return;
    const a = element("a");
    a.href = `${base}/files/${row.id}`;
    row.name.replaceWith(a);
    a.append(row.name);
  };

  let timer;
  const poll = async () => {
    clearTimeout(timer);
    const open = rows.filter((row) => row.id && !FINAL.includes(row.state)).slice(0, 100);
    if (!open.length) return;
    try {
      const response = await fetch(`${base}/upload/states?ids=${open.map((row) => row.id).join(",")}`);
      if (response.ok) {
        const states = new Map((await response.json()).map((state) => [state.id, state]));
        open.forEach((row) => states.has(row.id) && update(row, states.get(row.id)));
      }
    } catch {
      // The server is unreachable; poll again.
    }
    timer = setTimeout(poll, POLL_INTERVAL);
  };

  const update = (row, { status, error, announced, waiting }) => {
    if (status === "failed") say(row, "failed", error);
    else if (status !== "stored") say(row, status);
    else if (announced === "delivered") say(row, "announced");
    else if (announced === "failed") say(row, "untold", "a delivery failed");
    else say(row, "stored", waiting ? `${waiting} ${waiting === 1 ? "endpoint has" : "endpoints have"} not received it yet` : "");
  };

  const addAll = (files) => {
    sent.hidden = false;
    [...files].forEach(add);
    next();
  };

  const choose = document.getElementById("choose");
  choose.addEventListener("change", () => {
    addAll(choose.files);
    choose.value = "";
  });

  // Accept files anywhere on the page: a file dropped elsewhere must not replace the page.
  const over = (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    drop.classList.add("over");
  };
  document.addEventListener("dragenter", over);
  document.addEventListener("dragover", over);
  document.addEventListener("dragleave", (event) => event.relatedTarget || drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    addAll(event.dataTransfer.files);
  });

  pauseAll.addEventListener("click", () => {
    const busy = rows.filter((row) => ["waiting", "sending"].includes(row.state));
    if (busy.length) busy.forEach(pause);
    else rows.filter((row) => row.state === "paused").forEach(resume);
  });

  clear.addEventListener("click", () => {
    rows.filter((row) => row.state === "announced").forEach((row) => {
      row.item.remove();
      rows.splice(rows.indexOf(row), 1);
    });
    sent.hidden = !rows.length;
    count();
  });

  window.addEventListener("beforeunload", (event) => {
    if (rows.some((row) => row.state === "sending")) event.preventDefault();
  });
})();
