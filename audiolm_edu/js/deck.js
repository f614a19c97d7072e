// A deck: several sounds of one length on one clock, one of them heard; pictures and tokens over the same time axis.
// Sounds come as 16-bit samples. Everything a person does is written to traits, and everything Python writes is done.

const METER = `registerProcessor('meter', class extends AudioWorkletProcessor {
  process([input]) {
    const x = input[0]; if (!x) return true;
    let sum = 0; for (const v of x) sum += v*v;
    this.port.postMessage([x.length, sum]); return true;
  }
})`;

class Deck {
  constructor(rate) { Object.assign(this, {rate, buffers: [], gains: [], sources: [], on: 0, at: 0, since: null, loop: [], ready: -1, waiting: false}); }
  get seconds() { return Math.max(0, ...this.buffers.map(b => b.duration)); }
  get end() { return this.ready < 0 ? this.seconds : Math.min(this.ready, this.seconds); }   // the rest is still being written
  get playing() { return this.since !== null; }
  get position() { return this.playing ? this.place(this.ctx.currentTime) : this.at; }
  place(when) { // in the sound, at a time of the clock
    const t = this.at + Math.max(0, when - this.since), [a, b] = this.loop;
    return b > a && t > b ? a + (t-a) % (b-a) : Math.min(t, this.end);
  }
  async wake() { // browsers allow sound after the first click only
    if (!this.ctx) {
      this.ctx = new AudioContext({sampleRate: this.rate});
      this.out = this.ctx.createGain();
      const url = URL.createObjectURL(new Blob([METER], {type: 'text/javascript'}));
      await this.ctx.audioWorklet.addModule(url); URL.revokeObjectURL(url);
      this.meter = new AudioWorkletNode(this.ctx, 'meter');
      this.meter.port.onmessage = e => this.onlevel?.(...e.data);
      this.out.connect(this.meter).connect(this.ctx.destination);
    }
    await this.ctx.resume();
  }
  load(views, ready=-1) {
    this.ready = ready;
    this.buffers = views.map(v => {
      const x = new Int16Array(v.buffer.slice(v.byteOffset, v.byteOffset + v.byteLength));
      const b = new AudioBuffer({length: Math.max(1, x.length), numberOfChannels: 1, sampleRate: this.rate});
      b.copyToChannel(Float32Array.from(x, s => s/32767), 0); return b;
    });
    this.on = Math.min(this.on, Math.max(0, this.buffers.length-1));
    if (this.playing) this.change();
    else if (this.waiting && this.end > this.at+.01) { this.waiting = false; this.start(); }
    else if (this.ready < 0) this.waiting = false;
  }
  change() { // the new sources begin at the very sample at which the old ones end
    const when = this.ctx.currentTime + .05, old = this.sources;
    this.at = this.place(when); old.forEach(s => s.stop(when)); this.start(when);
  }
  start(when=this.ctx.currentTime + .01) {
    const [a, b] = this.loop;
    this.gains = this.buffers.map((_, i) => { const g = this.ctx.createGain(); g.gain.value = i === this.on ? 1 : 0; g.connect(this.out); return g; });
    this.sources = this.buffers.map((buffer, i) => {
      const s = this.ctx.createBufferSource(); s.buffer = buffer; s.connect(this.gains[i]);
      if (b > a) { s.loop = true; s.loopStart = a; s.loopEnd = b; }
      s.start(when, this.at); return s;
    });
    this.since = when;
  }
  halt() { this.sources.forEach(s => { s.stop(); s.disconnect(); }); this.sources = []; this.since = null; }
  async play() { await this.wake(); if (this.playing) return; this.waiting = false; if (this.at >= this.end-.01) this.at = 0; this.start(); }
  pause() { const t = this.position; this.halt(); this.at = t; this.waiting = false; }
  stall() { this.pause(); this.waiting = true; }   // until more of the sound is there
  seek(t) { const going = this.playing; this.halt(); this.at = Math.min(Math.max(0, t), this.end); if (going) this.start(); }
  between(a, b) { this.loop = b > a ? [a, b] : []; const t = this.position; this.seek(b > a && (t < a || t >= b) ? a : t); }
  hear(i) { // the clock goes on; only the gains change, within 5 ms
    this.on = i;
    this.gains.forEach((g, k) => g.gain.setTargetAtTime(k === i ? 1 : 0, this.ctx.currentTime, .0015));
  }
  close() { this.halt(); this.ctx?.close(); }
}

const make = (tag, props={}, ...children) => { const e = Object.assign(document.createElement(tag), props); e.append(...children); return e; };
const clock = t => `${Math.floor(t/60)}:${(t%60).toFixed(1).padStart(4, '0')}`;
// tokens get colours that neighbours do not share: hues a golden angle apart, two lightnesses
const colour = t => `hsl(${(t*137.508)%360} 55% ${t%2 ? 42 : 62}%)`;

function render({model, el}) {
  const deck = new Deck(model.get('rate')), get = k => model.get(k);
  const set = (...pairs) => { for (let i = 0; i < pairs.length; i += 2) model.set(pairs[i], pairs[i+1]); model.save_changes(); };
  const heard = {}; let stop = null, frame = 0;

  const button = make('button', {type: 'button', className: 'ae-play'}), time = make('span', {className: 'ae-time'});
  const tracks = make('span', {className: 'ae-tracks', role: 'radiogroup', ariaLabel: 'which sound is heard'});
  const loop = make('button', {type: 'button', textContent: '⟲', title: 'loop the marked span (L)', ariaLabel: 'loop the marked span'});
  const save = make('button', {type: 'button', textContent: '⤓', title: 'download', ariaLabel: 'download', hidden: true});
  const canvas = make('canvas', {className: 'ae-canvas', tabIndex: 0, height: 1});
  canvas.setAttribute('role', 'slider'); canvas.setAttribute('aria-label', 'position in the sound');
  const note = make('div', {className: 'ae-note', ariaLive: 'polite'}), asks = make('div', {className: 'ae-asks'});
  const root = make('div', {className: 'ae-deck'},
    make('div', {className: 'ae-title'}), make('div', {className: 'ae-bar'}, button, tracks, loop, save, time), canvas, asks, note);
  root.deck = deck; el.append(root);

  // ---- drawing
  const picture = new Image(); let url = null; picture.onload = () => draw();
  const WAVE = 46, STRIP = 18, height = () => (get('picture').byteLength ? 96 : 0) + WAVE + get('rows').length*STRIP;
  const x_of = t => t/Math.max(deck.seconds, 1e-6)*canvas.clientWidth, t_of = x => x/canvas.clientWidth*deck.seconds;
  const style = name => getComputedStyle(root).getPropertyValue(name).trim();

  function draw_wave(g, w, top) {
    const b = deck.buffers[deck.on]; if (!b) return;
    g.fillStyle = style('--ae-wave');
    if (get('blind')) { g.fillRect(0, top+WAVE/2-1, w, 2); return; }   // a waveform would tell
    const x = b.getChannelData(0), per = b.length/w;
    for (let i = 0; i < w; i++) {
      let peak = 0; for (let k = Math.floor(i*per); k < (i+1)*per && k < x.length; k++) peak = Math.max(peak, Math.abs(x[k]));
      g.fillRect(i, top+WAVE/2*(1-peak), 1, Math.max(1, peak*WAVE));
    }
  }
  function draw_rows(g, w, top) {
    const hover = get('hovered');
    get('rows').forEach((row, r) => {
      const y = top+r*STRIP, step = w*(1/row.rate)/Math.max(deck.seconds, 1e-6);
      row.tokens.forEach((t, i) => {
        g.globalAlpha = hover.row === r && hover.token !== t ? .25 : 1;
        g.fillStyle = colour(t); g.fillRect(i*step, y+1, Math.max(1, step-.4), STRIP-2);
      });
      g.globalAlpha = .8; g.font = '11px sans-serif'; g.fillStyle = style('--ae-paper'); g.fillRect(0, y+1, g.measureText(row.name).width+8, STRIP-2);
      g.globalAlpha = 1; g.fillStyle = style('--ae-ink'); g.fillText(row.name, 4, y+13);
    });
  }
  function draw() {
    const w = canvas.clientWidth || 600, h = height(), scale = window.devicePixelRatio || 1;
    canvas.width = w*scale; canvas.height = h*scale; canvas.style.height = h+'px';
    const g = canvas.getContext('2d'); g.scale(scale, scale);
    let top = 0; if (picture.complete && picture.naturalWidth) { g.drawImage(picture, 0, 0, w, 96); top = 96; }
    draw_wave(g, w, top); draw_rows(g, w, top+WAVE);
    const [a, b] = get('span'); if (b > a) { g.fillStyle = style('--ae-mark'); g.globalAlpha = .25; g.fillRect(x_of(a), 0, x_of(b)-x_of(a), h); g.globalAlpha = 1; }
    const e = get('edge'); if (e > 0) { g.strokeStyle = style('--ae-mark'); g.lineWidth = 2; g.setLineDash([4, 4]); g.beginPath(); g.moveTo(x_of(e), 0); g.lineTo(x_of(e), h); g.stroke(); }
    g.fillStyle = style('--ae-cursor'); g.fillRect(Math.min(x_of(deck.position), w-2), 0, 2, h);
  }
  function label() {
    const t = deck.position; time.textContent = `${clock(t)} / ${clock(deck.seconds)}`;
    const on = deck.playing || deck.waiting; button.textContent = on ? '❚❚' : '▶'; button.ariaLabel = on ? 'pause' : 'play'; button.title = 'space';
    canvas.setAttribute('aria-valuemin', 0); canvas.setAttribute('aria-valuemax', deck.seconds.toFixed(2)); canvas.setAttribute('aria-valuenow', t.toFixed(2));
    canvas.setAttribute('aria-valuetext', `${t.toFixed(1)} of ${deck.seconds.toFixed(1)} seconds`);
    loop.ariaPressed = deck.loop.length ? 'true' : 'false';
  }
  const show = () => { label(); draw(); };

  // ---- playing
  deck.onlevel = (n, sum) => {
    if (!deck.playing) return;
    const k = get('names')[deck.on], h = heard[k] ??= {seconds: 0, sum: 0}; h.seconds += n/deck.rate; h.sum += sum;
  };
  function tick() {
    if (!root.isConnected) { deck.close(); return; }
    if (deck.playing && !deck.loop.length && deck.position >= (stop ?? deck.end)-.001) {
      if (stop === null && deck.ready >= 0) deck.stall();
      else { const t = stop ?? 0; deck.pause(); deck.at = t; stop = null; }
      report();
    }
    show(); frame = deck.playing ? requestAnimationFrame(tick) : 0;
  }
  const run = () => { if (!frame) frame = requestAnimationFrame(tick); };
  function report() {
    const table = Object.fromEntries(Object.entries(heard).map(([k, h]) => [k, {seconds: h.seconds, rms: Math.sqrt(h.sum/Math.max(1, h.seconds*deck.rate))}]));
    set('playing', deck.playing || deck.waiting, 'position', deck.position, 'track', deck.on, 'heard', table);
  }
  async function toggle(on=!get('playing')) { stop = null; if (on) await deck.play(); else deck.pause(); report(); run(); show(); }
  function seek(t) { stop = null; deck.seek(t); report(); show(); }
  function choose(i) { if (i < 0 || i >= deck.buffers.length) return; deck.gains.length ? deck.hear(i) : deck.on = i; buttons(); report(); show(); }
  function mark(a, b) { set('span', b > a ? [a, b] : []); if (deck.loop.length) deck.between(a, b); show(); }
  function cycle() { const [a, b] = get('span'); deck.loop.length ? deck.between(0, 0) : deck.between(a ?? 0, b ?? deck.seconds); set('looping', deck.loop.length > 0); show(); }
  async function piece(a, b) { await deck.wake(); deck.between(0, 0); deck.seek(a); stop = b; if (!deck.playing) deck.start(); report(); run(); }

  // ---- what a person does
  function buttons() {
    tracks.replaceChildren(...(get('names').length < 2 ? [] : get('names').map((name, i) => {
      const b = make('button', {type: 'button', textContent: name, title: `key ${i+1}`, onclick: () => choose(i)});
      b.setAttribute('role', 'radio'); b.setAttribute('aria-checked', i === deck.on); return b;
    })));
  }
  function answers() {
    asks.replaceChildren(...get('choices').map(c => make('button', {type: 'button', textContent: c, onclick: () => set('said', [get('said').length ? get('said')[0]+1 : 1, c])})));
  }
  const token_at = (x, y) => {
    const r = Math.floor((y-(height()-get('rows').length*STRIP))/STRIP), row = get('rows')[r]; if (!row) return null;
    const i = Math.floor(t_of(x)*row.rate); return i >= 0 && i < row.tokens.length ? {row: r, frame: i, token: row.tokens[i]} : null;
  };
  let down = null;
  canvas.onpointerdown = e => { down = {x: e.offsetX, y: e.offsetY}; canvas.setPointerCapture(e.pointerId); };
  canvas.onpointermove = e => {
    if (down && Math.abs(e.offsetX-down.x) > 3) { const [a, b] = [down.x, e.offsetX].sort((p, q) => p-q).map(t_of); mark(Math.max(0, a), Math.min(deck.seconds, b)); return; }
    const t = token_at(e.offsetX, e.offsetY), old = get('hovered');
    if ((t?.row !== old.row || t?.token !== old.token) && (t || 'row' in old)) { set('hovered', t ?? {}); draw(); }
  };
  canvas.onpointerup = e => {
    if (!down) return; const moved = Math.abs(e.offsetX-down.x) > 3, t = token_at(e.offsetX, e.offsetY); down = null;
    if (moved) { if (get('rows').length) piece(...get('span')); return; }
    if (t) { set('picked', t); const rate = get('rows')[t.row].rate; piece(t.frame/rate, (t.frame+1)/rate); }
    else { mark(0, 0); seek(t_of(e.offsetX)); }
  };
  canvas.onpointerleave = () => { if ('row' in get('hovered')) { set('hovered', {}); draw(); } };
  button.onclick = () => toggle(); loop.onclick = cycle;
  save.onclick = () => {
    const at = URL.createObjectURL(new Blob([get('file')])), a = make('a', {href: at, download: get('filename')});
    a.click(); setTimeout(() => URL.revokeObjectURL(at), 1000);
  };
  root.onkeydown = e => {
    const keys = {' ': toggle, ArrowLeft: () => seek(deck.position-(e.shiftKey ? .1 : 1)), ArrowRight: () => seek(deck.position+(e.shiftKey ? .1 : 1)),
                  Home: () => seek(0), End: () => seek(deck.seconds), l: cycle, L: cycle};
    const act = e.key >= '1' && e.key <= '9' ? () => choose(+e.key-1) : keys[e.key];
    if (!act || e.ctrlKey || e.metaKey || e.altKey) return;
    if (e.key === ' ' && e.target.tagName === 'BUTTON' && e.target !== button) return;   // the button itself is meant
    e.preventDefault(); e.stopPropagation(); act();
  };

  // ---- what Python does
  const sounds = () => { deck.load(get('sounds'), get('ready')); buttons(); if (deck.playing) run(); else if (get('playing') && !deck.waiting) report(); show(); };
  const paint = () => {
    if (url) URL.revokeObjectURL(url); url = null; picture.removeAttribute('src');
    if (get('picture').byteLength) { url = URL.createObjectURL(new Blob([get('picture')], {type: 'image/png'})); picture.src = url; } else draw();
  };
  const words = () => { root.querySelector('.ae-title').textContent = get('title'); note.textContent = get('note'); save.hidden = !get('filename'); };
  const on = (names, f) => names.split(' ').forEach(n => model.on(`change:${n}`, f));
  on('sounds names', sounds); on('picture', paint); on('title note filename', words); on('choices', answers); on('rows hovered span edge', draw);
  on('track', () => { if (get('track') !== deck.on) choose(get('track')); });
  on('playing', () => { if (get('playing') !== (deck.playing || deck.waiting)) toggle(get('playing')); });
  on('position', () => { if (Math.abs(get('position')-deck.position) > .05 && !deck.playing) seek(get('position')); });
  const watch = new ResizeObserver(draw); watch.observe(root);
  setTimeout(() => document.querySelectorAll('.widget-slider').forEach(e => // ipywidgets leaves the names of its sliders out
    e.querySelector('.noUi-handle')?.setAttribute('aria-label', e.querySelector('.widget-label')?.textContent ?? 'slider')), 300);
  deck.on = get('track'); sounds(); paint(); words(); answers();
  return () => { watch.disconnect(); if (frame) cancelAnimationFrame(frame); if (url) URL.revokeObjectURL(url); deck.close(); };
}
export default {render};
