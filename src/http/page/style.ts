/** Colours meet a contrast of 4.5 to 1 on their background, in both themes. */
export const STYLE = `:root {
  color-scheme: light dark;
  --back: #ffffff; --text: #1b1f24; --faint: #59636e; --line: #d1d9e0; --row: #f6f8fa;
  --good: #1a7f37; --warning: #8a5a00; --bad: #c4202b; --now: #1b1f24; --retained: #6e40c9;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #0d1117; --text: #e6edf3; --faint: #9198a1; --line: #3d444d; --row: #151b23;
    --good: #3fb950; --warning: #d29922; --bad: #ff7b72; --now: #e6edf3; --retained: #b392f0;
  }
}
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); }
header { display: flex; flex-wrap: wrap; gap: .3rem 2rem; align-items: baseline; padding: 1rem 1.5rem; }
h1 { margin: 0; font-size: 1.3rem; }
h3 { margin: .5rem 0 .2rem; font-size: .9rem; }
p { margin: .2rem 0; }
#connection, .none { color: var(--faint); }
#connection.lost { color: var(--bad); font-weight: 600; }
form { display: flex; gap: 1rem; align-items: center; }
form[hidden] { display: none; }
input[type=search] { font: inherit; color: inherit; background: var(--row); border: 1px solid var(--line); border-radius: 4px; padding: .15rem .5rem; }
main { padding: 0 1.5rem 2rem; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; }
caption { text-align: left; color: var(--faint); padding-bottom: .3rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .7rem; }
th { font-weight: 500; }
thead th { color: var(--faint); border-bottom: 1px solid var(--line); white-space: nowrap; }
tbody { border-bottom: 1px solid var(--line); content-visibility: auto; }
tbody[hidden] { display: none; }
tbody.bad { background: color-mix(in srgb, var(--bad) 8%, transparent); }
tbody.changed { background: color-mix(in srgb, var(--good) 14%, transparent); }
.more td { padding-top: 0; }
.id { overflow-wrap: anywhere; min-width: 14rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.state { white-space: nowrap; font-weight: 600; }
.good .state, span.good { color: var(--good); }
.warning .state, span.warning { color: var(--warning); }
.bad .state, span.bad, .next b { color: var(--bad); }
.next { border-left: 3px solid var(--bad); padding-left: .6rem; }
time, .bar { white-space: nowrap; }
rect.good { fill: var(--good); } rect.due { fill: var(--warning); } rect.emergency { fill: var(--bad); }
rect.named { fill: var(--good); } rect.retained { fill: var(--retained); } span.retained { color: var(--retained); } span.named { color: var(--good); }
line.now { stroke: var(--now); stroke-width: 2; }
details summary { cursor: pointer; color: var(--faint); width: fit-content; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem; }
ul, ol { margin: 0; padding-left: 1.1rem; }
ol.happenings { list-style: none; padding-left: 0; }
:focus-visible { outline: 2px solid var(--retained); outline-offset: 2px; }
.visually-hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media (prefers-reduced-motion: no-preference) { tbody { transition: background-color .6s; } }
`;
