/** `make bench-page`: what a frame costs with 300 symbols and 5,000 updates a second, as the page and the browser measure it. */

import { Loaded } from './load.js';

const SECONDS = Number(process.env['TICKFAN_BENCH_SECONDS'] ?? 60);
const [symbols, rate] = [300, 5000];

const percentiles = (values: readonly number[]) => {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (part: number) => (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0).toFixed(1).padStart(8);
  return [at(0.5), at(0.95), at(0.99), at(1)].join('');
};

const loaded = await Loaded.start(undefined, { symbols, rate });
const wait = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
// The tape fills up, and the engine warms up.
await wait(10);
const before = await loaded.counted();
await loaded.frames();
const begin = performance.now();
const heaps: number[] = [];
let [frames, messages]: [Awaited<ReturnType<Loaded['frames']>>['frames'], number] = [[], 0];
for (let left = SECONDS; left > 0; left -= 5) {
  await wait(Math.min(5, left));
  const part = await loaded.frames();
  [frames, messages] = [[...frames, ...part.frames], messages + part.messages];
  heaps.push((await loaded.counted()).JSHeapUsedSize);
}
const seconds = (performance.now() - begin) / 1000;
const after = await loaded.counted();
const perFrame = (name: 'ScriptDuration' | 'LayoutDuration' | 'RecalcStyleDuration' | 'TaskDuration') =>
  ((1000 * (after[name] - before[name])) / frames.length).toFixed(2);
const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(1);
console.log(`${(await loaded.page.send('Browser.getVersion')).product}, headless, drawing by software; ${symbols} symbols, ${rate} ticks a second, ${seconds.toFixed(0)} s
${(messages / seconds).toFixed(0)} messages a second were read, in ${(frames.length / seconds).toFixed(1)} frames a second; lag ${await loaded.text('lag')}, merged ${await loaded.text('merged')}, dropped ${await loaded.text('dropped')}, broken ${await loaded.text('broken')}

ms, of each frame                     p50     p95     p99     max
between two frames               ${percentiles(frames.map(({ interval }) => interval))}
messages read since the last     ${percentiles(frames.map(({ messages }) => messages))}
animation callbacks              ${percentiles(frames.map(({ script }) => script))}
the two together                 ${percentiles(frames.map(({ messages, script }) => messages + script))}
callbacks to the end of paint    ${percentiles(frames.map(({ whole }) => whole))}

mean ms a frame that the main thread ran, as the browser counts: script ${perFrame('ScriptDuration')}, style ${perFrame('RecalcStyleDuration')}, layout ${perFrame('LayoutDuration')}, all tasks ${perFrame('TaskDuration')}
heap behind a collection, MiB: ${mib(before.JSHeapUsedSize)} at the start, then ${heaps.map(mib).join(' ')}; nodes ${before.Nodes}, then ${after.Nodes}`);
process.exit();
