// The token that every panel looks at. There are two sides: "text" (of an encoder-decoder, its source) and "target"
// (what an encoder-decoder writes). A panel calls `choose`, and marks what it is told by `follow`, never choosing.

import { clamp } from "./elements.js";

// `first`: the places to begin with, or null for the last token of a side. `chosen` is told of each choice.
export function makeSelection(first = { text: null, target: null }, chosen = () => {}) {
  const places = { text: 0, target: 0 };
  const counts = { text: 0, target: 0 };
  const untouched = { text: true, target: true };
  const followers = [];

  function move(side, place) {
    if (places[side] === place) return;
    places[side] = place;
    for (const follow of followers) follow(side, place);
  }

  function choose(side, place) {
    untouched[side] = false;
    move(side, place);
    chosen(side, place);
  }

  return {
    place: (side) => places[side],
    choose,
    follow: (listener) => followers.push(listener),
    // How many tokens a side has. Until one is chosen, the place to begin with is that of the longest: of two models,
    // whichever comes first.
    count(side, count) {
      if (count <= counts[side]) return;
      counts[side] = count;
      if (untouched[side]) move(side, clamp(first[side] ?? count - 1, count - 1));
    },
    step(by) {
      const side = counts.target ? "target" : "text";
      choose(side, clamp(places[side] + by, counts[side] - 1));
    },
  };
}
