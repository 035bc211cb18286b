/** The last trades of the selected symbol, the newest first. A gap is shown at its place. */

import type { Gap, Trade } from 'tickfan-client';
import { TAPE_MAX } from './market.js';

const time = (us: number) => new Date(us / 1000).toISOString().slice(11, 23);

/** Height of a row. */
const ROW_REM = 1.6;

export class Tape {
  readonly #body: HTMLElement;
  /** Number of rows that its height allows for. */
  #rows = 0;
  #waiting: { readonly item: Trade | Gap; readonly us: number }[] = [];

  constructor(body: HTMLElement) {
    this.#body = body;
  }

  /** @param us time of the trade; a gap has none. */
  add(item: Trade | Gap, us = 0): void {
    this.#waiting.push({ item, us });
    // A row that would be pushed out before it is seen is not drawn.
    if (this.#waiting.length > TAPE_MAX) this.#waiting.shift();
  }

  clear(): void {
    this.#waiting = [];
    this.#body.replaceChildren();
    this.#fit();
  }

  draw(): void {
    if (this.#waiting.length === 0) return;
    for (const { item, us } of this.#waiting) {
      const full = this.#body.childElementCount >= TAPE_MAX ? this.#body.lastElementChild : null;
      const row = full ?? this.#empty();
      const cells = row.children;
      const texts =
        item.type === 'gap'
          ? ['', `${item.to - item.from + 1} missing`, item.why, '']
          : [time(us), item.price, item.size, item.side === 'buy' ? '▲ buy' : item.side === 'sell' ? '▼ sell' : ''];
      texts.forEach((text, i) => {
        const cell = cells[i];
        if (cell?.firstChild instanceof Text) cell.firstChild.data = text;
      });
      row.className = item.type === 'gap' ? 'gap' : (item.side ?? '');
      this.#body.prepend(row);
    }
    this.#waiting = [];
    this.#fit();
  }

  #fit(): void {
    const rows = this.#body.childElementCount;
    if (rows === this.#rows) return;
    this.#rows = rows;
    this.#body.style.height = rows === 0 ? '' : `${rows * ROW_REM}rem`;
  }

  #empty(): HTMLElement {
    const row = document.createElement('tr');
    // Its CSS display is not that of a table, so that its role must be set.
    row.setAttribute('role', 'row');
    for (const name of ['', 'n', 'n', '']) {
      const cell = document.createElement('td');
      cell.setAttribute('role', 'cell');
      cell.className = name;
      cell.append('');
      row.append(cell);
    }
    return row;
  }
}
