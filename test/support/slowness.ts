/** How slow the machine is, for bounds on time that would otherwise be bounds on machines. */

const rounds = 5;
/** What the work below takes, in the best of the rounds, where the bounds were set, ms. */
const referenceMs = 3;
/** No machine on which anybody runs tests is slower than this. */
const slownessMax = 8;

/** How many times as long as there a piece of work takes here at this moment: 1 where it takes no longer. */
export function slowness(): number {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < rounds; round++) {
    const started = performance.now();
    const cpu = process.cpuUsage();
    work();
    const { user, system } = process.cpuUsage(cpu);
    // Without what the machine gave to others meanwhile.
    best = Math.min(best, performance.now() - started, (user + system) / 1000);
  }
  return Math.min(slownessMax, Math.max(1, best / referenceMs));
}

/** Some of what answering requests takes: parsing, text, maps, sorting, garbage. */
function work(): number {
  const items = Array.from({ length: 3000 }, (_, index) => ({
    name: `n${(index * 7919) % 3000}`,
    values: [index, `${index}`],
  }));
  const parsed = JSON.parse(JSON.stringify(items)) as typeof items;
  const byName = new Map(parsed.map((item) => [item.name, item]));
  return [...byName.keys()].sort().filter((name) => /^n\d*7/.test(name)).length;
}
