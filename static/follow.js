// How a page follows what happens: a socket tells that something changed, and the page asks for what by itself. So
// nothing is lost or shown twice, however often the connection breaks.

const LATE = 10000; // milliseconds in which an event with a smaller id may still come

export function wait(milliseconds) { return new Promise((done) => { setTimeout(done, milliseconds); }); }

// `work`, one at a time. Asked for while one is under way it is done again: that one may have looked too early.
export function oneAtATime(work) {
  let running = null;
  let again = false;
  return () => {
    again = true;
    running = running || (async () => {
      try {
        while (again) { again = false; await work(); }
      } finally { running = null; }
    })();
    return running;
  };
}

// A socket that comes back whenever it breaks, and resumes behind the last event. `opened` when it is there, `changed` when
// something has happened, `closed` when it broke: perhaps this browser was signed out, and hears no more.
export function follow({ after, opened, changed, closed, isWanted = () => true }) {
  const known = new Map(); // event id -> when it came
  let settled = after;
  let socket = null;
  let pause = 1000;
  let connecting = null;
  let touched = 0;

  function isOpen() { return socket !== null && socket.readyState === WebSocket.OPEN; }

  function connect() {
    clearTimeout(connecting);
    if (socket) return;
    if (!isWanted()) { connecting = setTimeout(connect, 1000); return; }
    const address = new URL("/live/", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    socket = new WebSocket(address);
    socket.addEventListener("open", () => {
      pause = 1000;
      socket.send(JSON.stringify({ after: settled }));
      opened();
    });
    socket.addEventListener("message", hear);
    socket.addEventListener("close", async () => {
      socket = null;
      await Promise.race([closed(), wait(5000)]);
      clearTimeout(connecting);
      connecting = setTimeout(connect, pause);
      pause = Math.min(pause * 2, 30000);
    });
  }

  function hear({ data }) {
    const { events = [] } = JSON.parse(data);
    const fresh = events.filter(({ id }) => !known.has(id));
    for (const { id } of fresh) known.set(id, Date.now());
    for (const [id, at] of known) {
      if (at < Date.now() - LATE) { settled = Math.max(settled, id); known.delete(id); }
    }
    if (fresh.length) changed();
  }

  // Tell the server that the page is in use, so that the browser's session does not idle out.
  function here() {
    if (Date.now() - touched < 60000 || !isOpen()) return;
    touched = Date.now();
    socket.send(JSON.stringify({ here: true }));
  }

  for (const sign of ["keydown", "pointerdown"]) document.addEventListener(sign, here, { passive: true });
  connect();
  return {
    isOpen,
    breakOff() { if (socket) socket.close(); },
    connectNow() { pause = 1000; connect(); },
  };
}
