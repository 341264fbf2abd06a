"""What a reader and a browser find on an HTML page."""

import re
import subprocess
from html.parser import HTMLParser

from helpers.chromium import OPTIONS, find_chromium


class Page(HTMLParser):
    """What the tests ask of a page: its tags with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def section_of(path, name):
    page = path.read_text()
    start = page.index(f'<section aria-labelledby="{name}">')
    return page[start : page.index("</section>", start)]


def title_after_sorting(page, column):
    """What a headless Chromium finds after a click on a column of the first table: sorted names, broken, loaded."""
    # It writes what the page then looks like into its title, where --dump-dom shows it.
    probe = f"""<script>
      addEventListener("error", event => document.title = "error " + event.message);
      addEventListener("load", () => {{
        const table = document.querySelector("table.sortable");
        table.querySelectorAll("th button")[{column}].click();
        const order = [...table.querySelectorAll("tbody th")].map(cell => cell.textContent);
        const broken = [...document.images].filter(image => !image.complete || !image.naturalWidth).length;
        const loaded = performance.getEntriesByType("resource").filter(entry => !entry.name.startsWith("data:")).length;
        document.title = ["sorted", order.join(","), broken, loaded].join(" ");
      }});
    </script></head>"""
    (page.parent / "probe.html").write_text(page.read_text().replace("</head>", probe))
    return re.search("<title>(.*?)</title>", dump_dom(page.parent / "probe.html"))[1]


# Elements whose content is wider than they are, or which reach over the edge of their parent, and texts of a figure
# that reach over its edge. A cell is measured by its content; a hidden element has no width.
WIDER_THAN_ITS_CONTAINER = """(() => {
  for (const element of document.querySelectorAll("details")) element.open = true;
  const found = [], page = document.scrollingElement;
  const name = (element, by) => found.push(
    `${element.tagName.toLowerCase()}.${element.getAttribute("class") ?? ""} (${by.toFixed(0)} px): ` +
    element.textContent.trim().slice(0, 40));
  if (page.scrollWidth > innerWidth) name(page, page.scrollWidth - innerWidth);
  for (const element of document.body.querySelectorAll("*")) {
    const box = element.getBoundingClientRect();
    if (!box.width || element.closest("script, style")) continue;
    if (element.ownerSVGElement) {
      const edge = element.ownerSVGElement.getBoundingClientRect();
      if (box.right > edge.right + 1 || box.left < edge.left - 1) name(element, box.right - edge.right);
      continue;
    }
    const edge = element.parentElement.getBoundingClientRect();
    if (box.right > edge.right + 1) name(element, box.right - edge.right);
    else if (element.clientWidth && element.scrollWidth > element.clientWidth + 1)
      name(element, element.scrollWidth - element.clientWidth);
    else if (getComputedStyle(element).overflowY == "hidden" && element.scrollHeight > element.clientHeight + 1)
      name(element, element.scrollHeight - element.clientHeight);
  }
  return found;
})()"""

# Texts whose contrast with what is behind them is below 4.5 (WCAG 2.2, level AA), or 3 if they are large; without those
# of figures. A colour counts as mixed with those behind it.
TOO_FAINT = """(() => {
  const parse = text => {
    const [, kind, inside] = text.match(/^(color|rgba?)\\(([^)]*)\\)/);
    const numbers = inside.replace("srgb", "").split(/[ ,/]+/).filter(Boolean).map(Number);
    const scale = kind == "color" ? 255 : 1;
    return [...numbers.slice(0, 3).map(number => number * scale), numbers[3] ?? 1];
  };
  const over = (front, back) => back.map((value, at) => front[at] * front[3] + value * (1 - front[3]));
  const behind = element => {
    const own = parse(getComputedStyle(element).backgroundColor);
    return over(own, element.parentElement ? behind(element.parentElement) : [255, 255, 255]);
  };
  const luminance = colour => {
    const [r, g, b] = colour.map(value => value / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const found = [];
  for (const element of document.body.querySelectorAll(":not(svg *, script, style)")) {
    const text = [...element.childNodes].filter(node => node.nodeType == 3).map(node => node.data).join("").trim();
    const style = getComputedStyle(element), size = parseFloat(style.fontSize);
    if (!text || !element.getClientRects().length || size < 2) continue;
    const back = behind(element), front = over(parse(style.color), back);
    const [low, high] = [luminance(front), luminance(back)].sort((a, b) => a - b);
    const ratio = (high + .05) / (low + .05);
    if (ratio < (size >= 24 || size >= 18.6 && style.fontWeight >= 700 ? 3 : 4.5))
      found.push(`${element.tagName.toLowerCase()} (${ratio.toFixed(2)}): ${text.slice(0, 40)}`);
  }
  return found;
})()"""


def dump_dom(page):
    """The document as a headless Chromium has it after loading."""
    done = subprocess.run(
        [find_chromium(), *OPTIONS, f"--user-data-dir={page.parent / 'profile'}", "--dump-dom", f"file://{page}"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return done.stdout
