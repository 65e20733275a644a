import { mulberry32, shuffledIndices } from "@hone/core";

/** One match: gives the winner of the two, in the order in which they are to be shown. */
export type PlayMatch = (first: number, second: number) => Promise<number>;

/**
 * A single-elimination tournament among `entrants`, its bracket and the order within each pair drawn from the seed.
 * The matches of a round are played at the same time. Gives by entrant the share of the rounds that it survived: 1 for
 * the winner, 0 for who lost at once. Where a round has an odd number, the last of it goes on without a match.
 */
export async function tournament(
  entrants: number,
  seed: number,
  play: PlayMatch,
): Promise<{ scores: number[]; matches: number }> {
  const random = mulberry32(seed);
  const survived = Array.from({ length: entrants }, () => 0);
  let alive = shuffledIndices(entrants, random);
  let [rounds, matches] = [0, 0];
  while (alive.length > 1) {
    const pairs: [number, number][] = [];
    for (let at = 0; at + 1 < alive.length; at += 2) {
      const pair: [number, number] = [alive[at] as number, alive[at + 1] as number];
      pairs.push(random() < 0.5 ? pair : [pair[1], pair[0]]);
    }
    const winners = await Promise.all(pairs.map(async ([a, b]) => await play(a, b)));
    alive = [...winners, ...(alive.length % 2 === 1 ? [alive.at(-1) as number] : [])];
    for (const winner of alive) survived[winner] = (survived[winner] ?? 0) + 1;
    rounds += 1;
    matches += pairs.length;
  }
  return { scores: survived.map((count) => (rounds > 0 ? count / rounds : 0)), matches };
}
