/** The page in a real browser: Chromium, driven from here, and watched for what a page must not do. */

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core';
import { keep, repository } from '../../../clients/ts/test/gateway.js';

/** The browser's program. */
export const CHROMIUM = process.env['TICKFAN_CHROMIUM'] ?? '/usr/bin/chromium';
/** `dist`: the page as `npm run build` left it, instead of the one in the gateway. For work on the page. */
const FROM_FOLDER = process.env['TICKFAN_PAGE'] === 'dist';

export const DESKTOP = { viewport: { width: 1440, height: 900 } };
export const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

/** What a row says, by the names of its columns; what is not shown is not there. */
export type Cells = Readonly<Record<string, string>>;

let browser: Promise<Browser> | undefined;

/** One for all tests; its pages share nothing. */
export function theBrowser(): Promise<Browser> {
  browser ??= chromium.launch({
    executablePath: CHROMIUM,
    // A container's /dev/shm may be small.
    // A page that comes from here and not from the gateway is a stranger that may not talk to this machine.
    args: ['--disable-dev-shm-usage', ...(FROM_FOLDER ? ['--disable-features=LocalNetworkAccessChecks'] : [])],
  });
  return browser;
}

/** After the last test. */
export async function closeBrowser(): Promise<void> {
  await (await browser)?.close();
}

/** The page as somebody looks at it. */
export class Screen {
  /** What the console was told as an error or warning, and what was thrown. */
  readonly complaints: string[] = [];
  /** Requests to another host than the gateway's. */
  readonly foreign: string[] = [];

  private constructor(readonly page: Page) {}

  /**
   * Opens the page of this gateway; it is closed when the test is over.
   *
   * @param hash the part of the address behind `#`.
   * @param inPage runs in the page before anything of it does.
   */
  static async open(t: TestContext, address: string, hash = '', looks: BrowserContextOptions = DESKTOP, inPage?: () => void): Promise<Screen> {
    const context = keep(t, await (await theBrowser()).newContext(looks));
    const screen = new Screen(await context.newPage());
    const { page } = screen;
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) screen.complaints.push(message.text());
    });
    page.on('pageerror', (error) => screen.complaints.push(String(error)));
    const own = (url: string) => new URL(url).host === address || url.startsWith('data:');
    page.on('request', (request) => own(request.url()) || screen.foreign.push(request.url()));
    page.on('websocket', (socket) => own(socket.url()) || screen.foreign.push(socket.url()));
    if (FROM_FOLDER) await fromFolder(page, address);
    if (inPage !== undefined) await page.addInitScript(inPage);
    await page.goto(`http://${address}/${hash}`);
    return screen;
  }

  /** The symbols of the list, from above. */
  symbols(): Promise<string[]> {
    return this.page.$$eval('#rows tr', (rows) => rows.map((row) => (row as HTMLElement).dataset['symbol'] ?? ''));
  }

  /** What each row says. */
  rows(): Promise<Record<string, Cells>> {
    return this.page.$$eval('#rows tr', (rows) =>
      Object.fromEntries(
        rows.map((row) => [
          (row as HTMLElement).dataset['symbol'] ?? '',
          Object.fromEntries([...row.querySelectorAll('td')].map((cell) => [cell.dataset['column'] ?? '', cell.textContent ?? ''])),
        ]),
      ),
    );
  }

  /** How many rows are shown as live, as recorded, and how many there are. */
  looks(): Promise<[live: number, recorded: number, rows: number]> {
    return this.page.$$eval('#rows tr', (rows) => {
      const recorded = rows.filter((row) => row.classList.contains('recorded')).length;
      return [rows.filter((row) => !row.classList.contains('stale')).length - recorded, recorded, rows.length];
    });
  }

  text(id: string): Promise<string> {
    return this.page.locator(`#${id}`).innerText();
  }

  /** Waits until a function of the page is true. */
  async until<A>(holds: (argument: A) => boolean, argument: A): Promise<void> {
    // Everything here takes patience: the machine may be busy with something else.
    await this.page.waitForFunction(holds as (argument: unknown) => boolean, argument, { timeout: 60_000, polling: 50 });
  }

  /** Waits until so many rows say that they are in this state and look like it, and no other row is there. */
  async untilAll(state: string, count: number): Promise<void> {
    await this.until(
      ([state, count]) => {
        const cells = [...document.querySelectorAll('#rows [data-column="state"]')];
        const look = state === 'live' ? '' : state === 'replay' || state === 'paused' ? 'recorded' : 'stale';
        return cells.length === count && cells.every((cell) => cell.textContent === state && cell.parentElement?.className === look);
      },
      [state, count] as const,
    );
  }

  /** Waits until so many rows are live, and no other row is there. */
  untilLive(count: number): Promise<void> {
    return this.untilAll('live', count);
  }

  /** Waits until so many rows are replayed, and no other row is there. */
  untilReplayed(count: number): Promise<void> {
    return this.untilAll('replay', count);
  }

  /** It did nothing that a page must not do. `but`: complaints that were to be expected. */
  assertClean(but: RegExp = /^$/): void {
    assert.deepEqual([this.foreign, this.complaints.filter((text) => !but.test(text))], [[], []]);
  }
}

/** Leaves a picture for people in `target/screenshots`. */
export async function picture(page: Page, name: string, fullPage = false): Promise<void> {
  const folder = join(repository, 'target/screenshots');
  mkdirSync(folder, { recursive: true });
  // No picture takes so long, however slow the machine is.
  await page.screenshot({ path: join(folder, `${name}.png`), fullPage, timeout: 120_000 });
}

/** In the page: the state that the bar of the replay shows. */
export const isPaused = () => document.getElementById('replay')?.dataset['state'] === 'paused';
export const isPlaying = () => document.getElementById('replay')?.dataset['state'] === 'playing';

/** Drags the slider of the replay to this part of the recording, as a finger would; where that is, microseconds. */
export function drag({ page }: Screen, part: number): Promise<number> {
  return page.$eval(
    '#position',
    (element, part) => {
      const slider = element as HTMLInputElement;
      slider.value = String(Number(slider.min) + part * (Number(slider.max) - Number(slider.min)));
      slider.dispatchEvent(new Event('input'));
      slider.dispatchEvent(new Event('change'));
      return Number(slider.value);
    },
    part,
  );
}

/** What the console says where there is no gateway to connect to. */
export const NO_GATEWAY = /WebSocket connection to .* failed/;

/** Answers for the page's files come from `dist`, under the policy that the gateway sends. */
async function fromFolder(page: Page, address: string): Promise<void> {
  const policy = (await fetch(`http://${address}/`)).headers.get('content-security-policy') ?? '';
  await page.route(/^http:/, (route) => {
    const { pathname } = new URL(route.request().url());
    const file = join(repository, 'ui/dist', pathname === '/' ? 'index.html' : pathname);
    if (!existsSync(file)) return route.continue();
    const kind = { html: 'text/html', js: 'text/javascript', css: 'text/css', svg: 'image/svg+xml' }[file.split('.').pop() ?? ''];
    return route.fulfill({ body: readFileSync(file), headers: { 'content-type': kind ?? '', 'content-security-policy': policy } });
  });
}
