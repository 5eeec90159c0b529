// Equations as MathML, in one expression: equation(id("q"), op("="), fraction(num(1), root(id("d")))).

const MATH = "http://www.w3.org/1998/Math/MathML";

function part(tag, children) {
  const element = document.createElementNS(MATH, tag);
  element.append(...children);
  return element;
}

export const id = (name) => part("mi", [name]);
export const num = (value) => part("mn", [String(value)]);
export const op = (sign) => part("mo", [sign]);
export const words = (text) => part("mtext", [text]);
export const row = (...parts) => part("mrow", parts);
export const sub = (base, below) => part("msub", [base, below]);
export const sup = (base, above) => part("msup", [base, above]);
export const subsup = (base, below, above) => part("msubsup", [base, below, above]);
export const fraction = (above, below) => part("mfrac", [above, below]);
export const root = (inner) => part("msqrt", [inner]);
export const sum = (below, inner) => row(part("munder", [op("∑"), below]), inner);

export function equation(...parts) {
  const element = part("math", [row(...parts)]);
  element.setAttribute("display", "block");
  return element;
}
