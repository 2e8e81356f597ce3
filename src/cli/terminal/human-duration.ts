const UNITS = [
  ['y', 365 * 86_400_000],
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
] as const;

/** `17h`, `2d4h`, `4m30s`, `9y364d`: two units if the first is below ten, like the ages in kubectl. */
export function humanDuration(ms: number): string {
  const index = UNITS.findIndex(([, length]) => ms >= length);
  const unit = UNITS[index];
  if (!unit) return '0s';
  const count = Math.floor(ms / unit[1]);
  const next = UNITS[index + 1];
  const rest = next && count < 10 ? Math.floor((ms % unit[1]) / next[1]) : 0;
  return `${count}${unit[0]}${rest > 0 && next ? `${rest}${next[0]}` : ''}`;
}
