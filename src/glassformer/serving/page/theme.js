// Light, dark, or as the system has it; what was chosen is kept where the browser allows it.

const CHOICES = { "": "as the system", light: "light", dark: "dark" };
const KEY = "glassformer-theme";

export function themes(button) {
  let chosen = kept();

  function apply() {
    if (chosen) document.documentElement.dataset.theme = chosen;
    else delete document.documentElement.dataset.theme;
    button.textContent = `Theme: ${CHOICES[chosen]}`;
  }

  button.addEventListener("click", () => {
    const names = Object.keys(CHOICES);
    chosen = names[(names.indexOf(chosen) + 1) % names.length];
    keep(chosen);
    apply();
  });
  apply();
}

function kept() {
  try {
    const found = localStorage.getItem(KEY);
    return found in CHOICES ? found : "";
  } catch {
    return ""; // a file that was opened from a folder may have no storage
  }
}

function keep(choice) {
  try {
    localStorage.setItem(KEY, choice);
  } catch {
    // it holds until the page is closed
  }
}
