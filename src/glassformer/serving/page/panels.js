// The views that have a tab, in their order: the title, and the function that draws a document into a panel.

import { draw as drawAttention } from "./attention.js";
import { draw as drawLens } from "./lens.js";
import { draw as drawPatching } from "./patching.js";
import { draw as drawPositions } from "./positions.js";
import { draw as drawTruth } from "./truth.js";
import { draw as drawWalk } from "./walk.js";

export const VIEWS = {
  attention: { title: "Attention", draw: drawAttention },
  positions: { title: "Positions", draw: drawPositions },
  lens: { title: "Lens", draw: drawLens },
  patching: { title: "Patching", draw: drawPatching },
  truth: { title: "Truth", draw: drawTruth },
  walk: { title: "Walk", draw: drawWalk },
};
