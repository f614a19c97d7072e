// A button that records from the microphone; the samples go to Python as 16 bits, at whatever rate the browser has.

const TAP = `registerProcessor('tap', class extends AudioWorkletProcessor {
  process([input]) { if (input[0]) this.port.postMessage(input[0].slice()); return true; }
})`;
const why = e => e.name === 'NotAllowedError' ? 'the browser does not allow the microphone; allow it beside the address of this page'
  : e.name === 'NotFoundError' ? 'no microphone was found; plug one in' : `the microphone cannot be used (${e.message})`;

async function listen(take) { // -> how to stop, and the rate
  const raw = {echoCancellation: false, noiseSuppression: false, autoGainControl: false};   // made for calls, not for models
  if (!navigator.mediaDevices) throw new Error('this page was not opened through https or localhost');
  const stream = await navigator.mediaDevices.getUserMedia({audio: raw}), ctx = new AudioContext();
  const url = URL.createObjectURL(new Blob([TAP], {type: 'text/javascript'}));
  await ctx.audioWorklet.addModule(url); URL.revokeObjectURL(url);
  const tap = new AudioWorkletNode(ctx, 'tap'); tap.port.onmessage = e => take(e.data);
  ctx.createMediaStreamSource(stream).connect(tap).connect(ctx.destination);   // silent, but without it nothing flows
  return [() => { stream.getTracks().forEach(t => t.stop()); ctx.close(); }, ctx.sampleRate];
}

function render({model, el}) {
  const button = document.createElement('button'); button.type = 'button'; button.className = 'jupyter-button widget-button ae-record';
  let parts = [], stop = null, rate = 0, timer = 0;
  const label = () => { button.textContent = stop ? '■ stop' : '● record'; button.ariaPressed = stop ? 'true' : 'false'; };
  function end() {
    clearTimeout(timer); stop?.(); stop = null; label();
    const x = Int16Array.from(parts.flatMap(p => Array.from(p, v => Math.round(Math.max(-1, Math.min(1, v))*32767)))); parts = [];
    model.set('rate', rate); model.set('samples', new DataView(x.buffer)); model.set('recording', false); model.save_changes();
  }
  button.onclick = async () => {
    if (stop) { end(); return; }
    try { [stop, rate] = await listen(p => parts.push(p)); }
    catch (e) { model.set('trouble', why(e)); model.save_changes(); return; }
    timer = setTimeout(end, 1000*model.get('longest')); label();
    model.set('trouble', ''); model.set('recording', true); model.save_changes();
  };
  label(); el.append(button);
  return () => { clearTimeout(timer); stop?.(); };
}
export default {render};
