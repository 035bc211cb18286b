/** Names, and ticks in few words, for tests of the client. */

import type { Gap, Quote, Status, Trade } from 'tickfan-client';

export const A = 'demo:A';
export const B = 'demo:B';

export type Item = Trade | Quote | Gap | Status;

/** In short: what came. */
export const short = (items: readonly Item[]) =>
  items.map((item) => {
    if (item.type === 'gap') return `${item.symbol} ${item.from}-${item.to} ${item.why}`;
    if (item.type === 'status') return `${item.symbol} ${item.state}`;
    return `${item.symbol} ${item.seq}${item.snap ? ' snap' : ''}`;
  });
