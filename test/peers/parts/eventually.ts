/** Polls until it holds; fails with the log of the process that should have made it so. */
export async function eventually(
  what: string,
  holds: () => Promise<boolean>,
  log: () => string = () => '',
  deadlineMs = 60_000,
): Promise<void> {
  for (const deadline = Date.now() + deadlineMs; Date.now() < deadline; ) {
    if (await holds().catch(() => false)) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${what} did not come within ${deadlineMs} ms\n${log().slice(-6_000)}`);
}
