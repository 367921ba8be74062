// Colours: a diverging scale for weights, and one colour a configuration.

const darkQuery = matchMedia("(prefers-color-scheme: dark)");

// Negative, zero, positive; the middle is close to the stage, so that zero weights recede.
const DIVERGING = {
  light: ["#0b2a6b", "#2f6bd0", "#9dc0ee", "#f4f5f6", "#f2b48c", "#d2552a", "#6e1606"],
  dark: ["#c3dbff", "#5b9bf5", "#23538f", "#14171c", "#87452a", "#ee8a4e", "#ffe1c4"],
};
const CONFIGURATIONS = {
  light: ["#2f6bd0", "#d9782b", "#2a9171", "#a7519f", "#c9a712", "#c43c4e", "#5f6fd6", "#5c8f2e"],
  dark: ["#6ea2ff", "#f29a57", "#45c59c", "#d082c8", "#e3c648", "#f0717f", "#9aa5ff", "#92c95c"],
};
const REST = { light: "#8b93a0", dark: "#7d8694" };
const FIELDS = {
  light: ["#6b7686", "#a7519f", "#c9a712", "#5f6fd6", "#d9782b", "#d5dae1", "#2a9171"],
  dark: ["#8b95a5", "#d082c8", "#e3c648", "#9aa5ff", "#f29a57", "#333b46", "#45c59c"],
};

const theme = () => (darkQuery.matches ? "dark" : "light");

function rgb(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

// 256 colours as RGBA words for an ImageData, from most negative to most positive.
function divergingTable() {
  const stops = DIVERGING[theme()].map(rgb);
  const table = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    const place = (i / 255) * (stops.length - 1);
    const at = Math.min(stops.length - 2, Math.floor(place));
    const [r, g, b] = stops[at].map((c, k) => Math.round(c + (stops[at + 1][k] - c) * (place - at)));
    table[i] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
  return table;
}

// Index into the diverging table of a value on ±limit.
function shade(value, limit) {
  return Math.max(0, Math.min(255, Math.round((value / limit + 1) * 127.5)));
}

function cssOf(word) {
  return `rgb(${word & 255} ${(word >> 8) & 255} ${(word >> 16) & 255})`;
}

function configurationColour(index) {
  return CONFIGURATIONS[theme()][index] ?? REST[theme()];
}
