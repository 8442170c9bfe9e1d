// Keyboard shortcuts, and the notice about a lost stream. Every page works without this script.
"use strict";
(() => {
  const search = document.getElementById("search");
  const keys = document.getElementById("keys");
  const lost = document.getElementById("live");

  // The stream sends an update at least once per second; otherwise the connection is lost or the server hangs.
  const STREAM_TIMEOUT = 5000;
  let timer;
  const heard = () => {
    clearTimeout(timer);
    if (!lost) return;
    lost.hidden = true;
    timer = setTimeout(() => {
      if (document.hidden) heard();
      else lost.hidden = false;
    }, STREAM_TIMEOUT);
  };
  if (lost) {
    document.addEventListener("htmx:sse:after:message", heard);
    document.addEventListener("visibilitychange", heard);
    heard();
  }

  const typing = (element) => element.matches("input, select, textarea, [contenteditable]");

  // The first link of each row; rows without a link are skipped.
  const rows = () =>
    [...document.querySelectorAll("main tbody tr")]
      .map((row) => row.querySelector("a[href]"))
      .filter((link) => link);

  const move = (by) => {
    const links = rows();
    if (!links.length) return false;
    const row = document.activeElement.closest("tbody tr");
    const here = row ? links.findIndex((link) => row.contains(link)) : -1;
    const there = here < 0 ? (by > 0 ? 0 : links.length - 1) : here + by;
    const link = links[Math.min(Math.max(there, 0), links.length - 1)];
    link.focus();
    link.closest("tr").scrollIntoView({ block: "nearest" });
    return true;
  };

  // Outside of lists, the arrow keys scroll the page as usual.
  const inList = () => !!document.activeElement.closest("main .scroll");

  let going = false;
  const go = (key) => {
    const link = document.querySelector(`header nav a[data-key="${CSS.escape(key)}"]`);
    if (link) link.click();
    return !!link;
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && event.target === search) return search.blur();
    if (typing(event.target) || (keys && keys.open)) return;
    let done = true;
    if (going && go(event.key)) going = false;
    else if (event.key === "/" && search) search.focus();
    else if (event.key === "?" && keys) keys.showModal();
    else if (event.key === "j" || (event.key === "ArrowDown" && inList())) done = move(1);
    else if (event.key === "k" || (event.key === "ArrowUp" && inList())) done = move(-1);
    else {
      going = event.key === "g";
      done = going;
      if (going) setTimeout(() => (going = false), 1500);
    }
    if (done) event.preventDefault();
  });
})();
