
(() => {
  'use strict';
  // In seconds. Each wait is random: half to all of what the server asks for, within these bounds.
  const DEFAULT_WAIT = 30, SHORTEST_WAIT = 5, LONGEST_WAIT = 60, REQUEST_LIMIT = 20;
  // A gateway error or a rate limit does not mean that the site is back. 520 to 530 are Cloudflare's own.
  const isBack = code => ![429, 502, 503, 504].includes(code) && !(code >= 520 && code <= 530);

  const data = document.getElementById('maintenance').dataset, texts = JSON.parse(data.texts), language = document.documentElement.lang;
  // A template may leave out an element.
  const find = id => document.getElementById(id) || document.createElement('p');
  const heading = find('heading'), status = find('status'), message = find('message'), end = find('end'), button = find('back');
  // In read_only, every page can be read, so polling would show nothing. A file has no server.
  const reloads = data.visit === 'full', polls = data.visit !== 'read_only' && location.protocol !== 'file:';
  let version = data.version, late = 'late' in data, checking = false, timer, ticking;

  function show(text) {
    // To write the same text again would make a screen reader repeat it.
    if (status.textContent !== text) status.textContent = text;
  }

  function showWaiting() {
    const promise = data.visit === 'read_only' ? '' : reloads ? texts.reload : texts.notify;
    show(`${late ? texts.late : ''} ${promise}`.trim());
  }

  function formatOf(parts) {
    const isSame = other => other.split('-')[0] === language.split('-')[0];
    try {
      // The visitor's region decides about the clock, the page about the language.
      return new Intl.DateTimeFormat(navigator.languages.find(isSame) || language, parts);
    } catch {
      return new Intl.DateTimeFormat(language, parts);  // the browser's language is not a valid one, such as C
    }
  }

  function formatTime(when, now) {
    const day = {weekday: 'long', day: 'numeric', month: 'long'};
    if (when.getFullYear() !== now.getFullYear()) day.year = 'numeric';
    const clock = {hour: 'numeric', minute: '2-digit', timeZoneName: 'short'};
    return formatOf(when.toDateString() === now.toDateString() ? clock : {...day, ...clock}).format(when);
  }

  function formatLeft(milliseconds) {
    const minutes = Math.ceil(milliseconds / 60000);
    const [count, unit] = minutes < 90 ? [minutes, 'minute']
      : minutes < 36 * 60 ? [Math.round(minutes / 60), 'hour'] : [Math.round(minutes / 1440), 'day'];
    return new Intl.RelativeTimeFormat(language).formatToParts(count, unit)
      .map(part => (part.type === 'integer' ? texts.about : '') + part.value).join('');
  }

  function showEnd() {
    clearTimeout(ticking);
    const time = end.querySelector('time');
    if (!time) return;
    const when = new Date(time.dateTime), now = new Date();
    if (when <= now) {
      late = true;
      end.replaceChildren();
      return showWaiting();
    }
    time.textContent = formatTime(when, now);
    end.lastElementChild.textContent = formatLeft(when - now);
    ticking = setTimeout(showEnd, Math.min(when - now, 60000));
  }

  async function request(method) {
    const abort = new AbortController();
    const limit = setTimeout(() => abort.abort(), REQUEST_LIMIT * 1000);
    try {
      const response = await fetch(location.href, {
        method, cache: 'no-store', redirect: 'manual', headers: {Accept: 'text/html'}, signal: abort.signal
      });
      if (method === 'GET' && !isBack(response.status)) response.page = await response.text();
      return response;
    } finally {
      clearTimeout(limit);
    }
  }

  // The message or the end has changed: show those of a new page.
  function follow(html) {
    const page = new DOMParser().parseFromString(html, 'text/html');
    const fresh = page.getElementById('maintenance');
    if (!fresh) return;
    for (const id of ['message', 'end']) {
      const from = page.getElementById(id);
      find(id).replaceChildren(...from ? from.childNodes : []);
      if (from) find(id).lang = from.lang;
    }
    version = fresh.dataset.version;
    late = 'late' in fresh.dataset;
    showEnd();
  }

  function leave() {
    clearTimeout(ticking);
    heading.textContent = texts.back;
    document.title = texts.backTitle;
    message.hidden = end.hidden = true;
    if (!reloads) return show(texts.resend);
    const home = location.href;
    show(texts.moment);
    // Always a GET, however the visitor came here. A URL with a fragment reloads only from another URL.
    if (location.hash) history.replaceState(null, '', '?back');
    location.replace(home);
    // A download or an empty response leaves this page open.
    setTimeout(() => show(texts.stuck), SHORTEST_WAIT * 1000);
  }

  function wait(seconds) {
    const longest = Math.min(LONGEST_WAIT, Math.max(SHORTEST_WAIT, seconds || DEFAULT_WAIT));
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(check, longest * 1000 * (1 + Math.random()) / 2);
  }

  async function check() {
    if (checking || document.hidden) return;
    let seconds;
    checking = true;
    try {
      let response = await request('HEAD');
      if (response.status === 405 || response.status === 501) response = await request('GET');
      const newest = response.headers.get('Maintenance-Page');
      if (newest && newest !== version && !isBack(response.status)) {
        if (!response.page) response = await request('GET');
        if (response.page) follow(response.page);
      }
      if (isBack(response.status)) return leave();
      seconds = Number(response.headers.get('Retry-After'));
      showWaiting();
    } catch {
      show(texts.offline);
    } finally {
      checking = false;
    }
    wait(seconds);
  }

  showWaiting();
  button.hidden = history.length < 2;
  button.onclick = () => history.back();
  if (polls) {
    document.onvisibilitychange = () => document.hidden ? clearTimeout(timer) : check();
    addEventListener('online', check);
    wait();
  }
  showEnd();
})();
