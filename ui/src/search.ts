/** Search for symbols of all venues, to add them. */

import type { Client, SymbolRow } from 'tickfan-client';

/** Most symbols that are offered. */
const OFFERED = 12;
/** Milliseconds for which a list of symbols is valid. */
const GOOD_MS = 10_000;
/** A symbol with its venue. */
const FULL = /^[a-z0-9_-]{1,32}:[^\s",*\\]{1,64}$/;

export class Search {
  readonly #input: HTMLInputElement;
  readonly #list: HTMLElement;
  readonly #says: HTMLElement;
  readonly #client: Client;
  readonly #add: (symbol: string) => void;
  #symbols: readonly SymbolRow[] = [];
  #askedMs = -GOOD_MS;
  #offered: string[] = [];
  #at = 0;

  /** @param says element for the reason why nothing is offered or added. */
  constructor(client: Client, input: HTMLInputElement, list: HTMLElement, says: HTMLElement, add: (symbol: string) => void) {
    [this.#client, this.#input, this.#list, this.#says, this.#add] = [client, input, list, says, add];
    input.addEventListener('focus', () => void this.#refresh());
    input.addEventListener('input', () => void this.#refresh().then(() => this.say(this.#whyNone())));
    input.addEventListener('blur', () => this.#hide());
    input.addEventListener('keydown', (event) => this.#key(event));
  }

  async #refresh(): Promise<void> {
    if (performance.now() - this.#askedMs > GOOD_MS) {
      this.#askedMs = performance.now();
      try {
        this.#symbols = await this.#client.symbols('*');
      } catch {
        // The last known list is offered; the status strip shows that the link is down.
        this.#askedMs = -GOOD_MS;
      }
    }
    this.#offer();
  }

  #offer(): void {
    const words = this.#input.value.toLowerCase().split(/\s+/);
    const fits = ({ symbol }: SymbolRow) => words.every((word) => symbol.toLowerCase().includes(word));
    this.#offered = this.#symbols.filter(fits).slice(0, OFFERED).map(({ symbol }) => symbol);
    this.#at = 0;
    this.#show();
  }

  /** Shows a message about the search or an added symbol; '' for none. */
  say(text: string): void {
    this.#says.textContent = text;
  }

  get #typed(): string {
    return this.#input.value.trim();
  }

  #whyNone(): string {
    if (this.#offered.length > 0 || this.#typed === '') return '';
    if (this.#symbols.length === 0) return this.#client.isOpen ? 'The gateway lists no symbol yet.' : 'There is no connection to the gateway.';
    const hint = FULL.test(this.#typed) ? ' Enter asks the gateway for it.' : '';
    return `No symbol that the gateway lists has “${this.#typed}” in it.${hint}`;
  }

  #show(): void {
    this.#list.replaceChildren(
      ...this.#offered.map((symbol, i) => {
        const item = document.createElement('li');
        item.setAttribute('role', 'option');
        item.setAttribute('aria-selected', String(i === this.#at));
        item.textContent = symbol;
        // Before the input loses the focus, which would hide the list.
        item.addEventListener('pointerdown', (event) => {
          event.preventDefault();
          this.#take(symbol);
        });
        return item;
      }),
    );
    this.#list.hidden = this.#offered.length === 0;
    this.#input.setAttribute('aria-expanded', String(!this.#list.hidden));
  }

  #hide(): void {
    this.#offered = [];
    this.#show();
  }

  #key(event: KeyboardEvent): void {
    const { key } = event;
    // The gateway may accept a symbol without data, and reports it if not.
    const symbol = this.#offered[this.#at] ?? (FULL.test(this.#typed) ? this.#typed : undefined);
    if (key === 'ArrowDown' || key === 'ArrowUp') {
      this.#at = Math.min(Math.max(0, this.#at + (key === 'ArrowDown' ? 1 : -1)), Math.max(0, this.#offered.length - 1));
      this.#show();
    } else if (key === 'Enter' && symbol !== undefined) {
      this.#take(symbol);
    } else if (key === 'Escape') {
      this.#input.blur();
    } else {
      return;
    }
    event.preventDefault();
  }

  #take(symbol: string): void {
    this.#input.value = '';
    this.say('');
    this.#add(symbol);
    this.#offer();
  }
}
