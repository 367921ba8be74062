"""Drives a page of `compress-model view` in headless Chromium: python3 view_page.py PAGE.html

Checks that nothing is requested or logged, that pointing at a block and clicking it work, that
every layer is drawn, and that a GPU whose texels are shown has none that differ. Prints one JSON
object; exit code 1 if something is wrong. --screenshots PREFIX keeps an image of each size and
colour scheme; --gl uses Mesa's OpenGL ES for WebGPU, which decodes ASTC in software; --browser says
which Chromium.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

GL = [
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=opengles",
    "--use-gl=angle",
    "--use-angle=gl-egl",
    "--ignore-gpu-blocklist",
]
SIZES = [("wide", 1440, 900, "light"), ("narrow", 390, 844, "light"), ("dark", 1440, 900, "dark")]


def wait_for_decoder(page):
    """The text of the badge once the GPU has been asked."""
    for _ in range(100):
        text = page.locator("#path").text_content()
        if "checking" not in text and text != "decoding":
            return text
        page.wait_for_timeout(250)
    raise TimeoutError("the page is still decoding")


def colours(page):
    """How many colours the image has."""
    return page.evaluate(
        """() => {
          const canvas = document.getElementById("matrix");
          const copy = new OffscreenCanvas(canvas.width, canvas.height);
          const context = copy.getContext("2d", { willReadFrequently: true });
          context.drawImage(canvas, 0, 0);
          const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
          return new Set(new Uint32Array(data.buffer)).size;
        }"""
    )


def drive(page):
    """Uses the page as a person would; returns what is wrong."""
    faults = []
    box = page.locator("#matrix").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    zoom = page.locator("#zoom").text_content()
    for _ in range(4):
        page.mouse.wheel(0, -200)
    page.wait_for_timeout(200)
    if page.locator("#zoom").text_content() == zoom:
        faults.append("the wheel does not zoom")
    page.mouse.move(middle[0] + 2, middle[1] + 2)
    if page.locator("#block .hex").count() != 1:
        faults.append("pointing shows no block")
    page.mouse.click(*middle)
    if "pinned" not in page.locator("#block-state").text_content():
        faults.append("a click does not pin")
    for button in page.locator("#layers button").all_text_contents():
        page.locator("#layers button", has_text=button).click()
        page.wait_for_timeout(100)
        if page.locator("#missing").is_hidden() and colours(page) < 30:
            faults.append(f"the layer {button} is empty")
    before = colours(page)
    page.check("#configurations")
    page.wait_for_timeout(100)
    if colours(page) == before:
        faults.append("configurations are not coloured")
    page.uncheck("#configurations")
    page.locator("#table tbody tr").first.click()
    if page.locator("#table tr.chosen").count() != 1:
        faults.append("no configuration can be chosen")
    page.locator("#table tbody tr").first.click()
    page.locator("#layers button").first.click()
    page.focus("#matrix")
    page.keyboard.press("Escape")
    page.keyboard.press("0")
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("--screenshots", metavar="PREFIX")
    parser.add_argument("--gl", action="store_true")
    parser.add_argument("--browser", default="/usr/bin/chromium")
    args = parser.parse_args()
    env = dict(os.environ, LIBGL_ALWAYS_SOFTWARE="1", EGL_PLATFORM="surfaceless")
    report = {"decoders": {}, "faults": []}
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", *(GL if args.gl else [])]
        browser = playwright.chromium.launch(executable_path=args.browser, args=flags, env=env)
        for name, width, height, scheme in SIZES:
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            page = context.new_page()
            faults = []
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("dialog", lambda dialog: (faults.append("a dialog"), dialog.dismiss()))
            page.on("request", lambda request: faults.append(request.url) if request.url.startswith("http") else None)
            # Chromium itself warns where it has no adapter.
            page.on("console", lambda line: None if "adapter" in line.text else faults.append(line.text))
            page.goto(args.page.resolve().as_uri())
            for tensor in range(page.locator("#tensor option").count()):
                page.select_option("#tensor", str(tensor))
                page.wait_for_timeout(50)
                decoder = wait_for_decoder(page)
                report["decoders"][decoder] = report["decoders"].get(decoder, 0) + 1
            faults += drive(page)
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                faults.append("the page is wider than the window")
            if args.screenshots:
                page.screenshot(path=f"{args.screenshots}-{name}.png", full_page=True)
            report["faults"] += [f"{name}: {fault}" for fault in faults]
            context.close()
        browser.close()
    print(json.dumps(report, indent=2))
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
