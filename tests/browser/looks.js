// Texts too faint for what is behind them: WCAG's contrast below 4.5.
(() => {
  const parts = (colour) => colour.match(/[\d.]+/g).map(Number);
  const linear = (part) => (part <= 10.3 ? part / 3294.6 : ((part / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (one) => {
    for (let at = one; at; at = at.parentElement) {
      const found = parts(getComputedStyle(at).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const ratio = (one) => {
    const [low, high] = [light(parts(getComputedStyle(one).color)), light(behind(one))].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const written = [...document.querySelectorAll("body *")].filter(
    (one) => one.checkVisibility() && !one.disabled && [...one.childNodes].some((it) => it.nodeType === 3 && it.data.trim()),
  );
  return { read: written.length, faint: written.filter((one) => ratio(one) < 4.5).map((one) => one.outerHTML) };
})();
