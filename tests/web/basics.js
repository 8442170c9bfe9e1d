// Checks the accessibility of a page: names, structure and contrast. Returns what is wrong.

const wrong = [];
const shown = (element) => element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
const told = (element) => `<${element.tagName.toLowerCase()}> ${(element.innerText || element.name || "").slice(0, 40)}`;

if (document.documentElement.lang !== "en") wrong.push("the page has no language");
if (!document.title) wrong.push("the page has no title");
if (document.querySelectorAll("h1").length !== 1) wrong.push("the page has not one heading");
if (document.querySelectorAll("main").length !== 1) wrong.push("the page has not one main part");
for (const image of document.querySelectorAll("img, svg")) {
  const said = image.hasAttribute("alt") || image.ariaLabel || image.ariaHidden === "true" || image.querySelector("title");
  if (!said && !image.closest("[aria-hidden=true]")) wrong.push(`an image says nothing: ${image.outerHTML.slice(0, 80)}`);
}
for (const control of document.querySelectorAll("a, button, summary, select, textarea, input:not([type=hidden])")) {
  const name = control.innerText || control.textContent || control.ariaLabel || control.labels?.length;
  if (!name) wrong.push(`a control has no name: ${control.outerHTML.slice(0, 80)}`);
}
for (const heading of document.querySelectorAll("th")) {
  if (!heading.scope) wrong.push(`a heading of a table has no scope: ${heading.innerText}`);
}
const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
if (new Set(ids).size !== ids.length) wrong.push("two elements have one id");

// Colours in any notation, as the browser renders them (WCAG 2.2, "Relative luminance", "Contrast ratio").
const pixel = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
const paint = (colours) => {
  pixel.clearRect(0, 0, 1, 1);
  for (const colour of colours) {
    pixel.fillStyle = colour;
    pixel.fillRect(0, 0, 1, 1);
  }
  return [...pixel.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
const luminance = (colour) => {
  const [red, green, blue] = colour.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const contrast = (one, other) => {
  const [less, more] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (more + 0.05) / (less + 0.05);
};
// The browser's own background in the page's theme.
const probe = document.body.appendChild(document.createElement("i"));
probe.style.backgroundColor = "Canvas";
const bottom = getComputedStyle(probe).backgroundColor;
probe.remove();
const under = (element) => {
  const layers = [];
  for (let at = element; at; at = at.parentElement) layers.unshift(getComputedStyle(at).backgroundColor);
  return [bottom, ...layers];
};

const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let seen = 0;
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || !shown(element) || element.closest("script, style")) continue;
  const style = getComputedStyle(element);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  const colour = element instanceof SVGElement ? style.fill : style.color;
  const ground = under(element);
  const ratio = contrast(paint([...ground, colour]), paint(ground));
  seen += 1;
  if (ratio < (large ? 3 : 4.5)) {
    wrong.push(`${told(element)} has a contrast of ${ratio.toFixed(2)}: ${colour} on ${ground.at(-1)}`);
  }
}
if (seen < 5) wrong.push(`only ${seen} texts were looked at`);
return wrong.slice(0, 10);
