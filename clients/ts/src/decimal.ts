/**
 * Exact comparison and subtraction of decimal text. Prices are never converted to floats to determine a sign or a
 * colour.
 */

import type { Decimal } from './messages.js';

const FORM = /^(-?)([0-9]+)(?:\.([0-9]+))?$/;

/** An integer multiple of 10^-scale. */
interface Scaled {
  readonly digits: bigint;
  readonly scale: number;
}

function scaled(text: Decimal): Scaled {
  const [, sign, whole, fraction = ''] = FORM.exec(text) ?? [];
  if (whole === undefined) throw new RangeError(`not a decimal: ${JSON.stringify(String(text).slice(0, 40))}`);
  const digits = BigInt(whole + fraction);
  return { digits: sign === '-' ? -digits : digits, scale: fraction.length };
}

function aligned(a: Decimal, b: Decimal): [bigint, bigint, number] {
  const [x, y] = [scaled(a), scaled(b)];
  const scale = Math.max(x.scale, y.scale);
  const widen = ({ digits, scale: own }: Scaled) => digits * 10n ** BigInt(scale - own);
  return [widen(x), widen(y), scale];
}

/**
 * Compares two decimals: below 0, 0 or above 0 if `a` is less than, equal to or greater than `b`. `1.50` equals `1.5`.
 *
 * @throws RangeError if one of them is not a decimal.
 */
export function compareDecimal(a: Decimal, b: Decimal): -1 | 0 | 1 {
  const [x, y] = aligned(a, b);
  return x < y ? -1 : x > y ? 1 : 0;
}

/**
 * `a − b`, exact, with as many decimals as the longer of the two has.
 *
 * @throws RangeError if one of them is not a decimal.
 */
export function subtractDecimal(a: Decimal, b: Decimal): Decimal {
  const [x, y, scale] = aligned(a, b);
  const difference = x - y;
  const text = (difference < 0n ? -difference : difference).toString().padStart(scale + 1, '0');
  const whole = text.slice(0, text.length - scale);
  return `${difference < 0n ? '-' : ''}${whole}${scale > 0 ? `.${text.slice(-scale)}` : ''}`;
}
