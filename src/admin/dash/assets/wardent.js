// What a script adds to pages that are whole without it: parts that have changed come by themselves, and
// moments are told in the reader's own time as well.
"use strict";

(() => {
  const localTimes = (within) => {
    for (const time of within.querySelectorAll("time[datetime]")) {
      time.title = new Date(time.dateTime).toLocaleString();
    }
  };

  // Who reads, writes or points within a part is not disturbed.
  const isInUse = (part) => {
    const selection = document.getSelection();
    const selects = selection && !selection.isCollapsed && part.contains(selection.anchorNode);
    return selects || (part.contains(document.activeElement) && !document.activeElement.matches(".wide"));
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
    let isPaused = sessionStorage.getItem("paused") === "yes";

    const say = (words, kind) => {
      if (state.textContent !== words) state.textContent = words;
      document.body.dataset.state = kind;
    };
    const stop = () => {
      if (source) source.close();
      source = null;
    };
    const start = () => {
      stop();
      source = new EventSource(address);
      source.addEventListener("open", () => say("Live", "live"));
      source.addEventListener("error", () => say("Not connected, trying again", "lost"));
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
