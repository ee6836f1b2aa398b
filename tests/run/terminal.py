"""terminal.py TAILRACE CONFIG: run on a terminal. Ctrl-C, Ctrl-Z, fg and the end, as a shell sees them."""
import os, pty, select, signal, sys, time

tailrace, config = sys.argv[1:]
pid, terminal = pty.fork()
if pid == 0:
    for ignored in (signal.SIGINT, signal.SIGQUIT):  # as in a shell's background job
        signal.signal(ignored, signal.SIG_DFL)
    os.environ["PS1"] = "ready> "
    os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])

seen = b""

def expect(text):
    global seen
    end = time.monotonic() + 20
    while text not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0, end - time.monotonic()))
        if not ready:
            sys.exit(f"no {text!r} in {seen!r}")
        seen += os.read(terminal, 4096)
    seen = seen[seen.index(text) + len(text):]

def type_(text):
    os.write(terminal, text)

run = f"{tailrace} run --config {config} -- ".encode()
expect(b"ready> ")
type_(run + b"sh -c 'trap \"echo int-$((1+1)); exit 3\" INT; echo go-$((2+2)); while :; do sleep 0.05; done'\n")
expect(b"go-4")
type_(b"\x03")
expect(b"int-2")
expect(b"ready> ")
type_(b"echo status-$?\n")
expect(b"status-3")

# One process: a shell that is caught while it starts another does not stop, wrapped or not.
with open("ticks.py", "w") as ticks:
    ticks.write("import time\nwhile True: print('tick', 3 + 3, flush=True), time.sleep(0.05)\n")
type_(run + b"python3 ticks.py\n")
expect(b"tick 6")
type_(b"\x1a")
expect(b"Stopped")
expect(b"ready> ")
type_(b"fg\n")
expect(b"tick 6")
type_(b"\x03")
expect(b"ready> ")
type_(b"echo status-$?\n")
expect(b"status-130")

type_(run + b"python3 -c 'import os; print(\"foreground\", os.tcgetpgrp(0) == os.getpgrp(), input())'\nline\n")
expect(b"foreground True line")
type_(b"exit 0\n")
os.waitpid(pid, 0)
print("ok")
