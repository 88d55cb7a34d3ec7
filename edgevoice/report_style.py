"""Style sheet and script of a report. Nothing in them is fetched from anywhere."""

CSS = """
:root { color-scheme: light dark; --bg:#fbfbfa; --card:#fff; --ink:#1d2126; --soft:#68707a;
  --line:#e3e4e6; --user:#2867c8; --agent:#c25a12; --wait:#d9a514; --think:#8a63c9; --bad:#b3261e; }
@media (prefers-color-scheme: dark) { :root { --bg:#14171a; --card:#1c2024; --ink:#e6e8ea;
  --soft:#98a1ab; --line:#30363c; --user:#6ea3f5; --agent:#ef9150; --wait:#d7b04a; --think:#b697ee;
  --bad:#f2877f; } }
* { box-sizing:border-box; }
body { margin:0; background:var(--bg); color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif; }
main { max-width:1180px; margin:0 auto; padding:28px 20px 60px; }
h1 { font-size:24px; margin:0; } h2 { font-size:17px; margin:34px 0 10px; }
.soft, figcaption { color:var(--soft); }
.card { background:var(--card); border:1px solid var(--line); border-radius:10px;
  padding:14px 18px; margin:12px 0; }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(150px,1fr)); gap:12px;
  margin:18px 0; }
.tiles .card { margin:0; } .tiles b { display:block; font-size:24px; line-height:1.3;
  font-variant-numeric:tabular-nums; }
svg { display:block; width:100%; min-width:700px; height:auto; } .chart { overflow-x:auto; }
svg text { font:11px system-ui,sans-serif; fill:var(--soft); }
svg .lane { font-size:13px; } svg .label { fill:var(--ink); } svg .number { font-weight:600; }
.wave.user { fill:var(--user); } .wave.agent { fill:var(--agent); }
.zero, .tick { stroke:var(--line); }
.mark { stroke:var(--soft); stroke-dasharray:3 3; opacity:.7; }
.mark.start { stroke:var(--ink); stroke-dasharray:none; opacity:1; }
#cursor { stroke:var(--bad); stroke-width:1.5; }
.phase { fill:var(--line); opacity:.85; } .phase.user_speaking { fill:var(--user); }
.phase.endpointing { fill:var(--wait); } .phase.thinking { fill:var(--think); }
.phase.speaking, .phase.held { fill:var(--agent); } .phase.held { opacity:.4; }
.key { display:flex; flex-wrap:wrap; gap:4px 18px; font-size:13px; color:var(--soft);
  margin-top:8px; }
.key i { display:inline-block; width:11px; height:11px; border-radius:3px; margin-right:6px; }
audio { width:100%; margin-top:12px; }
.said { display:grid; grid-template-columns:56px 1fr; gap:2px 10px; margin:0 0 8px; }
.said dt { color:var(--soft); font-size:13px; padding-top:1px; } .said dd { margin:0; }
.unheard { color:var(--soft); text-decoration:line-through; }
.cut { color:var(--bad); font-size:13px; }
.turn header { display:flex; align-items:baseline; gap:10px; margin-bottom:4px; }
.turn h3 { margin:0; font-size:15px; } .turn header span { color:var(--soft); font-size:13px; }
button { font:13px system-ui,sans-serif; color:var(--ink); background:none; cursor:pointer;
  border:1px solid var(--line); border-radius:7px; padding:2px 10px; margin-left:auto; }
.wide { overflow-x:auto; }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums; }
th, td { text-align:right; padding:5px 10px; border-bottom:1px solid var(--line); }
th { font-weight:500; color:var(--soft); font-size:13px; } th:first-child, td:first-child,
.facts td { text-align:left; } tr.sum td { font-weight:600; }
.facts td:first-child { color:var(--soft); width:190px; }
details summary { cursor:pointer; color:var(--soft); margin:10px 0; }
.error { color:var(--bad); }
"""

SCRIPT = """
const audio = document.querySelector('audio'), map = document.getElementById('overview');
if (audio) {
  const cursor = document.getElementById('cursor'), left = +map.dataset.left;
  const total = +map.dataset.ms / 1000, width = map.viewBox.baseVal.width;
  const draw = () => {
    const x = left + Math.min(1, audio.currentTime / total) * (width - left);
    cursor.setAttribute('x1', x); cursor.setAttribute('x2', x);
    if (!audio.paused) requestAnimationFrame(draw);
  };
  for (const name of ['play', 'seeked', 'timeupdate']) audio.addEventListener(name, draw);
  map.style.cursor = 'pointer';
  map.addEventListener('click', event => {
    const box = map.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * width;
    audio.currentTime = Math.max(0, (x - left) / (width - left) * total);
  });
  for (const button of document.querySelectorAll('button[data-s]'))
    button.addEventListener('click', () => {
      audio.currentTime = +button.dataset.s; audio.play();
    });
}
"""
