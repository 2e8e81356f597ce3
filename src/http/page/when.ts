import { type Html, html } from './html.ts';

const UNITS = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['min', 60_000],
  ['s', 1000],
] as const;

/** `in 5 h`, `3 d ago`, `now`: the largest unit that fits, as the page's script words it too. */
export function relative(ms: number): string {
  const size = Math.abs(ms);
  const unit = UNITS.find(([, length]) => size >= length);
  if (!unit) return 'now';
  const text = `${Math.floor(size / unit[1])} ${unit[0]}`;
  return ms > 0 ? `in ${text}` : `${text} ago`;
}

/** A time as an element that the script keeps current; its title is the exact time. */
export function when(time: string, now: number): Html {
  return html`<time datetime="${time}" title="${time}">${relative(Date.parse(time) - now)}</time>`;
}
