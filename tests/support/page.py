"""Checks that a page is well-formed and needs nothing but itself; prints what it found, as JSON."""

import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

with open(sys.argv[1], encoding="utf-8") as file:
    text = file.read()

root = ElementTree.fromstring(text)
allowed = {
    "html head meta title style body header footer section figure figcaption details summary div h1 h2 small p b "
    "code span time ul li table thead tbody tr th td svg line rect polyline polygon text circle"
}
allowed = set(" ".join(allowed).split())
problems = []


class Page(HTMLParser):
    """What HTML, rather than XML, makes of it."""

    tags = 0

    def handle_starttag(self, tag, attrs):
        self.tags += 1
        if tag not in allowed:
            problems.append(f"<{tag}>")
        for name, value in attrs:
            if name.startswith("on") or name in ("src", "href", "srcset", "action", "style", "xlink:href"):
                problems.append(f"<{tag} {name}={value!r}>")


page = Page(convert_charrefs=True)
page.feed(text)
page.close()
style = "".join(element.text for element in root.iter("style"))
problems += re.findall(r"url\(|@import|expression\(", style)
problems += re.findall(r"[a-z]+://\S+", text)
if page.tags != sum(1 for _ in root.iter()):
    problems.append("HTML and XML see different elements")

print(json.dumps({
    "problems": problems,
    "charts": sum(1 for svg in root.iter("svg") if svg.get("role") == "img"),
    "named": all(svg.get("aria-label") for svg in root.iter("svg") if svg.get("role") == "img"),
    "rows": ["".join(head.itertext()) for head in root.iter("th") if head.get("scope") == "row"],
    "titles": ["".join(title.itertext()) for title in root.iter("h2")],
    "dark": "prefers-color-scheme: dark" in style,
}))
