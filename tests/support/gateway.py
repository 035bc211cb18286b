"""A gateway that a script starts: the shipped captures in a loop, a listener for publishers, a recording."""

import ctypes
import os
import re
import signal
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-of-attacks"
# The venues of the captures.
REPLAYED = ("coinbase:", "binance-futures:", "kraken:")
CAPTURES = ("coinbase", "binance-futures", "kraken")
# Lines of the log that are no fault.
NOTICES = re.compile(r"^tickfan: (warning: the page|no page|memory: at most|the process did not run for)")
# A machine may have no core for a thread for so long; a longer stall is the gateway's.
STALL_S = 3.0
STALL = re.compile(r"^tickfan: the thread \S+ (?:has not moved for|continues after) ([0-9.]+) s$")
PATIENCE_S = 120

CONFIG = """
[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[[feed]]
kind = "replay"
files = [{captures}]
loop = true
[replay]
dir = "{root}/feeds"
room_idle_s = 2
{replay}
[publish]
listen = "127.0.0.1:0"
token = "{token}"
venues = ["demo"]
[record]
enabled = true
dir = "{folder}/recordings"
{more}
"""


def replayed(symbol):
    return symbol.startswith(REPLAYED)


def end_with_parent():
    """Has the kernel kill this process when its parent ends, however that ends (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Gateway:
    """The program, ready. `more` goes on behind `[record]` in its configuration, `replay` behind `[replay]`."""

    def __init__(self, binary, folder, more="", replay=""):
        config, self.log = folder / "tickfan.toml", folder / "log"
        captures = ", ".join(f'"{ROOT}/feeds/{name}.zst"' for name in CAPTURES)
        values = {"captures": captures, "root": ROOT, "token": TOKEN, "folder": folder}
        config.write_text(CONFIG.format(**values, more=more, replay=replay))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TICKFAN_")}
        with self.log.open("wb") as log:
            command = [binary, "serve", "--config", str(config)]
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, env=environment, preexec_fn=end_with_parent
            )
            ready = self.process.stdout.readline().decode()
        if not ready.startswith("tickfan ready"):
            raise SystemExit(f"no gateway: {ready}{self.log.read_text()}")
        values = dict(word.split("=", 1) for word in ready.split() if "=" in word)
        self.http, self.admin, self.publish = (address(values[name]) for name in ("http", "admin", "publish"))
        self.pid = self.process.pid

    def exit_code(self):
        """`None` while it runs."""
        return self.process.poll()

    def resident(self):
        """Bytes of memory."""
        return self._status("VmRSS") * 1024

    def files(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self):
        return self._status("Threads")

    def cpu_s(self):
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _status(self, name):
        return int(re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text(), re.M).group(1))

    def complaints(self):
        """Lines of its log that are no notices."""
        lines = self.log.read_text(errors="replace").splitlines()
        stalls = [(line, STALL.match(line)) for line in lines if line and not NOTICES.match(line)]
        return [line for line, stall in stalls if not stall or float(stall[1]) > STALL_S]

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def address(text):
    host, port = text.removeprefix("http://").rsplit(":", 1)
    return host, int(port)
