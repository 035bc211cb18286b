/** The bar that shows and controls a replay. It is hidden without a replay. */

import { RequestError, type Client, type Replay } from 'tickfan-client';

/** Selectable speeds; 0 is as fast as possible. */
const SPEEDS: readonly number[] = [0.1, 0.5, 1, 2, 5, 10, 100, 0];
const speedText = (speed: number) => (speed === 0 ? 'flat out' : `${speed} ×`);

/** A time of the recording, with or without its date. */
function timeText(us: number, hasDay: boolean): string {
  const text = new Date(us / 1000).toISOString().slice(0, 21).replace('T', ' ');
  return hasDay ? text : text.slice(11);
}

const DAY_US = 86_400_000_000;

export class ReplayBar {
  readonly #bar: HTMLElement;
  readonly #controls: HTMLFieldSetElement;
  readonly #play: HTMLButtonElement;
  readonly #slider: HTMLInputElement;
  readonly #when: HTMLElement;
  readonly #speed: HTMLSelectElement;
  readonly #loop: HTMLButtonElement;
  readonly #token: HTMLInputElement;
  readonly #told: HTMLElement;
  #status: Replay | undefined;
  /** Whether the user is dragging the slider, which then must not be moved. */
  #isHeld = false;

  constructor(bar: HTMLElement, { replay }: Client) {
    this.#bar = bar;
    const find = <T extends HTMLElement>(id: string) => bar.querySelector(`#${id}`) as T;
    [this.#controls, this.#play, this.#slider, this.#when] = [find('controls'), find('play'), find('position'), find('when')];
    [this.#speed, this.#loop, this.#token, this.#told] = [find('speed'), find('loop'), find('token'), find('told')];
    for (const speed of SPEEDS) this.#speed.append(new Option(speedText(speed), String(speed)));
    this.#play.addEventListener('click', () => this.#ask(() => (this.#stands ? replay.resume() : replay.pause())));
    find('step').addEventListener('click', () => this.#ask(() => replay.step()));
    this.#speed.addEventListener('change', () => this.#ask(() => replay.speed(Number(this.#speed.value))));
    this.#loop.addEventListener('click', () => this.#ask(() => replay.loop(this.#status?.loop !== true)));
    this.#slider.addEventListener('input', () => {
      this.#isHeld = true;
      this.#showTime(Number(this.#slider.value));
    });
    this.#slider.addEventListener('change', () => {
      this.#isHeld = false;
      this.#ask(() => replay.seek(Number(this.#slider.value)));
    });
    this.#token.addEventListener('change', () => {
      replay.token = this.#token.value;
    });
  }

  /** Position of the replay, microseconds; undefined without a replay or if unknown. */
  get us(): number | undefined {
    return this.#status?.position;
  }

  /** Whether it can be resumed: from its position, or from the beginning if it has ended. */
  get #stands(): boolean {
    return this.#status?.state === 'paused' || this.#status?.state === 'ended';
  }

  /** Shows the status that the gateway has sent. */
  show(status: Replay): void {
    this.#status = status;
    const { state, position, from, to, speed, loop } = status;
    this.#bar.hidden = false;
    this.#controls.disabled = false;
    this.#bar.dataset['state'] = state;
    this.#play.textContent = this.#stands ? 'play' : 'pause';
    this.#loop.setAttribute('aria-pressed', String(loop));
    this.#speed.querySelector('[data-odd]')?.remove();
    if (!SPEEDS.includes(speed)) {
      const odd = new Option(speedText(speed), String(speed));
      odd.dataset['odd'] = '';
      this.#speed.append(odd);
    }
    this.#speed.value = String(speed);
    if (this.#isHeld) return;
    this.#slider.min = String(from);
    this.#slider.max = String(Math.max(to, position));
    // A key moves the slider by a thousandth.
    this.#slider.step = String(Math.max(1, Math.floor((to - from) / 1000)));
    this.#slider.value = String(position);
    this.#showTime(position);
  }

  /** The link is lost: the position is unknown, and commands are not possible. */
  lost(): void {
    this.#controls.disabled = true;
    this.#isHeld = false;
  }

  /** A new connection, which has not reported a replay yet. */
  hide(): void {
    this.#status = undefined;
    this.#bar.hidden = this.#token.hidden = true;
    this.#told.textContent = '';
  }

  #showTime(us: number): void {
    const { from = us, to = us, state = '' } = this.#status ?? {};
    const hasDays = Math.floor(from / DAY_US) !== Math.floor(to / DAY_US);
    const text = `${timeText(us, true)} of ${timeText(to, hasDays)}, ${state}`;
    this.#when.textContent = text;
    this.#slider.setAttribute('aria-valuetext', text);
  }

  /** Sends a command. A rejection is shown; on success the gateway sends the new status. */
  #ask(request: () => Promise<void>): void {
    request().then(
      () => {
        this.#told.textContent = '';
      },
      (error: unknown) => {
        this.#told.textContent = error instanceof Error ? error.message : String(error);
        const code = error instanceof RequestError ? error.code : '';
        if (code === 'unauthorised') this.#token.hidden = false;
        // A token would not help.
        if (code === 'forbidden') this.#token.hidden = true;
        if (this.#status !== undefined) this.show(this.#status);
      },
    );
  }
}
