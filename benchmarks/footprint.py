"""What the daemon costs: cold start to the first listening frame, memory, and idle CPU.

Starts `edgevoice daemon run`, opens one session that sends silence in real time, then has one
question answered, and reads the process's own figures from /proc. Linux only.

    python benchmarks/footprint.py [--idle-s 20]

Cold start is from the process's start until a session says that it listens. It does not empty the
page cache: run `sync; echo 3 > /proc/sys/vm/drop_caches` before, as root, for a start from disk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from recordings import QUESTIONS, speak
from voicebench.audio import read_wav, to_pcm16
from websockets.asyncio.client import ClientConnection, connect

SILENCE = b"\0" * 640
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Processor time that process ``pid`` has used, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def peak_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


async def until(client: ClientConnection, **wanted: object) -> None:
    async for message in client:
        if isinstance(message, str) and wanted.items() <= json.loads(message).items():
            return
    raise SystemExit("the daemon closed the session")


async def send(client: ClientConnection, pcm: bytes) -> None:
    """Send ``pcm`` in real time."""
    begun = time.monotonic()
    for number in range(0, len(pcm), len(SILENCE)):
        await client.send(pcm[number : number + len(SILENCE)])
        await asyncio.sleep(max(0.0, begun + number / 32_000 - time.monotonic()))


async def measure(url: str, pid: int, began: float, idle_s: float, wav: Path) -> dict[str, Any]:
    async with connect(url) as client:
        await until(client, type="state", state="listening")
        cold_start_s = time.monotonic() - began
        listening_mb = peak_mb(pid)
        await send(client, SILENCE * 100)
        before, at = cpu_s(pid), time.monotonic()
        await send(client, SILENCE * round(idle_s * 50))
        share = (cpu_s(pid) - before) / (time.monotonic() - at)
        question = to_pcm16(read_wav(wav, 16_000)) + SILENCE * 1500
        asking = asyncio.create_task(send(client, question))
        await until(client, type="metrics", turn=1)
        asking.cancel()
    before, at = cpu_s(pid), time.monotonic()
    await asyncio.sleep(idle_s / 4)
    alone = (cpu_s(pid) - before) / (time.monotonic() - at)
    return {
        "cold_start_s": round(cold_start_s, 2),
        "peak_mb_listening": round(listening_mb),
        "peak_mb_after_an_answer": round(peak_mb(pid)),
        "idle_cpu_percent_one_session": round(100 * share, 1),
        "idle_cpu_percent_no_session": round(100 * alone, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--idle-s", type=float, default=20.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wav = speak(QUESTIONS[3], "slt", Path(folder) / "question.wav")
        began = time.monotonic()
        command = [sys.executable, "-m", "edgevoice", "daemon", "run", "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            found = re.search(r"ws://\S+:\d+", process.stdout.readline())
            if found is None:
                raise SystemExit("the daemon did not start")
            figures = asyncio.run(measure(found[0], process.pid, began, arguments.idle_s, wav))
        finally:
            process.terminate()
            process.wait(20)
    print("| | |\n| --- | ---: |")
    for name, value in figures.items():
        print(f"| {name.replace('_', ' ')} | {value} |")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
