/** What the page shows is in its address, so that it can be kept and sent. */

/** Everything that the address holds. */
export interface View {
  symbols: string[];
  chosen: string | undefined;
  /** A column, with `-` before it for the largest first; '' for the order of the list. */
  sort: string;
  /** Seconds of a candle. */
  span: number;
}

export const SPANS: readonly number[] = [1, 5, 60];
/** Symbols of one list: more would not be read anyway, and an address has an end. */
export const SYMBOLS_MAX = 500;
const SYMBOL = /^[a-z0-9_-]{1,32}:[^\s",*\\]{1,64}$/;

/** Reads the part behind `#`. What makes no sense is left out. */
export function readAddress(hash: string): View {
  const fields = new URLSearchParams(hash.replace(/^#/, ''));
  const symbols = [...new Set((fields.get('s') ?? '').split(',').filter((symbol) => SYMBOL.test(symbol)))].slice(0, SYMBOLS_MAX);
  const chosen = fields.get('c') ?? undefined;
  const sort = /^-?[a-z]{1,10}$/.test(fields.get('sort') ?? '') ? (fields.get('sort') ?? '') : '';
  const span = Number(fields.get('span'));
  return { symbols, chosen: chosen !== undefined && symbols.includes(chosen) ? chosen : symbols[0], sort, span: SPANS.includes(span) ? span : 1 };
}

/** Writes it. */
export function writeAddress({ symbols, chosen, sort, span }: View): string {
  const fields = new URLSearchParams();
  if (symbols.length > 0) fields.set('s', symbols.join(','));
  if (chosen !== undefined) fields.set('c', chosen);
  if (sort !== '') fields.set('sort', sort);
  if (span !== 1) fields.set('span', String(span));
  return `#${fields.toString().replaceAll('%3A', ':').replaceAll('%2C', ',').replaceAll('%2F', '/')}`;
}
