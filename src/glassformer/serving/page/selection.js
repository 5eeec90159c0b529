// The token that every panel looks at. There are two sides: "text" (of an encoder-decoder, its source) and "target"
// (what an encoder-decoder writes). A panel calls `choose`, and marks what it is told by `follow`, never choosing.

import { clamp } from "./elements.js";

// `first`: the places to begin with, or null for the last token of a side.
export function makeSelection(first = { text: null, target: null }) {
  const places = { text: 0, target: 0 };
  const counts = { text: 0, target: 0 };
  const followers = [];

  function choose(side, place) {
    if (places[side] === place) return;
    places[side] = place;
    for (const follow of followers) follow(side, place);
  }

  return {
    place: (side) => places[side],
    choose,
    follow: (listener) => followers.push(listener),
    // How many tokens a side has: the first time it is said, the place to begin with is chosen.
    count(side, count) {
      if (counts[side] === 0) places[side] = clamp(first[side] ?? count - 1, count - 1);
      counts[side] = Math.max(counts[side], count);
    },
    step(by) {
      const side = counts.target ? "target" : "text";
      choose(side, clamp(places[side] + by, counts[side] - 1));
    },
  };
}
