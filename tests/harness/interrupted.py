"""Carry out a study again and again, killed after a while each time, until it is finished.

Usage: interrupted.py OUT JOBS KILLS SECONDS STUDY. STUDY is JSON; the number of kills that met unfinished work is
written to OUT/kills.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    from nasbed.harness.compare import carry_out
    from nasbed.harness.plan import plan
    from nasbed.harness.study import read_study

    out, jobs, kills, seconds, study = sys.argv[1:]
    planned = plan(read_study(None, json.loads(study)))
    wait, met = random.Random(f"{out[-1]} {jobs}"), 0

    def finished() -> int:
        return len(list(Path(out).glob("store/runs/*/result.json")))

    for kill in range(int(kills)):
        before = finished()
        # Forked before any thread is started: a start costs nothing.
        if not (child := os.fork()):
            os._exit(bool(carry_out(planned, Path(out), jobs=int(jobs))))
        # Workers take longer to start than to do these runs, and how much longer depends on the machine: every
        # other kill of several processes is therefore timed from the first result on.
        late, end = int(jobs) > 1 and kill % 2 == 0, time.monotonic() + wait.uniform(0.0, float(seconds))
        while (late or time.monotonic() < end) and not (done := os.waitpid(child, os.WNOHANG)[0]):
            if late and finished() > before:
                late, end = False, time.monotonic() + wait.uniform(0.0, float(seconds))
            time.sleep(0.001)
        if done:
            break
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        met += 1
    assert not carry_out(planned, Path(out), jobs=int(jobs))
    (Path(out) / "kills").write_text(str(met))


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    main()
