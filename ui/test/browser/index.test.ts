/** The page in a real browser: one browser for all of it, one test at a time. */

import assert from 'node:assert/strict';
import { after } from 'node:test';
import { BINARY } from '../../../clients/ts/test/gateway.js';
import { closeBrowser } from './browser.js';
import './access.test.js';
import './live.test.js';
import './many.test.js';
import './place.test.js';
import './prompt.test.js';
import './replay.test.js';
import './screens.test.js';
import './search.test.js';

assert.notEqual(BINARY, '', 'TICKFAN_BIN does not name the gateway');
after(closeBrowser);
