/** The view of the page as the fragment of its URL, so that it can be bookmarked and shared. */

/** The state of the page that the URL contains. */
export interface View {
  symbols: string[];
  chosen: string | undefined;
  /** Name of the sort column, with a leading `-` for descending order; '' for the order of the list. */
  sort: string;
  /** Length of a candle, seconds. */
  span: number;
}

export const SPANS: readonly number[] = [1, 5, 60];
/** Most symbols in a list: a longer list is not readable, and the length of a URL is limited. */
export const SYMBOLS_MAX = 500;
const SYMBOL = /^[a-z0-9_-]{1,32}:[^\s",*\\]{1,64}$/;

/** Parses the part behind `#`. Invalid fields are ignored. */
export function readAddress(hash: string): View {
  const fields = new URLSearchParams(hash.replace(/^#/, ''));
  const symbols = [...new Set((fields.get('s') ?? '').split(',').filter((symbol) => SYMBOL.test(symbol)))].slice(0, SYMBOLS_MAX);
  const chosen = fields.get('c') ?? undefined;
  const sort = /^-?[a-z]{1,10}$/.test(fields.get('sort') ?? '') ? (fields.get('sort') ?? '') : '';
  const span = Number(fields.get('span'));
  return { symbols, chosen: chosen !== undefined && symbols.includes(chosen) ? chosen : symbols[0], sort, span: SPANS.includes(span) ? span : 1 };
}

/** Formats a view as the fragment of the URL, `#` included. */
export function writeAddress({ symbols, chosen, sort, span }: View): string {
  const fields = new URLSearchParams();
  if (symbols.length > 0) fields.set('s', symbols.join(','));
  if (chosen !== undefined) fields.set('c', chosen);
  if (sort !== '') fields.set('sort', sort);
  if (span !== 1) fields.set('span', String(span));
  return `#${fields.toString().replaceAll('%3A', ':').replaceAll('%2C', ',').replaceAll('%2F', '/')}`;
}
