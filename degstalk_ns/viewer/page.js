// The browser's side of the viewer: plays the audio, shows each frame at its moment, reports to the server (`report`).
// The <audio> element is the only clock. It must not know avatars; viser's page evaluates it once (see page.py).
(() => {
  if (window.degstalk) return;

  const audio = new Audio();
  audio.preload = "auto";
  const state = {
    audio, // the clock
    shown: null, // moment of the frame that is on the screen, seconds
    shownNumber: -1,
    rate: 25, // frames a second of the timeline
    duration: 0,
    framesShown: 0,
    framesLate: 0,
    fps: 0,
  };
  let channel = null; // id of the hidden input that carries reports to the server
  let worker = null; // viser's connection
  let waiting = []; // reports made before the connection was found
  let reports = 0;
  let queue = []; // decoded frames whose moment has not come
  let interval = 0.08; // seconds between shown frames, smoothed
  let shownAt = []; // when frames were shown, for the frame rate
  let coming = { number: 0, parts: [], left: 0 }; // the newest sound, as far as it is here
  let waitedSince = 0; // when something of the sound last came, or was asked for
  let decoding = Promise.resolve(); // frames are decoded in order
  let ready = false; // a sound has been loaded
  let clip = 0; // number of the sound
  let wish = null; // where to go once the sound is ready
  let dragging = false;

  // --- to the server: viser's own messages, through the worker that holds its connection -----------------------------

  const post = Worker.prototype.postMessage;
  Worker.prototype.postMessage = function (message, ...rest) {
    if (message && message.type === "send" && worker !== this) {
      worker = this;
      this.addEventListener("message", received);
      const held = waiting;
      waiting = [];
      held.forEach((value) => deliver(value));
    }
    return post.call(this, message, ...rest);
  };

  // Calls are taken here, and not when viser gets round to them, which is before it draws its scene the next time.
  function received(event) {
    for (const message of (this === worker && event.data.messages) || []) {
      if (!message.call || !Object.hasOwn(calls, message.call)) continue;
      try {
        calls[message.call](...message.given, message.data);
      } catch (error) {
        console.error(error);
      }
      message.data = null; // viser keeps the message until it draws, which a hidden page does not do
    }
  }

  function deliver(value) {
    const message = { type: "GuiUpdateMessage", id: channel, updates: { value } };
    post.call(worker, { type: "send", message });
  }

  function report(kind, more) {
    const playing = ready && !audio.paused && !audio.ended;
    const value = JSON.stringify({ kind, number: ++reports, at: audio.currentTime, playing, clip, ...more });
    if (worker && channel) deliver(value);
    else if (waiting.length < 20) waiting.push(value);
  }

  // --- the stage: a canvas over viser's own ---------------------------------------------------------------------------

  const stage = document.createElement("div");
  stage.id = "degstalk-stage";
  const canvas = document.createElement("canvas");
  stage.appendChild(canvas);
  const paper = canvas.getContext("2d");
  const styles = document.createElement("style");
  styles.textContent = `
    #degstalk-stage { position: absolute; inset: 0; z-index: 1; background: #101113; display: none; }
    #degstalk-stage canvas { width: 100%; height: 100%; object-fit: contain; display: block; }
    .degstalk-box { width: calc(100% / 0.95); } /* viser keeps Markdown to 95 % */
    .degstalk-wave { position: relative; height: 56px; background: rgba(0, 0, 0, 0.28); border-radius: 4px;
      overflow: hidden; cursor: pointer; touch-action: none; }
    .degstalk-wave img { position: absolute; inset: 4px 0; width: 100%; height: calc(100% - 8px); display: block;
      pointer-events: none; user-select: none; }
    .degstalk-cursor { position: absolute; top: 0; bottom: 0; left: 0; width: 2px; margin-left: -1px; background: #fff;
      box-shadow: 0 0 4px rgba(0, 0, 0, 0.8); pointer-events: none; }
    .degstalk-bar { display: flex; align-items: center; gap: 4px; margin-top: 8px; }
    .degstalk-bar button { all: unset; box-sizing: border-box; height: 28px; min-width: 30px; padding: 0 7px;
      border-radius: 4px; background: rgba(128, 128, 128, 0.22); cursor: pointer; display: flex; align-items: center;
      justify-content: center; }
    .degstalk-bar button:hover { background: rgba(128, 128, 128, 0.38); }
    .degstalk-bar button:focus-visible { outline: 2px solid #ffd369; }
    .degstalk-bar button[data-degstalk="play"] { background: #ffd369; color: #1a1b1e; min-width: 44px; }
    .degstalk-bar button[aria-pressed="true"] { color: #ffd369; }
    .degstalk-bar button[aria-disabled="true"] { opacity: 0.4; cursor: default; }
    .degstalk-bar svg { width: 14px; height: 14px; fill: currentColor; display: block; }
    .degstalk-bar [data-playing="true"] .degstalk-when-paused { display: none; }
    .degstalk-bar [data-playing="false"] .degstalk-when-playing { display: none; }
    .degstalk-time { margin-left: auto; font-variant-numeric: tabular-nums; font-size: 0.85em; white-space: nowrap; }
    .degstalk-line { font-size: 0.8em; line-height: 1.35; margin-top: 6px; opacity: 0.75;
      overflow-wrap: anywhere; white-space: pre-line; }
    .degstalk-line:empty { display: none; }
    .degstalk-line[data-tone="problem"] { color: #ff8787; opacity: 1; }
    .degstalk-line[data-tone="good"] { color: #8ce99a; opacity: 1; }`;
  document.head.appendChild(styles);

  // viser's own 3D canvas; its wrapper fills the space beside the panel.
  const scene = () => document.querySelector("canvas[data-engine]");

  function mount() {
    if (!stage.isConnected && scene()) scene().parentElement.parentElement.appendChild(stage);
  }

  let held = false; // the camera
  const { paint, cover: coverScene } = degstalkScene(() => held && running());

  function cover(on) {
    stage.style.display = on ? "block" : "none";
    coverScene(on);
  }

  // --- frames ---------------------------------------------------------------------------------------------------------

  function apart(a, b) {
    let difference = a - b;
    if (audio.loop && state.duration > 0) {
      const half = state.duration / 2;
      difference = ((((difference + half) % state.duration) + state.duration) % state.duration) - half;
    }
    return difference;
  }

  const running = () => ready && !audio.paused && !audio.ended;
  // A frame stands for the middle of the time that it is on the screen.
  const early = () => Math.min(interval / 2, 0.06);

  function present(frame) {
    if (canvas.width !== frame.picture.width || canvas.height !== frame.picture.height) {
      canvas.width = frame.picture.width;
      canvas.height = frame.picture.height;
    }
    paper.drawImage(frame.picture, 0, 0);
    frame.picture.close();
    if (running()) {
      const now = performance.now();
      if (state.shown !== null) {
        const step = apart(frame.seconds, state.shown);
        if (step > 0 && step < 0.5) interval += 0.2 * (step - interval);
      }
      shownAt.push(now);
      state.framesShown += 1;
    }
    state.shown = frame.seconds;
    state.shownNumber = frame.number;
  }

  function advance() {
    if (!queue.length) return;
    if (!running()) {
      while (queue.length > 1) queue.shift().picture.close();
      present(queue.shift());
      return;
    }
    let next = null;
    while (queue.length && apart(queue[0].seconds, audio.currentTime) <= early()) {
      if (next) {
        next.picture.close();
        state.framesLate += 1;
      }
      next = queue.shift();
    }
    if (next) present(next);
    // After a jump of the sound, frames of where it was before would wait for ever.
    queue = queue.filter((frame) => {
      const keep = Math.abs(apart(frame.seconds, audio.currentTime)) < 2;
      if (!keep) frame.picture.close();
      return keep;
    });
  }

  function frame(number, seconds, jpeg) {
    mount();
    cover(true);
    const coming = createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
    decoding = decoding.then(async () => {
      try {
        const picture = await coming;
        queue.push({ number, seconds, picture });
        report("frame", { frame: number, spare: apart(seconds, audio.currentTime) - early() });
      } catch (error) {
        report("frame", { frame: number, spare: 0 });
      }
      advance();
    });
  }

  // --- the sound ------------------------------------------------------------------------------------------------------

  function sound(number, part, total, duration, rate, wav) {
    // A busy page takes messages in any order, and what it did not get it asks for again.
    if (number < coming.number) return;
    if (number > coming.number) {
      pause();
      ready = false;
      wish = null;
      coming = { number, parts: new Array(total), left: total };
    }
    if (!coming.left || coming.parts[part]) return;
    waitedSince = performance.now();
    coming.parts[part] = new Blob([wav]);
    coming.left -= 1;
    if (coming.left) return;
    if (audio.src) URL.revokeObjectURL(audio.src);
    clip = number;
    state.duration = duration;
    state.rate = rate;
    audio.src = URL.createObjectURL(new Blob(coming.parts, { type: "audio/wav" }));
    coming.parts = [];
    audio.load();
  }

  audio.addEventListener("loadedmetadata", () => {
    ready = true;
    report("state");
    if (wish) seek(wish.seconds, wish.tell);
  });
  for (const name of ["play", "playing", "pause", "ended", "seeked"])
    audio.addEventListener(name, () => report("state"));
  audio.addEventListener("error", () => {
    if (!audio.error) return;
    ready = false;
    say("This browser cannot play the sound.", "problem");
  });

  function play() {
    if (!ready) return;
    if (audio.ended || audio.currentTime >= state.duration - 0.5 / state.rate) audio.currentTime = 0;
    shownAt = [];
    audio.play().catch(() => say("The browser holds the sound back: click into the page, then play again.", "problem"));
  }

  function pause() {
    if (!audio.paused) audio.pause();
  }

  function seek(seconds, tell) {
    wish = ready ? null : { seconds, tell };
    if (wish) return;
    audio.currentTime = Math.min(Math.max(seconds, 0), Math.max(state.duration - 1e-3, 0));
    if (tell) report("seek");
  }

  function step(frames) {
    pause();
    const last = Math.round(state.duration * state.rate) - 1;
    const at = Math.min(Math.max(Math.round(audio.currentTime * state.rate) + frames, 0), last);
    // A little past the frame's moment: media elements round positions down.
    seek(at / state.rate + 1e-4, true);
  }

  // --- the panel: elements that the server has put there, found by their marks ----------------------------------------

  const marked = (name) => document.querySelector(`[data-degstalk="${name}"]`);
  let line = { text: "", tone: "" };

  function say(text, tone) {
    line = { text, tone: tone || "" };
  }

  function set(element, name, value) {
    if (element && element.getAttribute(name) !== value) element.setAttribute(name, value);
  }

  function write(element, text) {
    if (element && element.textContent !== text) element.textContent = text;
  }

  const clock = (s) => `${Math.floor(s / 60)}:${(s % 60).toFixed(2).padStart(5, "0")}`;

  function fromPointer(event) {
    const box = marked("wave").getBoundingClientRect();
    seek((Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1)) * state.duration, true);
  }

  document.addEventListener("pointerdown", (event) => {
    if (!event.target.closest || !event.target.closest('[data-degstalk="wave"]')) return;
    dragging = true;
    fromPointer(event);
    event.preventDefault();
  });
  document.addEventListener("pointermove", (event) => dragging && fromPointer(event));
  document.addEventListener("pointerup", () => (dragging = false));
  document.addEventListener("pointercancel", () => (dragging = false));
  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest("button[data-degstalk]");
    if (!button) return;
    const name = button.getAttribute("data-degstalk");
    if (name === "play") running() ? pause() : play();
    if (name === "back") step(-1);
    if (name === "forward") step(1);
    if (name === "loop") {
      audio.loop = !audio.loop;
      report("loop", { loop: audio.loop });
    }
  });
  // Before viser's own upload sees the file: a file that is too large never leaves this machine.
  let largest = Infinity;
  document.addEventListener(
    "change",
    (event) => {
      const file = event.target.type === "file" && event.target.files && event.target.files[0];
      if (!file || (file.size <= largest && file.size > 0)) return;
      event.stopImmediatePropagation();
      event.preventDefault();
      const limit = `${Math.round(largest / 1e6)} MB`;
      say(file.size ? `${file.name} is larger than ${limit} and was not loaded.` : `${file.name} is empty and was not loaded.`, "problem");
    },
    true,
  );

  let told = 0;
  function tick(now) {
    mount();
    if (queue.length) advance();
    const playing = running();
    while (shownAt.length && now - shownAt[0] > 2000) shownAt.shift();
    state.fps = shownAt.length > 1 ? ((shownAt.length - 1) * 1000) / (shownAt[shownAt.length - 1] - shownAt[0]) : 0;
    const cursor = marked("cursor");
    if (cursor && state.duration) cursor.style.left = `${(100 * audio.currentTime) / state.duration}%`;
    set(marked("play"), "data-playing", String(playing));
    set(marked("play"), "aria-label", playing ? "Pause" : "Play");
    set(marked("play"), "aria-disabled", String(!ready));
    set(marked("loop"), "aria-pressed", String(audio.loop));
    write(marked("time"), `${clock(audio.currentTime)} / ${clock(state.duration)}`);
    const frames = Math.round(state.duration * state.rate);
    const at = Math.min(Math.round(audio.currentTime * state.rate) + 1, frames);
    const still = ready ? `frame ${at} of ${frames}` : "Loading the audio ...";
    write(marked("rate"), playing ? `${state.fps.toFixed(1)} of ${state.rate} frames/s` : still);
    write(marked("line"), line.text);
    set(marked("line"), "data-tone", line.tone);
    if (channel && (!clip || coming.left) && now - waitedSince > 10000) {
      waitedSince = now;
      report("hello");
    }
    if (playing && now - told > 200) {
      told = now;
      report("state");
    }
    paint(tick);
  }
  paint(tick);

  const calls = {
    frame,
    sound,
    seek,
    say,
    still(on) {
      // The recorded camera cannot be moved: drags on the picture go nowhere.
      held = on;
      stage.style.pointerEvents = on ? "auto" : "none";
    },
    hide() {
      cover(false);
    },
  };

  window.degstalk = Object.assign(state, calls, {
    attach(id, limit) {
      // A new connection: of an earlier one nothing is left but this page.
      channel = id;
      largest = limit;
      pause();
      ready = false;
      clip = 0;
      coming = { number: 0, parts: [], left: 0 };
      waitedSince = performance.now();
      queue.forEach((one) => one.picture.close());
      queue = [];
      state.shown = null;
      waiting = [];
      report("hello");
    },
  });
})();
