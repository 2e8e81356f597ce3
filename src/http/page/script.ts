/**
 * The page's one script. It listens to /events, puts changed rows in their place (open details stay open, focus
 * stays where it was), keeps relative times and the marks for now current, and filters.
 */
export const SCRIPT = `'use strict';
const table = document.querySelector('table');
const summary = document.getElementById('summary');
const connection = document.getElementById('connection');
const announcer = document.getElementById('announcer');
const filter = document.getElementById('filter');
const shown = document.getElementById('shown');
const ahead = Number(document.body.dataset.now) - Date.now();
const units = [['d', 86400000], ['h', 3600000], ['min', 60000], ['s', 1000]];

const rows = () => [...table.tBodies];
const rowOf = (key) => rows().find((row) => row.dataset.key === key);

function relative(ms) {
  const unit = units.find(([, length]) => Math.abs(ms) >= length);
  if (!unit) return 'now';
  const text = Math.floor(Math.abs(ms) / unit[1]) + ' ' + unit[0];
  return ms > 0 ? 'in ' + text : text + ' ago';
}

function tick() {
  const now = Date.now() + ahead;
  for (const time of document.querySelectorAll('time')) {
    const text = relative(Date.parse(time.dateTime) - now);
    if (time.textContent !== text) time.textContent = text;
  }
  for (const bar of document.querySelectorAll('svg.bar')) {
    const { start, end } = bar.dataset;
    const x = Math.min(1, Math.max(0, (now - start) / (end - start))) * bar.viewBox.baseVal.width;
    const mark = bar.querySelector('.now');
    mark.setAttribute('x1', x.toFixed(1));
    mark.setAttribute('x2', x.toFixed(1));
  }
}

function parse(markup) {
  const holder = document.createElement('table');
  holder.innerHTML = markup;
  return holder.tBodies[0];
}

function place(key, markup, first) {
  const row = parse(markup);
  const old = rowOf(key);
  if (old) {
    const open = old.querySelector('details')?.open;
    const focused = old.contains(document.activeElement) && document.activeElement.tagName;
    row.querySelector('details').open = open;
    old.replaceWith(row);
    if (focused === 'SUMMARY') row.querySelector('summary').focus();
  } else {
    table.insertBefore(row, rows().find((other) => other.dataset.key > key) ?? null);
  }
  if (first) return;
  row.classList.add('changed');
  setTimeout(() => row.classList.remove('changed'), 1500);
}

function apply() {
  const text = filter.text.value.trim().toLowerCase();
  let count = 0;
  for (const row of rows()) {
    const fits = row.textContent.toLowerCase().includes(text) && !(filter.problems.checked && row.classList.contains('good'));
    row.hidden = !fits;
    if (fits) count += 1;
  }
  shown.textContent = count + ' of ' + rows().length + ' shown';
}

function listen() {
  const stream = new EventSource('events?view=page');
  let first = true;
  stream.addEventListener('open', () => {
    first = true;
    connection.textContent = 'Live';
    connection.classList.remove('lost');
  });
  stream.addEventListener('error', () => {
    connection.textContent = 'Connection lost, trying again; what you see is as it was then';
    connection.classList.add('lost');
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  });
  stream.addEventListener('status', (event) => {
    const message = JSON.parse(event.data);
    if (first) {
      const present = new Set(message.rows.map(([key]) => key));
      for (const row of rows()) if (!present.has(row.dataset.key)) row.remove();
    }
    for (const [key, markup] of message.rows) place(key, markup, first);
    for (const key of message.removed) rowOf(key)?.remove();
    summary.innerHTML = message.summary;
    document.getElementById('empty')?.toggleAttribute('hidden', rows().length > 0);
    if (!first && message.rows.length > 0) {
      announcer.textContent = message.rows.slice(0, 3).map(([key]) => key + ': ' + rowOf(key).querySelector('.state').textContent.trim()).join(', ');
    }
    first = false;
    apply();
    tick();
  });
}

filter.hidden = false;
filter.addEventListener('input', apply);
filter.addEventListener('submit', (event) => event.preventDefault());
apply();
tick();
setInterval(tick, 1000);
listen();
`;
