// What becomes of viser's own scene while our picture covers it: it need not be drawn. It must not know our picture.
// Called once a page, by page.js.
//
// restful(): whether viser's turns may be rarer now. Gives paint(), the browser's own requestAnimationFrame.
function degstalkScene(restful) {
  let covered = false;

  // viser goes through its whole scene each time that the browser paints, seen or not, which takes half of a core. Where
  // that is hidden and may rest, it does so now and then: soon enough for what it tells the panel.
  const REST = 60; // milliseconds
  const paint = window.requestAnimationFrame.bind(window);
  const unpaint = window.cancelAnimationFrame.bind(window);
  const resting = new Map();
  let rests = 0;
  window.requestAnimationFrame = (react) => {
    if (!covered || !restful()) return paint(react);
    const number = --rests; // the browser's own are positive
    const rest = { turn: 0, timer: 0 };
    const wake = (now) => {
      resting.delete(number);
      react(now);
    };
    rest.timer = setTimeout(() => (rest.turn = paint(wake)), REST);
    resting.set(number, rest);
    return number;
  };
  window.cancelAnimationFrame = (number) => {
    const rest = resting.get(number);
    if (!rest) return unpaint(number);
    resting.delete(number);
    clearTimeout(rest.timer);
    unpaint(rest.turn);
  };

  // What nobody sees need not be drawn: without a GPU that takes longer than our frames. Pictures for later use, such as
  // that of the lights, are drawn all the same.
  const gl = WebGL2RenderingContext.prototype;
  const offScreen = new WeakSet();
  const bind = gl.bindFramebuffer;
  gl.bindFramebuffer = function (target, buffer) {
    if (target !== this.READ_FRAMEBUFFER) buffer ? offScreen.add(this) : offScreen.delete(this);
    return bind.call(this, target, buffer);
  };
  for (const name of ["clear", "drawArrays", "drawArraysInstanced", "drawElements", "drawElementsInstanced"]) {
    const draw = gl[name];
    gl[name] = function (...how) {
      if (!covered || offScreen.has(this)) draw.apply(this, how);
    };
  }

  return {
    paint,
    cover(on) {
      covered = on;
      // viser's 3D canvas still feels the mouse.
      const canvas = document.querySelector("canvas[data-engine]");
      if (canvas) canvas.style.opacity = on ? "0" : "";
    },
  };
}
