// What a script adds to pages that are whole without it: parts that have changed come by themselves, and
// moments are told in the reader's own time as well.
"use strict";

(() => {
  const localTimes = (within) => {
    for (const time of within.querySelectorAll("time[datetime]")) {
      time.title = new Date(time.dateTime).toLocaleString();
    }
  };

  // A click is one only where what was pressed is still there when it is let go.
  let pressed = null;
  document.addEventListener("pointerdown", (event) => { pressed = event.target; });
  for (const end of ["pointerup", "pointercancel"]) {
    document.addEventListener(end, () => setTimeout(() => { pressed = null; }, 100));
  }

  // Who reads, writes or points within a part is not disturbed.
  const isInUse = (part) => {
    const selection = document.getSelection();
    const selects = selection && !selection.isCollapsed && part.contains(selection.anchorNode);
    const focused = document.activeElement;
    return selects || part.contains(pressed) || (part.contains(focused) && !focused.matches(".wide"));
  };

  // What stands open or scrolled stays so.
  const replace = (part, html) => {
    const opened = [...part.querySelectorAll("details")].map((each) => each.open);
    const scrolled = [...part.querySelectorAll(".wide")].map((each) => [each.scrollLeft, each === document.activeElement]);
    part.innerHTML = html;
    part.querySelectorAll("details").forEach((each, nth) => { each.open = opened[nth] ?? false; });
    part.querySelectorAll(".wide").forEach((each, nth) => {
      const [left, hadFocus] = scrolled[nth] ?? [0, false];
      each.scrollLeft = left;
      if (hadFocus) each.focus({ preventScroll: true });
    });
    localTimes(part);
  };

  const live = (address) => {
    const button = document.createElement("button");
    const state = document.createElement("span");
    button.type = "button";
    button.className = "quiet";
    state.setAttribute("role", "status");
    const place = document.createElement("p");
    place.className = "live";
    place.append(state, " ", button);
    document.querySelector("footer").prepend(place);

    let source = null;
    let again = 0;
    let lost = 0;
    let isPaused = sessionStorage.getItem("paused") === "yes";

    const say = (words, kind) => {
      if (state.textContent !== words) state.textContent = words;
      document.body.dataset.state = kind;
    };
    const stop = () => {
      clearTimeout(again);
      clearTimeout(lost);
      if (source) source.close();
      source = null;
    };
    const start = () => {
      stop();
      source = new EventSource(address);
      source.addEventListener("open", () => {
        clearTimeout(lost);
        say("Live", "live");
      });
      // An answer ends after a while, and the browser asks for the next by itself; not so where it is refused.
      source.addEventListener("error", () => {
        clearTimeout(lost);
        lost = setTimeout(() => say("Not connected, trying again", "lost"), 3000);
        if (source.readyState === EventSource.CLOSED) again = setTimeout(start, 5000);
      });
      source.addEventListener("part", (event) => {
        const part = document.getElementById(event.lastEventId);
        if (part && !isInUse(part)) replace(part, event.data);
      });
    };
    const follow = () => {
      button.textContent = isPaused ? "Go on" : "Pause";
      if (isPaused) {
        stop();
        say("Paused", "paused");
      } else if (!document.hidden) {
        start();
      } else {
        stop();
      }
    };

    button.addEventListener("click", () => {
      isPaused = !isPaused;
      sessionStorage.setItem("paused", isPaused ? "yes" : "no");
      follow();
    });
    // A page that nobody sees costs nothing.
    document.addEventListener("visibilitychange", follow);
    addEventListener("pagehide", stop);
    follow();
  };

  localTimes(document);
  if (document.body.dataset.live) live(document.body.dataset.live);
})();
