import { tmpdir } from "node:os";
import { expect, it } from "vitest";
import { hasBfloat16, readMachine, visibleCards } from "./machine.ts";

it("tells what this machine has", async () => {
  const machine = await readMachine(tmpdir());
  expect(machine.cores).toBeGreaterThan(0);
  expect(machine.memory).toBeGreaterThan(1e8);
  expect(machine.freeMemory).toBeLessThanOrEqual(machine.memory);
  expect(machine.freeDisk).toBeGreaterThan(0);
  expect((await readMachine("/no/such/folder")).freeDisk).toBe(null);
});

it("counts the cards that CUDA_VISIBLE_DEVICES leaves", async () => {
  const read = async (card: string) => (Number(card) < 2 ? { total: 2, free: Number(card) } : null);
  expect(await visibleCards(undefined, read)).toHaveLength(2);
  expect(await visibleCards("1", read)).toEqual([{ total: 2, free: 1 }]);
  expect(await visibleCards("", read)).toEqual([]);
});

it.each([
  ["flags : fpu avx512f avx512_bf16 amx_tile", true],
  ["flags : fpu avx512f", false],
  ["", false],
])("%j computes in bfloat16: %s", (text, has) => {
  expect(hasBfloat16(text)).toBe(has);
});
