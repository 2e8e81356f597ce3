/*
 * The script of the status page. It listens to /events, replaces the rows that changed (open details stay open, focus stays
 * where it was), keeps relative times and the marks for now current, and filters and sorts. Filter and order are part of
 * the address, so that they survive a reload and can be shared.
 */
const list = document.getElementById('rows');
const summary = document.getElementById('summary');
const problems = document.getElementById('problems');
const connection = document.getElementById('connection');
const announcer = document.getElementById('announcer');
const filter = document.getElementById('filter');
const shown = document.getElementById('shown');
const ahead = Number(document.body.dataset.now) - Date.now();
const units = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['min', 60_000],
  ['s', 1000],
];
const orders = {
  problems: (a, b) => a.dataset.rank - b.dataset.rank || compare(a.dataset.state, b.dataset.state) || byName(a, b),
  expiry: (a, b) => (a.dataset.expires || 0) - (b.dataset.expires || 0) || byName(a, b),
  name: byName,
};

function compare(a, b) {
  return a < b ? -1 : a > b ? 1 : 0;
}

function byName(a, b) {
  return compare(a.dataset.key, b.dataset.key);
}

/** Each row by its key, and the text that the filter searches. */
const rows = new Map();
const texts = new WeakMap();

function know(row) {
  rows.set(row.dataset.key, row);
  texts.set(row, row.textContent.toLowerCase());
}

function relative(ms) {
  const unit = units.find(([, length]) => Math.abs(ms) >= length);
  if (!unit) return 'now';
  const text = `${Math.floor(Math.abs(ms) / unit[1])} ${unit[0]}`;
  return ms > 0 ? `in ${text}` : `${text} ago`;
}

function tick() {
  const now = Date.now() + ahead;
  for (const time of document.querySelectorAll('summary time, details[open] time')) {
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

function put(key, markup, first) {
  const holder = document.createElement('ul');
  holder.innerHTML = markup;
  const row = holder.firstElementChild;
  const old = rows.get(key);
  know(row);
  if (old) {
    row.querySelector('details').open = old.querySelector('details').open;
    const focused = old.contains(document.activeElement);
    old.replaceWith(row);
    if (focused) row.querySelector('summary').focus();
  } else {
    list.append(row);
  }
  if (first) return;
  row.classList.add('changed');
  setTimeout(() => row.classList.remove('changed'), 1500);
}

function remove(key) {
  rows.get(key)?.remove();
  rows.delete(key);
}

function sort() {
  const present = [...list.children];
  const wanted = present.toSorted(orders[filter.sort.value] ?? orders.problems);
  if (wanted.every((row, index) => row === present[index])) return;
  const focused = document.activeElement;
  list.append(...wanted);
  if (list.contains(focused)) focused.focus();
}

function apply() {
  sort();
  const text = filter.text.value.trim().toLowerCase();
  let count = 0;
  for (const row of list.children) {
    const fits = texts.get(row).includes(text) && !(filter.problems.checked && row.classList.contains('good'));
    row.hidden = !fits;
    if (fits) count += 1;
  }
  shown.textContent = `${count} of ${list.children.length} shown`;
}

function remember() {
  const query = new URLSearchParams();
  if (filter.text.value) query.set('filter', filter.text.value);
  if (filter.problems.checked) query.set('problems', '1');
  if (filter.sort.value !== 'problems') query.set('sort', filter.sort.value);
  history.replaceState(null, '', query.size > 0 ? `?${query}` : location.pathname);
}

function recall() {
  const query = new URLSearchParams(location.search);
  filter.text.value = query.get('filter') ?? '';
  filter.problems.checked = query.get('problems') === '1';
  filter.sort.value = query.get('sort') in orders ? query.get('sort') : 'problems';
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
    connection.textContent = 'Connection lost. The page shows the last known state and reconnects by itself.';
    connection.classList.add('lost');
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  });
  stream.addEventListener('status', (event) => {
    const message = JSON.parse(event.data);
    if (first) {
      const present = new Set(message.rows.map(([key]) => key));
      for (const key of [...rows.keys()]) if (!present.has(key)) remove(key);
    }
    for (const [key, markup] of message.rows) put(key, markup, first);
    for (const key of message.removed) remove(key);
    summary.innerHTML = message.summary;
    problems.innerHTML = message.problems;
    document.getElementById('empty')?.toggleAttribute('hidden', list.children.length > 0);
    if (!first && message.rows.length > 0) {
      const changes = message.rows.slice(0, 3).map(([key]) => {
        return `${key}: ${rows.get(key).querySelector('.state').textContent.trim()}`;
      });
      announcer.textContent = changes.join(', ');
    }
    first = false;
    apply();
    tick();
  });
}

for (const row of list.children) know(row);
filter.hidden = false;
filter.addEventListener('input', () => {
  remember();
  apply();
});
filter.addEventListener('submit', (event) => event.preventDefault());
recall();
apply();
tick();
setInterval(tick, 1000);
listen();
