/** The bar of a replay: where the recording stands, and what may be done with it. It is not there where nothing is replayed. */

import { RequestError, type Client, type Replay } from 'tickfan-client';

/** Speeds to choose from; 0 is as fast as it goes. */
const SPEEDS: readonly number[] = [0.1, 0.5, 1, 2, 5, 10, 100, 0];
const speedText = (speed: number) => (speed === 0 ? 'flat out' : `${speed} ×`);

/** A time of the recording, with its day or without. */
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
  /** Somebody holds the slider: it is not moved under the finger. */
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

  /** Where it is, microseconds; undefined where there is none, or nobody knows. */
  get us(): number | undefined {
    return this.#status?.position;
  }

  /** It goes on when it is told to, from the beginning where it has ended. */
  get #stands(): boolean {
    return this.#status?.state === 'paused' || this.#status?.state === 'ended';
  }

  /** The gateway has told where it stands. */
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
    // A key moves it by a thousandth.
    this.#slider.step = String(Math.max(1, Math.floor((to - from) / 1000)));
    this.#slider.value = String(position);
    this.#showTime(position);
  }

  /** The link is lost: nobody knows where it stands, and nobody can be asked. */
  lost(): void {
    this.#controls.disabled = true;
    this.#isHeld = false;
  }

  /** Another connection, which has told of no replay yet. */
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

  /** What the gateway refuses is shown; what it takes, it tells of by itself. */
  #ask(request: () => Promise<void>): void {
    request().then(
      () => {
        this.#told.textContent = '';
      },
      (error: unknown) => {
        this.#told.textContent = error instanceof Error ? error.message : String(error);
        const code = error instanceof RequestError ? error.code : '';
        if (code === 'unauthorised') this.#token.hidden = false;
        // No token would help.
        if (code === 'forbidden') this.#token.hidden = true;
        if (this.#status !== undefined) this.show(this.#status);
      },
    );
  }
}
