"""Asks for the same address from several threads until standard input ends; prints what came of it, as JSON.

A program of its own, without anything of the rig, so that it runs inside a machine: `load.py URL THREADS`. Every
other thread keeps its connection, as long as it is not told that it ends.
"""

import http.client
import json
import sys
import threading
import time
import urllib.parse

WITHIN_S = 60
WRONG_MAX = 10


class Load:
    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.path = parts.path
        self.ends = threading.Event()
        self.lock = threading.Lock()
        self.count, self.slowest_s = 0, 0.0
        self.wrong: list[str] = []

    def ask(self, keeps: bool) -> None:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=WITHIN_S)
        while not self.ends.is_set():
            begin = time.monotonic()
            try:
                # Who calls past nginx says who it is; nginx writes it anew.
                headers = {"X-Real-IP": "198.51.100.2"}
                if not keeps:
                    headers["Connection"] = "close"
                connection.request("GET", self.path, headers=headers)
                answer = connection.getresponse()
                answer.read()
                wrong = "" if answer.status == 200 else f"status {answer.status}"
            except (OSError, http.client.HTTPException) as error:
                wrong = repr(error)
                connection.close()
            took = time.monotonic() - begin
            with self.lock:
                self.count += 1
                self.slowest_s = max(self.slowest_s, took)
                if wrong:
                    self.wrong.append(f"{wrong} after {took:.3f} s")
            self.ends.wait(0.01)

    def run(self, threads: int) -> None:
        asking = [
            threading.Thread(target=self.ask, args=(index % 2 == 0,))
            for index in range(threads)
        ]
        for thread in asking:
            thread.start()
        sys.stdin.read()
        self.ends.set()
        for thread in asking:
            thread.join()
        found = {
            "count": self.count,
            "wrong": len(self.wrong),
            "examples": self.wrong[:WRONG_MAX],
            "slowest_s": round(self.slowest_s, 3),
        }
        print(json.dumps(found))


if __name__ == "__main__":
    Load(sys.argv[1]).run(int(sys.argv[2]))
