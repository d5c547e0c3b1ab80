// The texts that hardly stand out from what is behind them; true where all do.
(() => {
  const parts = (color) => color.match(/[\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = color.map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const color = parts(getComputedStyle(e).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const has_text = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || e.matches("input, select");
  const faint = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() && has_text(e)).filter((e) => {
    const [one, other] = [light(parts(getComputedStyle(e).color).slice(0, 3)), light(ground(e))];
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05) < 4.5;
  });
  return faint.length ? faint.map((e) => e.outerHTML.slice(0, 100)).join("\n") : true;
})()
